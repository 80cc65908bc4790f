"""Documents of a release, fetched from an untrusted source and checked against what the catalog signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pacstore.attributes import Attributes
from pacstore.documents import fetch_signed
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.manifest import Manifest
from pacstore.placement import Placement, placement_name
from pacstore.source import PerhapsAbsent, Source
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.trust.targets import CatalogRelease

Refresh = Callable[[], CatalogRelease]
"""Asks the catalog again for the same release."""


@dataclass(frozen=True, eq=False)
class Documents:
    """A release's manifest and attributes, as bytes and parsed."""

    manifest_bytes: bytes
    attributes_bytes: bytes
    manifest: Manifest
    attributes: Attributes


def fetch_documents(source: Source, release: CatalogRelease) -> Documents:
    """Manifest and attributes of `release`. Raises Corrupt, TooLarge, NewerFormat and what the source raises."""
    manifest_bytes = fetch_signed(source, object_path(ObjectKind.MANIFEST, release.manifest.digest), release.manifest)
    manifest = Manifest.parse(manifest_bytes, place=f"the manifest of {release.release}")
    if manifest.tree.digest != release.tree_digest:
        raise Corrupt("is not of the tree that the catalog names", place=f"the manifest of {release.release}")
    path = object_path(ObjectKind.ATTRIBUTES, release.attributes.digest)
    attributes_bytes = fetch_signed(source, path, release.attributes)
    attributes = Attributes.parse(attributes_bytes, manifest.tree, place=f"the attributes of {release.release}")
    return Documents(manifest_bytes, attributes_bytes, manifest, attributes)


def fetch_placement(source: Source, release: CatalogRelease, manifest: Manifest) -> Placement:
    """The placement that the catalog names. Raises as `fetch_documents` does; NotFound when it was replaced."""
    name = placement_name(release.release, release.placement_number)
    data = fetch_signed(source, document_path(DocumentKind.PLACEMENT, name), release.placement)
    placement = Placement.parse(data, manifest, place=f"the placement {name}")
    if (placement.release, placement.number) != (release.release, release.placement_number):
        raise Corrupt("belongs to another release or has another number", place=f"the placement {name}")
    return placement


def fetch_all(
    source: Source, release: CatalogRelease, refresh: Refresh | None
) -> tuple[Documents, Placement, CatalogRelease]:
    """All three documents, and the release with the placement that they were read with. Raises as the others do."""
    documents = fetch_documents(source, release)
    try:
        return documents, fetch_placement(source, release, documents.manifest), release
    except (NotFound, PerhapsAbsent) as error:
        newer = refreshed(release, refresh, error)
        return documents, fetch_placement(source, newer, documents.manifest), newer


def refreshed(release: CatalogRelease, refresh: Refresh | None, error: NotFound | PerhapsAbsent) -> CatalogRelease:
    """The release with a newer placement. Raises `error` where there is none, Refused where the release changed."""
    if refresh is None:
        raise error
    newer = refresh()
    if (newer.release, newer.tree_digest, newer.manifest) != (release.release, release.tree_digest, release.manifest):
        raise Refused("changed in the catalog, which must not happen", place=str(release.release))
    if newer.placement_number <= release.placement_number:
        raise error
    return newer

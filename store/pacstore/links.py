"""The links of a release: where clients of TUF other than ours find its documents (FORMAT.md section 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pacstore.errors import NotFound
from pacstore.placement import placement_name
from pacstore.storage import DocumentKind, ObjectKind, TargetLink, TargetLinks, document_path, object_path, target_path
from pacstore.trust import entries

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease


def links_of(entry: CatalogRelease) -> list[TargetLink]:
    """The links of all documents that the catalog names for a release."""
    manifest, attributes, placement, provenance = entries.paths_of(entry.release)
    name = placement_name(entry.release, entry.placement_number)
    documents = [
        (manifest, entry.manifest, object_path(ObjectKind.MANIFEST, entry.manifest.digest)),
        (attributes, entry.attributes, object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)),
        (placement, entry.placement, document_path(DocumentKind.PLACEMENT, name)),
    ]
    if entry.provenance is not None:
        path = object_path(ObjectKind.PROVENANCE, entry.provenance.digest)
        documents.append((provenance, entry.provenance, path))
    return [TargetLink(target_path(target, signed.sha256), file) for target, signed, file in documents]


def link_targets(storage: TargetLinks, releases: Iterable[CatalogRelease]) -> list[Release]:
    """Make the missing links of these releases; return those of which a document is not here. May be repeated.

    For stores that were made before there were links, or copied without them. Raises Unavailable.
    """
    incomplete = []
    for entry in releases:
        try:
            storage.link(links_of(entry))
        except NotFound:
            incomplete.append(entry.release)
    return incomplete

"""Listing: all releases of a verified catalog that lies in a store, and which public paths its documents have.

Only lines that changed are read again. What one line says wrongly of a release, although it is signed, hides that release alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Targets

from pacstore.digest import Digest
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.links import links_of
from pacstore.placement import placement_name
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, document_path, is_target_path
from pacstore.trust import entries
from pacstore.trust.metadata import METADATA_LIMITS, file_name
from pacstore.trust.served import RoleState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pacstore.storage import DocumentStorage
    from pacstore.trust.served import ServedState
    from pacstore.trust.targets import CatalogRelease, SignedDocument

_NONE = RoleState(0, "")
_KINDS = (ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES, ObjectKind.PROVENANCE)
_FAULTS = 100
"""Releases and lines that are told of as wrong, at most."""


@dataclass(frozen=True, slots=True)
class Named:
    """A document that the catalog names: what it must be, and its public `path`, which is none of its links."""

    path: str
    signed: SignedDocument


@dataclass(frozen=True)
class _Line:
    states: tuple[RoleState, RoleState]
    releases: Mapping[Release, CatalogRelease]
    faults: tuple[str, ...]

    @cached_property
    def objects(self) -> Mapping[str, Mapping[bytes, SignedDocument]]:
        """The documents that are named by their digests, by kind and digest. Made when it is first asked for."""
        found: dict[str, dict[bytes, SignedDocument]] = {kind.value: {} for kind in _KINDS}
        for entry in self.releases.values():
            for kind, signed in zip(_KINDS, (entry.manifest, entry.attributes, entry.provenance), strict=True):
                if signed is not None:
                    found[kind.value][signed.digest.raw] = signed
        return found


@dataclass(frozen=True)
class Listing:
    """The releases of one state, and what is wrong with others; begins empty."""

    lines: Mapping[str, _Line] = field(default_factory=dict)

    @cached_property
    def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release, withdrawn ones too."""
        found: dict[Release, CatalogRelease] = {}
        for line in self.lines.values():
            found |= line.releases
        return MappingProxyType(found)

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """A sentence for each release, or line, that its signers described wrongly; a bounded number."""
        return tuple(fault for line in self.lines.values() for fault in line.faults)[:_FAULTS]

    def named(self, path: str) -> Named | None:
        """The document at the public `path`, or link, if this catalog names it; None for all that it does not."""
        if is_target_path(path):
            return self._linked(path)
        if path.startswith(f"{DocumentKind.PLACEMENT.value}/"):
            return self._placement(path)
        return self._object(path)

    def newest_placement(self, path: str) -> int | None:
        """The number of the placement that the catalog has for the release whose placement is at `path`; None if it has none."""
        entry = self._release(path.partition("/")[2].rpartition(".")[0])
        return entry.placement_number if entry is not None else None

    def _object(self, path: str) -> Named | None:
        kind, _, name = path.partition("/")
        try:
            digest = Digest.parse(name.rpartition("/")[2]).raw
        except Refused:
            return None
        for line in self.lines.values():
            if (signed := line.objects.get(kind, {}).get(digest)) is not None:
                return Named(path, signed)
        return None

    def _placement(self, path: str) -> Named | None:
        entry = self._release(path.partition("/")[2].rpartition(".")[0])
        if entry is None:
            return None
        wanted = document_path(DocumentKind.PLACEMENT, placement_name(entry.release, entry.placement_number))
        return Named(path, entry.placement) if path == wanted else None

    def _linked(self, path: str) -> Named | None:
        entry = self._release(path.split("/")[2])
        if entry is None:
            return None
        for link, document in zip(links_of(entry), entry.documents(), strict=True):
            if link.path == path:
                return Named(link.file, document)
        return None

    def _release(self, name: str) -> CatalogRelease | None:
        try:
            return self.releases.get(Release.parse(name))
        except Refused:
            return None


def list_releases(documents: DocumentStorage, state: ServedState, before: Listing) -> Listing:
    """The listing of `state`, whose files are in `documents`; lines that are as in `before` are not read. Raises nothing."""
    lines: dict[str, _Line] = {}
    for project in entries.projects_of(state.expires):
        roles = entries.line_role(project), entries.placement_role(project)
        if not all(role in state.expires for role in roles):
            continue
        states = (state.roles[roles[0]], state.roles[roles[1]])
        known = before.lines.get(project)
        lines[project] = known if known and known.states == states else _read_line(documents, project, states)
    return Listing(lines)


def _read_line(documents: DocumentStorage, project: str, states: tuple[RoleState, RoleState]) -> _Line:
    try:
        line = _targets(documents, entries.line_role(project), states[0])
        placements = _targets(documents, entries.placement_role(project), states[1])
    except PacballError as error:
        # Not remembered under these states: what is only unreadable now is read again at the next change.
        return _Line((_NONE, _NONE), {}, (str(error),))
    releases: dict[Release, CatalogRelease] = {}
    faults: list[str] = []
    for name in sorted(_names(line)):
        try:
            release = Release.parse(name)
            entry = entries.decode(release, line, placements) if release.project == project else None
        except PacballError as error:
            faults.append(str(error))
            continue
        if entry is not None:
            releases[release] = entry
    return _Line(states, releases, tuple(faults[:_FAULTS]))


def _names(targets: Iterable[str]) -> Iterator[str]:
    for path in targets:
        parts = path.split("/")
        if len(parts) == 4 and parts[3] == "manifest":
            yield parts[2]


def _targets(documents: DocumentStorage, role: str, state: RoleState) -> dict[str, Any]:
    name = file_name(role, state.version)
    data = documents.get(DocumentKind.CATALOG, name, limit=METADATA_LIMITS.targets_bytes)
    if hashlib.sha256(data).hexdigest() != state.sha256:
        raise Corrupt("is not what the catalog says", place=document_path(DocumentKind.CATALOG, name))
    try:
        metadata: Metadata[Targets] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise Corrupt(f"does not verify: {error}", place=document_path(DocumentKind.CATALOG, name)) from error
    return metadata.signed.targets

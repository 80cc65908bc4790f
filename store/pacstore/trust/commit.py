"""The commit of a change: roles are written one by one under new versioned names, and a timestamp commits them all.

Nothing that is written before that is referred to by anything, so a crash leaves only unused files. Their version numbers stay
taken; the next writer takes later ones, which TUF allows except for roots.

A root is in force as soon as it is there. Where readers of the root before accept the new state, too, it comes last of all, so
that every reader has at all times a state that its root accepts. Where they cannot (a key was lost, and a new one takes its
place), it comes just before the timestamp, and readers who look in between must look again; a crash there is made good by the
next commit, since what was to be committed waits (`Draft.finish`). Of a new catalog the root comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from pacstore.errors import PacballError, Refused, TooLarge, Unavailable
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import chain, entries
from pacstore.trust.metadata import (
    COMPACT,
    METADATA_LIMITS,
    SIGNED_AT,
    TIME,
    Expiry,
    at,
    expiry_date,
    file_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesystemslib.signer import Signer

    from pacstore.trust.authority import Authority
    from pacstore.trust.chain import Head

# More than any number of publishers that crashed one after another.
VERSION_ATTEMPTS = 1000
_LIMITS = {
    Root.type: METADATA_LIMITS.root_bytes,
    Snapshot.type: METADATA_LIMITS.snapshot_bytes,
    Timestamp.type: METADATA_LIMITS.timestamp_bytes,
}


class Commit:
    """Writes roles on top of `head`, where `before` says who must sign, so that `after` says it."""

    def __init__(
        self, head: Head, before: Authority, after: Authority, *, now: float, expiry: Expiry, above: int = 0
    ) -> None:
        self._head = head
        self._before = before
        self._after = after
        self._now = now
        self._expiry = expiry
        self._above = above

    def run(
        self,
        roles: dict[str, Metadata[Any]],
        placement_roles: set[str],
        placements: dict[str, TargetFile],
        online: Sequence[Signer],
    ) -> bool:
        """Commit `roles`, which are completely signed, and have `placement_roles`, snapshot and timestamp signed by `online`.

        Those of `placements` whose release is in the catalog then are added and taken out of the mapping. False if another
        writer has been faster: then the same is to be done again, on what there is now. Raises TooLarge, Unavailable.
        """
        root = roles.get(Root.type)
        others = {role: metadata for role, metadata in roles.items() if role != Root.type}
        if root is not None and self._is_first() and not self._create(Root.type, root):
            return False
        moved = self._move_placements(others, placements)
        is_good = self._is_good_before(others, online)
        for role, metadata in others.items():
            if not self._list(role, self._create(role, metadata)):
                return False
        for role in sorted(placement_roles | moved | self._placements_anew()):
            self._list(role, self._write(role, self._placements(role), online, self._head.listed(role)))
        self._write_snapshot(online, anew=bool(roles or placement_roles or moved))
        if root is not None and not self._is_first() and not is_good and not self._create(Root.type, root):
            return False
        if not self._create_timestamp(online):
            return False
        chain.expose(self._head.documents)
        return root is None or self._is_first() or not is_good or self._create(Root.type, root) is not None

    def _write_snapshot(self, online: Sequence[Signer], *, anew: bool) -> None:
        old = self._head.snapshot
        limit = expiry_date(self._now, self._expiry.days(Snapshot.type) / 2)
        if anew or self._above or old.expires < limit:
            self._head.timestamp.snapshot_meta = self._write(Snapshot.type, old, online, old.version)

    def _create_timestamp(self, online: Sequence[Signer]) -> bool:
        """Commit; False if another writer was faster."""
        timestamp = self._head.timestamp
        timestamp.unrecognized_fields[SIGNED_AT] = at(self._now).strftime(TIME)
        # Named for the version that it follows, whatever its own: so two writers want the same name also where one of them
        # goes far above.
        name = file_name(Timestamp.type, timestamp.version + 1)
        data = self._bytes(Timestamp.type, timestamp, online, max(timestamp.version, self._above) + 1)
        return chain.create_document(self._head.documents, name, data)

    def _move_placements(self, lines: dict[str, Metadata[Any]], placements: dict[str, TargetFile]) -> set[str]:
        """Take over the placements of the releases of `lines`; the roles that changed."""
        moved = set()
        for path, target in list(placements.items()):
            project = path.split("/")[1]
            line = lines.get(entries.line_role(project))
            if line is None or f"{path.rpartition('/')[0]}/manifest" not in line.signed.targets:
                continue
            del placements[path]
            role = entries.placement_role(project)
            if path not in self._placements(role).targets:
                self._placements(role).targets[path] = target
                moved.add(role)
        return moved

    def _placements_anew(self) -> set[str]:
        """The placement roles that are new, have other keys than before, or need a higher version."""
        roles = [role for role in self._after.roles() if role.startswith(entries.placement_role(""))]
        return {role for role in roles if self._above or self._before.terms(role) != self._after.terms(role)}

    def _placements(self, role: str) -> Targets:
        if not self._head.listed(role):
            self._head.loaded.setdefault(role, Metadata(Targets()))
        return self._head.delegated(role)

    def _is_first(self) -> bool:
        return self._before.root.version == 0

    def _is_good_before(self, roles: dict[str, Metadata[Any]], online: Sequence[Signer]) -> bool:
        """Whether readers of the root before accept what is committed now."""
        targets = roles.get(Targets.type)
        signed = targets is None or not self._before.missing(Targets.type, targets)
        return signed and all(self._before.can_sign(role, online) for role in (Snapshot.type, Timestamp.type))

    def _list(self, role: str, meta: MetaFile | None) -> bool:
        if meta is not None:
            self._head.snapshot.meta[f"{role}.json"] = meta
        return meta is not None

    def _create(self, role: str, metadata: Metadata[Any]) -> MetaFile | None:
        data = encode(role, metadata)
        name = file_name(role, metadata.signed.version)
        if not chain.create_document(self._head.documents, name, data):
            # An attempt that crashed may have written it, with fewer or more signatures than are here now.
            found = chain.read_document(self._head.documents, name, METADATA_LIMITS.targets_bytes)
            if found is None or not self._is_same(role, found, metadata):
                return None
            data = found
        return MetaFile.from_data(metadata.signed.version, data, ["sha256"])

    def _is_same(self, role: str, found: bytes, metadata: Metadata[Any]) -> bool:
        try:
            other: Metadata[Any] = Metadata.from_bytes(found)
        except RepositoryError:
            return False
        return other.signed_bytes == metadata.signed_bytes and not self._after.missing(role, other)

    def _write(self, role: str, signed: Signed, signers: Sequence[Signer], newest: int) -> MetaFile:
        first = max(newest, self._above) + 1
        for version in range(first, first + VERSION_ATTEMPTS):
            data = self._bytes(role, signed, signers, version)
            if chain.create_document(self._head.documents, file_name(role, version), data):
                return MetaFile.from_data(version, data, ["sha256"])
        place = document_path(DocumentKind.CATALOG, file_name(role, first))
        raise Unavailable(f"this and the next {VERSION_ATTEMPTS} versions are taken by unfinished changes", place=place)

    def _bytes(self, role: str, signed: Signed, signers: Sequence[Signer], version: int) -> bytes:
        signed.version = version
        signed.expires = expiry_date(self._now, self._expiry.days(role))
        metadata: Metadata[Any] = Metadata(signed)
        sign_with(role, metadata, signers)
        return encode(role, metadata)


def sign_with(role: str, metadata: Metadata[Any], signers: Sequence[Signer]) -> None:
    """Add the signatures of `signers`. Raises what they raise, and Refused for what cannot be signed."""
    try:
        for signer in signers:
            metadata.sign(signer, append=True)
    except RepositoryError as error:
        if isinstance(error.__cause__, PacballError):
            raise error.__cause__ from None
        raise Refused(f"cannot be signed: {error}", place=role) from error


def encode(role: str, metadata: Metadata[Any]) -> bytes:
    """The bytes of a role's file. Raises TooLarge for what no client would read."""
    data: bytes = metadata.to_bytes(COMPACT)
    limit = _LIMITS.get(role, METADATA_LIMITS.targets_bytes)
    if len(data) > limit:
        hint = "no client would read it; use a new project name for further releases"
        raise TooLarge(f"its metadata would take {len(data)} bytes, more than {limit}", place=role, hint=hint)
    return data

"""A change to a catalog: roles are written one by one under new versioned names, and a timestamp commits them all.

Nothing that a draft writes before its commit is referred to by anything, so a crash leaves only unused files. Their
version numbers stay taken; the next writer takes later ones, which TUF allows except for roots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from pacstore.errors import Refused, TooLarge, Unavailable
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import chain, entries
from pacstore.trust.metadata import COMPACT, METADATA_LIMITS, Expiry, Thresholds, at, expiry_date, file_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesystemslib.signer import Signer

    from pacstore.storage import DocumentStorage
    from pacstore.trust.chain import Head

# More than any number of publishers that crashed one after another.
VERSION_ATTEMPTS = 1000
_LIMITS = {
    Root.type: METADATA_LIMITS.root_bytes,
    Snapshot.type: METADATA_LIMITS.snapshot_bytes,
    Timestamp.type: METADATA_LIMITS.timestamp_bytes,
}


class Draft:
    """Changes to the state `head`, whose objects it changes; what it signs is valid from `now` for the days in `expiry`."""

    def __init__(self, head: Head, *, now: float, expiry: Expiry) -> None:
        self.head = head
        self._now = now
        self._expiry = expiry
        self._signers: dict[str, Sequence[Signer]] = {}

    def sign(self, role: str, signers: Sequence[Signer]) -> None:
        """Have `targets` or a delegated role written anew by `commit`. Raises Refused if these keys do not suffice."""
        self._check(role, signers)
        self._signers[role] = signers

    def add_line(self, project: str, line: Sequence[Signer], online: Sequence[Signer], thresholds: Thresholds) -> None:
        """Delegate a new line to those keys; its two roles are empty, and written by `commit`, as is `targets`."""
        targets = self.head.targets
        if targets.delegations is None:
            targets.delegations = Delegations(keys={}, roles={})
        assert targets.delegations.roles is not None
        roles = entries.delegations(project, line_threshold=thresholds.line, online_threshold=thresholds.online)
        for role, signers in zip(roles, (online, line), strict=True):
            targets.delegations.roles[role.name] = role
            for signer in signers:
                targets.add_key(signer.public_key, role.name)
            self.head.loaded[role.name] = Targets()
            self.sign(role.name, signers)

    def nears_expiry(self, signed: Signed, role: str) -> bool:
        """Whether less than half of a role's lifetime is left."""
        return signed.expires < expiry_date(self._now, self._expiry.days(role) / 2)

    def commit(self, online: Sequence[Signer]) -> bool:
        """Write all that was signed, the snapshot if need be, and the timestamp, which commits.

        False if another writer has committed meanwhile: nothing has changed then. Raises Refused when the online key is
        not the catalog's, TooLarge, Unavailable.
        """
        self._check(Snapshot.type, online)
        self._check(Timestamp.type, online)
        snapshot = self.head.snapshot
        for role, signers in self._signers.items():
            signed = self.head.targets if role == Targets.type else self.head.delegated(role)
            listed = snapshot.meta.get(f"{role}.json")
            snapshot.meta[f"{role}.json"] = self._write(role, signed, signers, listed.version if listed else 0)
        timestamp = self.head.timestamp
        if self._signers or self.nears_expiry(snapshot, Snapshot.type):
            timestamp.snapshot_meta = self._write(Snapshot.type, snapshot, online, snapshot.version)
        return self._commit(timestamp, online)

    def write_root(self, signers: Sequence[Signer]) -> bool:
        """Write the next root, which is in force at once; False if another writer has done so."""
        root = self.head.root
        data = self._bytes(Root.type, root, signers, root.version + 1)
        return chain.create_document(self.head.documents, file_name(Root.type, root.version), data)

    def _commit(self, timestamp: Timestamp, online: Sequence[Signer]) -> bool:
        data = self._bytes(Timestamp.type, timestamp, online, timestamp.version + 1)
        name = file_name(Timestamp.type, timestamp.version)
        if not chain.create_document(self.head.documents, name, data):
            return False
        chain.expose(self.head.documents)
        return True

    def _write(self, role: str, signed: Signed, signers: Sequence[Signer], newest: int) -> MetaFile:
        for version in range(newest + 1, newest + 1 + VERSION_ATTEMPTS):
            data = self._bytes(role, signed, signers, version)
            if chain.create_document(self.head.documents, file_name(role, version), data):
                return MetaFile.from_data(version, data, ["sha256"])
        place = document_path(DocumentKind.CATALOG, file_name(role, newest + 1))
        raise Unavailable(f"this and the next {VERSION_ATTEMPTS} versions are taken by unfinished changes", place=place)

    def _bytes(self, role: str, signed: Signed, signers: Sequence[Signer], version: int) -> bytes:
        self._check(role, signers)
        signed.version = version
        signed.expires = expiry_date(self._now, self._expiry.days(role))
        metadata: Metadata[Any] = Metadata(signed)
        try:
            for signer in signers:
                metadata.sign(signer, append=True)
        except RepositoryError as error:
            raise Refused(f"cannot be signed: {error}", place=role) from error
        data = metadata.to_bytes(COMPACT)
        limit = _LIMITS.get(role, METADATA_LIMITS.targets_bytes)
        if len(data) > limit:
            hint = "no client would read it; use a new project name for further releases"
            raise TooLarge(f"its metadata would take {len(data)} bytes, more than {limit}", place=role, hint=hint)
        return data

    def _check(self, role: str, signers: Sequence[Signer]) -> None:
        """Refuse keys which readers would not accept, before anything is written."""
        delegator = self.head.root if role in self.head.root.roles else self.head.targets
        trusted = delegator.get_delegated_role(role)
        good = {signer.public_key.keyid for signer in signers} & set(trusted.keyids)
        if len(good) < trusted.threshold:
            message = f"needs {trusted.threshold} of the keys that the catalog trusts for it, here are {len(good)}"
            raise Refused(
                message, place=role, hint="use the directory of keys with which this catalog or line was made"
            )


def genesis(documents: DocumentStorage, root: Root, now: float) -> Head:
    """The empty state before the first commit: every version is 0, so that the first to be written is 1."""
    snapshot, timestamp = Snapshot(meta={}, expires=at(now)), Timestamp(expires=at(now))
    snapshot.version = timestamp.version = 0
    return chain.Head(documents, root, timestamp, snapshot, Targets(expires=at(now)))

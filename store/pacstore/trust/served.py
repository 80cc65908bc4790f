"""Which state of a catalog a server may serve: only one that verifies as clients verify it, and never an older one.

A server has no pinned root: it believes the first root that lies in its own store, and holds on to it. Nothing here
looks at expiry: clients judge that, and an expired catalog still tells them more than none. What is verified:

* every root, from `1.root.json` on, by itself and by the one before it;
* timestamp, snapshot, targets and every role that targets delegates to: length and hash as the file above it says, and the
  signatures by the keys that the role has now (`pacstore.trust.chain` trusts the hashes alone);
* against each state that was served before: no role is gone or has a lower version, and the same version of a role has
  the same bytes. When a later root changes the online keys, versions may start anew, as for clients
  (`pacstore.trust.floor`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Key, Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from pacstore.errors import Corrupt, NotFound, TooLarge, Untrusted
from pacstore.limits import MIB
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.clock import signed_at
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME, file_name, verify_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

S = TypeVar("S", bound=Signed)
RECORD_NAME = "served.json"
RECORD_BYTES = 16 * MIB

_CATALOG = DocumentKind.CATALOG
_RESTORE = "restore the file from a mirror or a backup"
_BACKWARD = (
    "restore the newer catalog from a mirror or a backup; if this one is really meant, stop the daemon and remove "
    f"private/{RECORD_NAME}: who has seen the newer one refuses it all the same"
)


class DocumentReader(Protocol):
    """Reads documents, as `pacstore.storage.DocumentStorage` does."""

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        """The document's bytes. Raises NotFound only if it is definitely absent, TooLarge, Unavailable."""


@runtime_checkable
class ChoosingReader(DocumentReader, Protocol):
    """A reader that has a role's file in more than one place, and wants to know what was found to be right."""

    def choose(self, role: str, meta: MetaFile) -> bytes:
        """The bytes of the version of `role` that `meta` names, from where they are as it says. Raises as `get`."""

    def accept(self, role: str, meta: MetaFile, data: bytes) -> None:
        """Told of each file that `choose` gave, once its hash and its signatures were verified. What it raises is raised."""


@dataclass(frozen=True, slots=True)
class RoleState:
    """One version of a role's metadata; `sha256` is that of its file, 64 hexadecimal digits."""

    version: int
    sha256: str


@dataclass(frozen=True)
class ServedState:
    """A verified state, as far as it is needed to serve it and to compare later ones with it.

    `timestamp`: the bytes of timestamp.json. `roots`: the sha256 of each root's file, from version 1. `online_keys`: the
    ids of the keys that sign snapshot and timestamp, sorted. `roles`: every role but root. `expires`: of every role that
    is in force, in seconds since 1970; `signed_at`: the same of the timestamp's signing, or None if it does not say.
    """

    timestamp: bytes
    roots: tuple[str, ...]
    online_keys: tuple[str, ...]
    roles: Mapping[str, RoleState]
    expires: Mapping[str, float]
    signed_at: float | None

    @property
    def version(self) -> int:
        """The catalog's version: that of its timestamp."""
        return self.roles[Timestamp.type].version

    @property
    def root_version(self) -> int:
        """The version of the root in force."""
        return len(self.roots)


@dataclass(frozen=True, slots=True)
class _Verified:
    """That this version of a role's file was signed as these keys must sign."""

    state: RoleState
    threshold: int
    keys: tuple[Key, ...]


class VerifiedRoles:
    """Which files of delegated roles were verified already, and when each expires; verifiers in several threads may share it."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Verified, float]] = {}

    def expires(self, role: str, verified: _Verified) -> float | None:
        """When the file of `role` expires, if exactly this was verified of it."""
        known = self._known.get(role)
        return known[1] if known is not None and known[0] == verified else None

    def add(self, role: str, verified: _Verified, expires: float) -> None:
        """Remember it, in the place of what was known of `role`."""
        self._known[role] = verified, expires

    def keep(self, roles: Iterable[str]) -> None:
        """Forget all others."""
        self._known = {role: known for role in roles if (known := self._known.get(role)) is not None}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a timestamp says that is signed by the keys of the root in force: its version, and the ids of the online keys."""

    version: int
    online_keys: tuple[str, ...]


class Verifier:
    """Verifies one state of a catalog after another. What it has verified of a role already it does not read again.

    `known` may be shared with other verifiers of the same catalog. Not for use by several threads at once.
    """

    def __init__(self, documents: DocumentReader, *, known: VerifiedRoles | None = None) -> None:
        self._documents = documents
        self._known = known or VerifiedRoles()

    def read_stamp(self, timestamp: bytes) -> Stamp:
        """What the bytes of a timestamp say, nothing below it being looked at. Raises as `verify`."""
        root, _ = self._roots()
        return Stamp(_signed(timestamp, TIMESTAMP_NAME, Timestamp, root).version, _online_keys(root))

    def verify(self, timestamp: bytes, *, floors: Iterable[ServedState] = ()) -> ServedState:
        """The state that the bytes `timestamp` commit, if it may be served after all of `floors` were.

        Raises Corrupt for what is missing or is not what it must be, Untrusted for signatures that do not suffice and
        for a step backward, Unavailable.
        """
        floors = tuple(floors)
        root, roots = self._roots()
        online_keys = _online_keys(root)
        stamp = _signed(timestamp, TIMESTAMP_NAME, Timestamp, root)
        roles = {Timestamp.type: _state_of(stamp, timestamp)}
        for floor in floors:
            _check_roots(floor, roots)
            _check_role(floor, Timestamp.type, roles, online_keys)
        snapshot = self._listed(Snapshot.type, stamp.snapshot_meta, Snapshot, root)
        roles[Snapshot.type] = _state(Snapshot.type, stamp.snapshot_meta)
        roles |= {name.removesuffix(".json"): _state(name, meta) for name, meta in snapshot.meta.items()}
        for floor in floors:
            for role in sorted(floor.roles):
                _check_role(floor, role, roles, online_keys)
        targets = self._listed(Targets.type, _meta(snapshot, Targets.type), Targets, root)
        expires = {signed.type: signed.expires.timestamp() for signed in (root, stamp, snapshot, targets)}
        expires |= self._delegated(targets, snapshot)
        return ServedState(timestamp, roots, online_keys, roles, expires, signed_at(stamp))

    def is_there(self, state: ServedState) -> bool:
        """Whether the files that clients need first of all, after the timestamp of `state`, can be read and are right."""
        return all(self._is_right(role, state.roles[role]) for role in (Snapshot.type, Targets.type))

    def _is_right(self, role: str, state: RoleState) -> bool:
        try:
            data = self._read(file_name(role, state.version), METADATA_LIMITS.targets_bytes)
        except Exception:  # noqa: BLE001 - whatever it is, nobody could fetch the file from here either
            return False
        return _sha256(data) == state.sha256

    def _roots(self) -> tuple[Root, tuple[str, ...]]:
        root: Root | None = None
        hashes: list[str] = []
        for version in range(1, METADATA_LIMITS.root_rotations + 2):
            name = file_name(Root.type, version)
            try:
                data = self._documents.get(_CATALOG, name, limit=METADATA_LIMITS.root_bytes)
            except NotFound:
                break
            except TooLarge as error:
                raise _corrupt(name, error) from error
            try:
                root = verify_root(data, previous=root)
            except (RepositoryError, ValueError) as error:
                raise Untrusted(
                    f"does not verify: {error}", place=document_path(_CATALOG, name), hint=_RESTORE
                ) from error
            hashes.append(_sha256(data))
        if root is None:
            raise _missing(file_name(Root.type, 1))
        return root, tuple(hashes)

    def _delegated(self, targets: Targets, snapshot: Snapshot) -> dict[str, float]:
        """Verify every delegated role; when each of them expires."""
        delegations = targets.delegations
        if delegations is None:
            return {}
        if delegations.roles is None:
            raise Corrupt("delegates to hash bins, which no catalog of pacball does", place=Targets.type)
        expires: dict[str, float] = {}
        for role, delegation in delegations.roles.items():
            meta = _meta(snapshot, role)
            # The keys belong to it: after a key was revoked, what that key alone had signed counts no more.
            keys = tuple(delegations.keys[keyid] for keyid in sorted(delegation.keyids) if keyid in delegations.keys)
            wanted = _Verified(_state(role, meta), delegation.threshold, keys)
            known = self._known.expires(role, wanted)
            if known is None:
                known = self._listed(role, meta, Targets, targets).expires.timestamp()
                self._known.add(role, wanted, known)
            expires[role] = known
        self._known.keep(delegations.roles)
        return expires

    def _listed(self, role: str, meta: MetaFile, kind: type[S], delegator: Root | Targets) -> S:
        name = file_name(role, meta.version)
        data = self._choose(role, meta)
        try:
            meta.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise _corrupt(name, error) from error
        signed = _signed(data, name, kind, delegator, role)
        if signed.version != meta.version:
            raise Corrupt(
                f"says that it is version {signed.version}", place=document_path(_CATALOG, name), hint=_RESTORE
            )
        if isinstance(self._documents, ChoosingReader):
            self._documents.accept(role, meta, data)
        return signed

    def _choose(self, role: str, meta: MetaFile) -> bytes:
        if isinstance(self._documents, ChoosingReader):
            return self._documents.choose(role, meta)
        return self._read(file_name(role, meta.version), metadata_bytes(meta))

    def _read(self, name: str, limit: int) -> bytes:
        try:
            return self._documents.get(_CATALOG, name, limit=limit)
        except NotFound as error:
            raise _missing(name) from error
        except TooLarge as error:
            raise _corrupt(name, error) from error


def encode_record(state: ServedState) -> bytes:
    """`state` as the bytes of a file, with a digest that shows damage."""
    record = {**asdict(state), "timestamp": state.timestamp.decode("latin-1")}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return json.dumps({"format": 1, "record": text, "sha256": _sha256(text.encode())}).encode()


def decode_record(data: bytes, place: str) -> ServedState:
    """The state in a file that `encode_record` made. Raises Corrupt for any other."""
    try:
        outer = json.loads(data)
        text = outer["record"]
        if outer["format"] != 1 or outer["sha256"] != _sha256(text.encode()):
            raise ValueError("its digest is another one")  # noqa: TRY301 - one kind for all damage
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt("this record of what was served last is damaged", place=place) from error
    # These are bytes that this module has written.
    record: dict[str, Any] = json.loads(text)
    return ServedState(
        timestamp=record["timestamp"].encode("latin-1"),
        roots=tuple(record["roots"]),
        online_keys=tuple(record["online_keys"]),
        roles={role: RoleState(**state) for role, state in record["roles"].items()},
        expires=record["expires"],
        signed_at=record["signed_at"],
    )


def metadata_bytes(meta: MetaFile) -> int:
    """The most bytes that the file may have which `meta` names."""
    return min(meta.length or METADATA_LIMITS.targets_bytes, METADATA_LIMITS.targets_bytes)


def _signed(data: bytes, name: str, kind: type[S], delegator: Root | Targets, role: str = "") -> S:
    """The metadata in `data`, signed by the keys that `delegator` names."""
    place = document_path(_CATALOG, name)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise _corrupt(name, error) from error
    if not isinstance(metadata.signed, kind):
        raise Corrupt(f"is not {kind.type} metadata", place=place, hint=_RESTORE)
    try:
        delegator.verify_delegate(role or kind.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"is not signed by the keys of its role: {error}", place=place, hint=_RESTORE) from error
    return metadata.signed


def _check_roots(floor: ServedState, roots: Sequence[str]) -> None:
    known = floor.root_version
    if len(roots) < known:
        message = f"the catalog went backward: root is version {len(roots)}, and version {known} was served before"
        raise Untrusted(message, place=file_name(Root.type, known), hint=_BACKWARD)
    for version, (old, new) in enumerate(zip(floor.roots, roots, strict=False), 1):
        if old != new:
            name = file_name(Root.type, version)
            raise Untrusted(
                "is another one than was served before", place=document_path(_CATALOG, name), hint=_BACKWARD
            )


def _check_role(floor: ServedState, role: str, roles: Mapping[str, RoleState], online_keys: tuple[str, ...]) -> None:
    if floor.online_keys != online_keys:
        return
    old, new = floor.roles[role], roles.get(role)
    if new is None:
        message = f"the catalog went backward: {role}, served before at version {old.version}, is gone"
    elif new.version < old.version:
        message = (
            f"the catalog went backward: {role} is version {new.version}, and version {old.version} was served before"
        )
    elif new.version == old.version and new.sha256 != old.sha256:
        message = f"{role} version {new.version} is not the same as was served before under this version"
    else:
        return
    raise Untrusted(message, place=document_path(_CATALOG, TIMESTAMP_NAME), hint=_BACKWARD)


def _meta(snapshot: Snapshot, role: str) -> MetaFile:
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise Corrupt(f"the snapshot does not list {role}", place=file_name(Snapshot.type, snapshot.version))
    return meta


def _state(role: str, meta: MetaFile) -> RoleState:
    sha256 = (meta.hashes or {}).get("sha256")
    if not isinstance(sha256, str):
        raise Corrupt(f"the catalog has no sha256 of {role}", place=_CATALOG.value)
    return RoleState(meta.version, sha256)


def _state_of(signed: Signed, data: bytes) -> RoleState:
    return RoleState(signed.version, _sha256(data))


def _online_keys(root: Root) -> tuple[str, ...]:
    return tuple(sorted({keyid for role in (Snapshot.type, Timestamp.type) for keyid in root.roles[role].keyids}))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _missing(name: str) -> Corrupt:
    return Corrupt("is missing", place=document_path(_CATALOG, name), hint=_RESTORE)


def _corrupt(name: str, error: Exception) -> Corrupt:
    return Corrupt(f"does not verify: {error}", place=document_path(_CATALOG, name), hint=_RESTORE)

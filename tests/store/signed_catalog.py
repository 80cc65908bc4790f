"""A catalog that is signed as a test wants it, rightly or wrongly: made with python-tuf's metadata alone."""

from __future__ import annotations

import copy
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

COMPACT = JSONSerializer(compact=True)
DAYS = {"root": 365, "targets": 365, "line": 365, "placement": 30, "snapshot": 30, "timestamp": 30}


class SignedCatalog:
    """Its files by path below the docroot; `commit` and the others add to them. `now` is when all is signed."""

    def __init__(self, *projects: str, now: float | None = None) -> None:
        self.now = time.time() if now is None else now
        self.files: dict[str, bytes] = {}
        self.sign_with: dict[str, CryptoSigner] = {}
        self.expires: dict[str, float] = {}
        self.signed_at = True
        names = ["root", "targets", "online", *(f"line-{project}" for project in projects)]
        self.keys = {name: CryptoSigner.generate_ed25519() for name in names}
        self.root = Root(roles={role: Role([], 1) for role in ("root", "targets", "snapshot", "timestamp")})
        unwritten(self.root)
        for role in self.root.roles:
            self.root.add_key(self.key(role).public_key, role)
        self.signed = {"targets": unwritten(Targets()), "snapshot": unwritten(Snapshot(meta={}))}
        self.timestamp = unwritten(Timestamp())
        self.signed["targets"].delegations = Delegations({}, {})
        for project in projects:
            self.add_line(project)
        self.write_root()
        self.commit("targets", *self.signed["targets"].delegations.roles)

    @property
    def version(self) -> int:
        return self.timestamp.version

    @property
    def stamp(self) -> bytes:
        return self.files["catalog/timestamp.json"]

    def key(self, role: str) -> CryptoSigner:
        online = role in ("snapshot", "timestamp") or role.startswith("placement-")
        return self.sign_with.get(role, self.keys["online" if online else role])

    def add_line(self, project: str) -> None:
        """Delegate a line; to be committed."""
        for name, path in ((f"placement-{project}", "*/placement"), (f"line-{project}", "*/*")):
            role = DelegatedRole(name, [], 1, True, paths=[f"releases/{project}/{path}"])
            self.signed["targets"].delegations.roles[name] = role
            self.signed["targets"].add_key(self.key(name).public_key, name)
            self.signed[name] = unwritten(Targets())

    def fill(self, project: str, releases: int) -> None:
        """Let the line have so many releases, about as long as real ones; to be committed."""
        for name, kinds in ((f"line-{project}", ("manifest", "attributes")), (f"placement-{project}", ("placement",))):
            for number in range(releases):
                for kind in kinds:
                    path = f"releases/{project}/{project}-{number}-x86_64-slc6-gcc46-opt/{kind}"
                    custom = {"digest": "ab" * 32, "bytes": 1, "files": 1, "published": "2026-01-01T00:00:00Z"}
                    target = TargetFile(1, {"sha256": "cd" * 32}, path, {"custom": custom})
                    self.signed[name].targets[path] = target

    def write_root(self, *signers: CryptoSigner) -> None:
        """Write the next root, signed by its key, or by these."""
        self.root.version += 1
        self._write("root", self.root, *(signers or (self.key("root"),)))

    def commit(self, *roles: str) -> bytes:
        """Write these roles anew, then snapshot and timestamp; the bytes of the timestamp."""
        for role in roles:
            self.signed[role].version += 1
            self._list(role, self._write(role, self.signed[role], self.key(role)))
        snapshot = self.signed["snapshot"]
        snapshot.version += 1
        data = self._write("snapshot", snapshot, self.key("snapshot"))
        self.timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
        return self.stamp_again()

    def stamp_again(self) -> bytes:
        """Write the next timestamp."""
        self.timestamp.version += 1
        if self.signed_at:
            self.timestamp.unrecognized_fields["signed_at"] = f"{self._date():%Y-%m-%dT%H:%M:%SZ}"
        self.files["catalog/timestamp.json"] = self._write("timestamp", self.timestamp, self.key("timestamp"))
        return self.stamp

    def path(self, role: str) -> str:
        """The path of a role's newest version."""
        return f"catalog/{self.signed[role].version}.{role}.json"

    def copy(self) -> SignedCatalog:
        """The same, to go on differently; with the same keys."""
        keys, self.keys = self.keys, {}
        other = copy.deepcopy(self)
        self.keys = keys
        other.keys = dict(keys)
        return other

    def write(self, public: Path) -> None:
        """Write all files below `public`, timestamp.json last, each replaced as a whole."""
        (public / "catalog").mkdir(parents=True, exist_ok=True)
        for path, data in sorted(self.files.items(), key=lambda item: item[0].endswith("/timestamp.json")):
            put(public / path, data)

    def _list(self, role: str, data: bytes) -> None:
        self.signed["snapshot"].meta[f"{role}.json"] = MetaFile.from_data(self.signed[role].version, data, ["sha256"])

    def _write(self, role: str, signed, *signers: CryptoSigner) -> bytes:
        kind = role.partition("-")[0]
        signed.expires = self._date() + timedelta(days=self.expires.get(role, DAYS[kind]))
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes(COMPACT)
        self.files[f"catalog/{signed.version}.{role}.json"] = data
        return data

    def _date(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC).replace(microsecond=0)


def unwritten(signed):
    """Metadata whose first version is to be 1."""
    signed.version = 0
    return signed


def put(path: Path, data: bytes) -> None:
    """Replace the file as a whole, unless it has these bytes."""
    if path.exists() and path.read_bytes() == data:
        return
    new = path.with_name(".new")
    new.write_bytes(data)
    new.replace(path)


def flipped(data: bytes) -> bytes:
    """`data` with another digit in the middle of it: still JSON, and of the same length."""
    at = next(n for n in range(len(data) // 2, len(data)) if chr(data[n]).isdigit())
    return data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :]

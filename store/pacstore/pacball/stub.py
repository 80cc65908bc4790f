"""The shell stub with which a pacball begins: texts that never change, by number (FORMAT.md section 12.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from pacstore.digest import Digest
from pacstore.limits import MIB
from pacstore.release import Release

STUB_VERSION = 1
STUB_BYTES = 16_384
"""Of every stub of version 1; the payload begins behind it."""


@dataclass(frozen=True)
class Stub:
    """What a stub says of its payload; `disk_kib`: what an installed copy takes up. The SHA-256 is in hexadecimal."""

    release: Release
    tree_digest: Digest
    payload_bytes: int
    files: int
    disk_kib: int
    payload_sha256: str = ""

    @property
    def file_name(self) -> str:
        """The name of the pacball."""
        return file_name(self.release, self.tree_digest)

    def with_digest(self, payload_sha256: str) -> Stub:
        """The same with the SHA-256 of the payload."""
        return replace(self, payload_sha256=payload_sha256)

    def is_like(self, beginning: bytes) -> bool:
        """Whether a file that begins so is this pacball, or was to be, whatever became of its other bytes."""
        return f"\nrelease='{self.release}'\ntree='{self.tree_digest}'\n".encode() in beginning

    def encode(self) -> bytes:
        """The stub, STUB_BYTES long."""
        fields = {
            "RELEASE": str(self.release),
            "TREE": str(self.tree_digest),
            "SHA256": self.payload_sha256,
            "STUB_BYTES": str(STUB_BYTES),
            "PAYLOAD_BYTES": str(self.payload_bytes),
            "WHOLE_BYTES": str(STUB_BYTES + self.payload_bytes),
            "WHOLE_MIB": str(-(-(STUB_BYTES + self.payload_bytes) // MIB)),
            "FILES": str(self.files),
            "DISK_MB": str(-(-self.disk_kib // 1000)),
        }
        text = _template()
        for key, value in fields.items():
            text = text.replace(f"@{key}@", value)
        # Comment lines: a shell that reads on past the end of the script finds nothing to do.
        padding = ("#" * 127 + "\n") * (STUB_BYTES // 128 + 1)
        return (text + padding[len(padding) - (STUB_BYTES - len(text)) :]).encode("ascii")


def is_pacball_of(release: Release, beginning: bytes) -> bool:
    """Whether a file that begins so is a pacball of `release`, of whatever tree."""
    return f"\nrelease='{release}'\n".encode() in beginning


def file_name(release: Release, tree_digest: Digest) -> str:
    """The name of a release's pacball."""
    return f"{release}.b3-{tree_digest}.sh"


@cache
def _template() -> str:
    return files("pacstore.pacball").joinpath(f"stub-{STUB_VERSION}.sh").read_text("ascii")

"""Pinned roots: the trust that everything else of a catalog is checked against.

A root is given by whoever installs, in a file or in a directory of roots of several catalogs (`find_pin`); or, the first time
a source is used, taken from it and remembered (trust on first use): then it must be compared with what its operator
publishes, by `fingerprint`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Untrusted
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import private
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, file_name, verify_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pacstore.source import Source


class Pins:
    """The roots that were trusted on first use, one file a source, in a directory of this client."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir

    def remember(self, source_name: str, root_bytes: bytes) -> None:
        """Pin the root of a source, durably. Raises Untrusted if another one is pinned, Refused if it is no root."""
        check_root(root_bytes, place=source_name)
        private.make_directory(self._directory)
        path = self._path(source_name)
        try:
            private.create(path, root_bytes)
        except Refused:
            if self.recall(source_name) != root_bytes:
                hint = f"if its operator confirms a new root, remove {path}"
                raise Untrusted("another root is pinned for this source", place=source_name, hint=hint) from None

    def recall(self, source_name: str) -> bytes | None:
        """The pinned root of a source, or None if it was never used. Raises Refused if the file is damaged."""
        path = self._path(source_name)
        data = private.read(path, limit=METADATA_LIMITS.root_bytes)
        return check_root(data, place=str(path)) if data is not None else None

    def _path(self, source_name: str) -> Path:
        return self._directory / f"{Digest.of(source_name.encode()).hex}.root.json"


@dataclass(frozen=True)
class Pin:
    """A root in a file: which version of a catalog's root it is, and its bytes."""

    path: Path
    version: int
    root: bytes


def read_pins(directories: Iterable[Path]) -> list[Pin]:
    """The roots in the files `*.json` of those of `directories` that exist. Raises Refused for one that is no root, Unavailable.

    One bad file is not passed over: it may be the one that was meant to be trusted.
    """
    pins = []
    for directory in directories:
        try:
            with wrapped(directory):
                names = sorted(name for name in os.listdir(directory) if name.endswith(".json") and name[0] != ".")
        except NotFound:
            continue
        for name in names:
            path = directory / name
            data = private.read(path, limit=METADATA_LIMITS.root_bytes)
            if data is None:
                raise Refused("leads nowhere", place=str(path), hint="give it a root.json, or remove it")
            check_root(data, place=str(path))
            pins.append(Pin(path, verify_root(data).version, data))
    return pins


def find_pin(source: Source, pins: Sequence[Pin]) -> Pin | None:
    """That of `pins` which is, byte for byte, the root that `source` shows under its version; the latest of several.

    The source itself claims to descend from it, and from there on all is verified. Raises Untrusted if a later root of the
    same catalog is pinned too, which the source does not show: it may be the one that took a stolen key away. Raises what
    `source.read` does, except for roots that are not there or not readable: they fit no pin.
    """
    shown: dict[int, bytes] = {}
    for pin in sorted(pins, key=lambda pin: -pin.version):
        if pin.version not in shown:
            shown[pin.version] = _shown(source, pin.version)
        if shown[pin.version] == pin.root:
            _refuse_if_behind(source, pin, pins)
            return pin
    return None


def _refuse_if_behind(source: Source, pin: Pin, pins: Iterable[Pin]) -> None:
    for later in pins:
        if later.version > pin.version and _follows(later.root, pin.root):
            message = f"it shows the root of {pin.path}, version {pin.version}, but not version {later.version} of {later.path}"
            hint = "it is behind, or lies: use another source"
            raise Untrusted(message, place=source.name, hint=hint)


def _follows(later: bytes, earlier: bytes) -> bool:
    """Whether the keys of the `earlier` root have signed the `later` one, so that both are of one catalog."""
    metadata: Metadata[Root] = Metadata.from_bytes(later)
    try:
        verify_root(earlier).verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


def _shown(source: Source, version: int) -> bytes:
    try:
        path = document_path(DocumentKind.CATALOG, file_name(Root.type, version))
        return source.read(path, limit=METADATA_LIMITS.root_bytes)
    except (NotFound, Corrupt, TooLarge):
        return b""


def fingerprint(root_bytes: bytes) -> str:
    """64 hexadecimal digits by which people compare roots: the BLAKE3 digest of the file."""
    return Digest.of(root_bytes).hex


def fetch_root(source: Source) -> bytes:
    """The first root that `source` has, for trust on first use. Raises Refused if that is no root, else as `source.read`."""
    path = document_path(DocumentKind.CATALOG, FIRST_ROOT_NAME)
    data = source.read(path, limit=METADATA_LIMITS.root_bytes)
    return check_root(data, place=f"{source.name}/{path}")


def check_root(data: bytes, *, place: str) -> bytes:
    """`data`, if it is TUF root metadata, signed by its own keys. Raises Refused otherwise."""
    hint = "give the file 1.root.json of the catalog, as its operator publishes it"
    try:
        verify_root(data)
    except (RepositoryError, ValueError) as error:
        raise Refused(f"is not a TUF root: {error}", place=place, hint=hint) from error
    return data

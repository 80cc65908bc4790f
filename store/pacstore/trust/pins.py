"""Pinned roots: the trust that everything else of a catalog is checked against.

A root is given by whoever installs (`--root-keys FILE`), or, the first time a source is used, taken from it and remembered
(trust on first use): then it must be compared with what its operator publishes, by `fingerprint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError

from pacstore.digest import Digest
from pacstore.errors import Refused, Untrusted
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import private
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, verify_root

if TYPE_CHECKING:
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

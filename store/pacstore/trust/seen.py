"""Which releases a client has seen in a fresh, verified catalog: what it still believes when the catalog has expired.

One file a line, `PROJECT.VERSION.STAMP`: VERSION is that of the line's metadata, STAMP tells apart what the snapshot says of
it. It has the digest of the rest, and then, ascending, a digest for each release and its manifest: 32 bytes a release.
Files are durable and never changed; a new version of the line gets a new file, and older ones are removed after that. So a
call writes nothing while a line stays as it is, and clients that run at once, without locks too, forget nothing of the
newest line that any of them has seen. A damaged file counts as none: its releases have not been seen.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.durable import wrapped
from pacstore.errors import TooLarge
from pacstore.trust import entries, private
from pacstore.trust.metadata import METADATA_LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tuf.api.metadata import MetaFile, Targets

    from pacstore.trust.targets import CatalogRelease

_MOST_VERSION = (1 << 63) - 1
"""So that no signed number makes a file name too long."""


class SeenReleases:
    """The releases seen in the lines of one catalog, in `directory`, which is made if it is missing. Raises Unavailable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        private.make_directory(directory)
        self._known: dict[str, frozenset[bytes]] = {}

    def learn(self, project: str, meta: MetaFile, line: Targets) -> None:
        """Remember durably what `line`, the line of `project`, lists; `meta` is what the snapshot says of it.

        Raises Unavailable.
        """
        name = _name(project, meta)
        others = [other for other in self._names(project) if other != name]
        if self._read(name) is None:
            keys = b"".join(sorted(_keys(project, line)))
            private.replace(self._directory / name, Digest.of(keys).raw + keys)
            self._known.pop(project, None)
        with wrapped(self._directory):
            for other in others:
                # One of a later version is from a client that knows more, if it is not from before a change of keys.
                if _version(other) <= _version(name):
                    (self._directory / other).unlink(missing_ok=True)

    def has(self, entry: CatalogRelease) -> bool:
        """Whether this release was seen, with this manifest. Raises Unavailable."""
        project = entry.release.project
        if project not in self._known:
            files = [self._read(name) or b"" for name in self._names(project)]
            self._known[project] = frozenset(key for keys in files for key in _split(keys))
        return _key(entries.paths_of(entry.release)[0], entry.manifest.digest.hex) in self._known[project]

    def _names(self, project: str) -> list[str]:
        with wrapped(self._directory):
            return [name for name in os.listdir(self._directory) if _is_of(name, project)]

    def _read(self, name: str) -> bytes | None:
        """The keys in a file, or None if it is missing or damaged."""
        try:
            data = private.read(self._directory / name, limit=METADATA_LIMITS.targets_bytes)
        except TooLarge:
            return None
        if data is None or Digest.of(data[DIGEST_BYTES:]).raw != data[:DIGEST_BYTES]:
            return None
        return data[DIGEST_BYTES:]


def _keys(project: str, line: Targets) -> Iterator[bytes]:
    for path, target in line.targets.items():
        custom = target.custom
        digest = custom.get("digest") if isinstance(custom, dict) else None
        if path.startswith(f"releases/{project}/") and path.endswith("/manifest") and isinstance(digest, str):
            yield _key(path, digest)


def _split(keys: bytes) -> Iterator[bytes]:
    for at in range(0, len(keys), DIGEST_BYTES):
        yield keys[at : at + DIGEST_BYTES]


def _key(path: str, digest: str) -> bytes:
    return Digest.of(f"{path} {digest}".encode("utf-8", "surrogatepass")).raw


def _name(project: str, meta: MetaFile) -> str:
    stamp = Digest.of(json.dumps(meta.to_dict(), sort_keys=True).encode())
    return f"{project}.{min(meta.version, _MOST_VERSION)}.{stamp.hex[:32]}"


def _version(name: str) -> int:
    return int(name.split(".")[1])


def _is_of(name: str, project: str) -> bool:
    parts = name.split(".")
    return len(parts) == 3 and parts[0] == project and parts[1].isdecimal()

"""Storage in a directory: the public files of a store as a web server sees them (FORMAT.md section 2).

`public/` has finished objects only; staging is below `private/`, in the same file system.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pacstore.digest import Digest
from pacstore.durable import (
    create_file,
    make_directory,
    replace_file,
    staged_file,
    sync_directory,
    unavailable,
    wrapped,
    write_all,
)
from pacstore.errors import NotFound, Refused, TooLarge, printable
from pacstore.storage import (
    TARGETS_TOP,
    DocumentKind,
    ObjectKind,
    Staged,
    TargetLink,
    document_path,
    is_target_path,
    object_path,
)

_OBJECT_MODE = 0o444
_LATER_KINDS = frozenset((ObjectKind.PROVENANCE, ObjectKind.BUNDLE))
"""Kinds for which older stores have no directory."""
_OBJECT_NAME = re.compile(r"[0-9a-f]{64}\Z")


class DirectoryStorage:
    """A Storage and TargetLinks over `public`, staging in `staging`; both exist and are in one file system.

    Links are hard links.
    """

    def __init__(self, public: Path, staging: Path) -> None:
        self.public = public
        self._staging = staging

    @contextmanager
    def stage(self, kind: ObjectKind) -> Iterator[Staged]:
        with wrapped(self._staging), staged_file(self._staging, mode=_OBJECT_MODE) as (descriptor, temporary):
            yield _DirectoryStaged(self.public, kind, descriptor, temporary)

    def open(self, kind: ObjectKind, digest: Digest) -> BinaryIO:
        return _open(self.public / object_path(kind, digest))

    def size(self, kind: ObjectKind, digest: Digest) -> int:
        path = self.public / object_path(kind, digest)
        with wrapped(path):
            return path.stat().st_size

    def digests(self, kind: ObjectKind) -> Iterator[Digest]:
        for path in self._listed(kind):
            if _is_object(path):
                yield Digest.parse(path[-64:])

    def strays(self) -> Iterator[str]:
        """Paths below the docroot that stand among the objects or links and are none. Nothing uses them."""
        for kind in ObjectKind:
            for path in self._listed(kind):
                if not _is_object(path):
                    yield f"{kind.value}/{path}"
        yield from (path for path in self._linked() if not is_target_path(path))

    def _listed(self, kind: ObjectKind) -> Iterator[str]:
        top = self.public / kind.value
        with wrapped(top):
            if kind in _LATER_KINDS and not _is_there(self.public, kind.value):
                return
            for directory in sorted(os.listdir(top)):
                if not (top / directory).is_dir():
                    yield directory
                    continue
                for name in sorted(os.listdir(top / directory)):
                    yield f"{directory}/{name}"

    def delete(self, kind: ObjectKind, digest: Digest) -> None:
        _unlink(self.public / object_path(kind, digest))

    def put(self, kind: DocumentKind, name: str, data: bytes) -> None:
        replace_file(self.public / document_path(kind, name), data, staging=self._staging)

    def create(self, kind: DocumentKind, name: str, data: bytes) -> None:
        create_file(self.public / document_path(kind, name), data, staging=self._staging)

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        return read_bounded(self.public / document_path(kind, name), limit)

    def names(self, kind: DocumentKind) -> Iterator[str]:
        top = self.public / kind.value
        with wrapped(top):
            yield from sorted(os.listdir(top))

    def remove(self, kind: DocumentKind, name: str) -> None:
        _unlink(self.public / document_path(kind, name))

    def link(self, links: Sequence[TargetLink]) -> None:
        parents = {path.parent for path in (self.public / link.path for link in links)}
        for parent in sorted(parents):
            with wrapped(parent):
                for directory in (parent.parents[1], parent.parent, parent):
                    make_directory(directory)
        for link in links:
            self._link(self.public / link.file, self.public / link.path)
        for parent in parents:
            with wrapped(parent):
                sync_directory(parent)

    def _link(self, file: Path, path: Path) -> None:
        with wrapped(file):
            status = os.stat(file)
        with suppress(NotFound), wrapped(path):
            if os.path.samestat(os.lstat(path), status):
                return
        temporary = self._staging / f"{secrets.token_hex(16)}.tmp"
        try:
            with wrapped(file):
                os.link(file, temporary)
            with wrapped(path):
                os.replace(temporary, path)
        finally:
            # Also where the rename did nothing, since another process had made the same link.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def links(self) -> Iterator[str]:
        yield from filter(is_target_path, self._linked())

    def open_link(self, path: str) -> BinaryIO:
        if not is_target_path(path):
            raise Refused("is not the path of a target", place=printable(path[:300]))
        return _open(self.public / path)

    def unlink(self, path: str) -> None:
        if not is_target_path(path):
            raise Refused("is not the path of a target", place=printable(path[:300]))
        _unlink(self.public / path)

    def _linked(self) -> Iterator[str]:
        """Everything below the directory of the links that is not a directory."""
        with wrapped(self.public / TARGETS_TOP):
            if _is_there(self.public, TARGETS_TOP):
                yield from sorted(_files_below(self.public, TARGETS_TOP))


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of the file `path`. Raises TooLarge if there are more than `limit`, NotFound or Unavailable."""
    with wrapped(path), open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"has more than {limit} bytes", place=str(path))
    return data


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise unavailable(error, path) from error


def _is_there(public: Path, name: str) -> bool:
    """Whether the docroot has `name`; an error where the docroot itself is missing, for example not mounted."""
    return name in os.listdir(public)


def _files_below(public: Path, top: str) -> Iterator[str]:
    with os.scandir(public / top) as found:
        for entry in found:
            path = f"{top}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(public, path)
            else:
                yield path


def _is_object(path: str) -> bool:
    directory, _, name = path.partition("/")
    return bool(_OBJECT_NAME.match(name)) and name[:2] == directory


def _unlink(path: Path) -> None:
    try:
        with wrapped(path):
            path.unlink()
            sync_directory(path.parent)
    except NotFound:
        return


class _DirectoryStaged:
    def __init__(self, public: Path, kind: ObjectKind, descriptor: int, temporary: Path) -> None:
        self._public = public
        self._kind = kind
        self._descriptor = descriptor
        self._temporary = temporary

    def write(self, data: bytes | memoryview) -> None:
        with wrapped(self._temporary):
            write_all(self._descriptor, data)

    def publish(self, digest: Digest) -> None:
        path = self._public / object_path(self._kind, digest)
        with wrapped(path):
            os.fsync(self._descriptor)
            if self._kind in _LATER_KINDS:
                make_directory(path.parent.parent)
            make_directory(path.parent)
            os.replace(self._temporary, path)
            sync_directory(path.parent)

"""Storage in memory: for tests, and for what is small and short-lived."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from pacstore.digest import Digest
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


class MemoryStorage:
    """A Storage and TargetLinks whose public files are the dict `files`, path to bytes, so that tests can look and damage."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, kind: ObjectKind) -> Iterator[Staged]:
        yield _MemoryStaged(self, kind)

    def open(self, kind: ObjectKind, digest: Digest) -> BinaryIO:
        return io.BytesIO(self._get(object_path(kind, digest)))

    def size(self, kind: ObjectKind, digest: Digest) -> int:
        return len(self._get(object_path(kind, digest)))

    def digests(self, kind: ObjectKind) -> Iterator[Digest]:
        for path in sorted(self._below(kind.value)):
            yield Digest.parse(path.rpartition("/")[2])

    def delete(self, kind: ObjectKind, digest: Digest) -> None:
        self.files.pop(object_path(kind, digest), None)

    def put(self, kind: DocumentKind, name: str, data: bytes) -> None:
        self.files[document_path(kind, name)] = bytes(data)

    def create(self, kind: DocumentKind, name: str, data: bytes) -> None:
        path = document_path(kind, name)
        with self._lock:
            if path in self.files:
                raise Refused("exists already", place=path)
            self.files[path] = bytes(data)

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        path = document_path(kind, name)
        data = self._get(path)
        if len(data) > limit:
            raise TooLarge(f"has more than {limit} bytes", place=path)
        return data

    def names(self, kind: DocumentKind) -> Iterator[str]:
        for path in sorted(self._below(kind.value)):
            yield path.partition("/")[2]

    def remove(self, kind: DocumentKind, name: str) -> None:
        self.files.pop(document_path(kind, name), None)

    def link(self, links: Sequence[TargetLink]) -> None:
        for link in links:
            self.files[link.path] = self._get(link.file)

    def links(self) -> Iterator[str]:
        yield from filter(is_target_path, sorted(self._below(TARGETS_TOP)))

    def open_link(self, path: str) -> BinaryIO:
        if not is_target_path(path):
            raise Refused("is not the path of a target", place=printable(path[:300]))
        return io.BytesIO(self._get(path))

    def unlink(self, path: str) -> None:
        if not is_target_path(path):
            raise Refused("is not the path of a target", place=printable(path[:300]))
        self.files.pop(path, None)

    def _below(self, top: str) -> list[str]:
        # `list` first: other threads may add files meanwhile.
        return [path for path in list(self.files) if path.startswith(f"{top}/")]

    def _get(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise NotFound("is not in this store", place=path) from None


class _MemoryStaged:
    def __init__(self, storage: MemoryStorage, kind: ObjectKind) -> None:
        self._storage = storage
        self._kind = kind
        self._data = io.BytesIO()

    def write(self, data: bytes | memoryview) -> None:
        self._data.write(data)

    def publish(self, digest: Digest) -> None:
        self._storage.files.setdefault(object_path(self._kind, digest), self._data.getvalue())

"""Unkept: documents that could not be written to the disk, in memory as long as somebody is sent them."""

from __future__ import annotations

import io
from typing import BinaryIO
from weakref import WeakValueDictionary

from pacmirror.verdict import NotReached


class Unkept:
    """Documents by path, each once whoever is sent it, together at most `most_bytes`; one that is larger may be alone."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        # Weak, so that nothing is left of clients that went at whatever moment.
        self._held: WeakValueDictionary[str, _Document] = WeakValueDictionary()

    @property
    def held_bytes(self) -> int:
        """Of all documents that somebody is sent."""
        return sum(len(document.data) for document in self._held.values())

    def open(self, path: str, data: bytes) -> BinaryIO:
        """The document as a file, which counts until it is closed. Raises NotReached if there is no room for it."""
        document = self._held.get(path)
        if document is None:
            held_bytes = self.held_bytes
            if held_bytes and held_bytes + len(data) > self._most_bytes:
                message = "cannot be kept here, and too many clients are sent such documents from memory"
                raise NotReached(message, place=path, hint="try again later, or another source")
            document = self._held[path] = _Document(data)
        return _Reader(document)


class _Document:
    def __init__(self, data: bytes) -> None:
        self.data = data


class _Reader(io.BytesIO):
    def __init__(self, document: _Document) -> None:
        super().__init__(document.data)
        self._document: _Document | None = document

    def close(self) -> None:
        self._document = None
        super().close()

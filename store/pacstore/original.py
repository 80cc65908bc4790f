"""Originals: a file that a release was taken in from, described as what lies between its files (FORMAT.md section 4.2).

The *plain* bytes of an original are those of its tar: rows of literal bytes, each followed by the content of a file. What is
not the content of a file is its *residue*: `before` and `after` the plain bytes, then the literals, all in one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from pacstore.document import U32, Column32, Column64, Value
from pacstore.errors import Refused, printable
from pacstore.limits import LIMITS, MIB
from pacstore.tree import check_name

if TYPE_CHECKING:
    from pacstore.document import Document

NO_FILE = 2**32 - 1
"""Of a row: no content follows its literal."""

ENDS_BYTES = 64 * MIB
"""The most that stands before and after a stream that is made again."""

_LARGEST = 2**63 - 1
_KEYS = ("after", "before", "length", "name", "plain", "recompression", "sha256")
_RECOMPRESSION_ITEMS = 16
_SHA256_BYTES = 32
_TEXT_CHARACTERS = 200


@dataclass(frozen=True)
class Recompression:
    """How the plain bytes become a compressed stream: by a `tool`, of a `version`, with `settings`, which are numbers.

    The stream begins `skipped` bytes after that which the tool writes: these are before it in the original already.
    """

    tool: str
    version: str
    settings: dict[str, int] = field(default_factory=dict)
    skipped: int = 0

    def header(self) -> dict[str, Value]:
        """As it stands in a manifest."""
        return {"tool": self.tool, "version": self.version, "skipped": self.skipped, **self.settings}

    def __str__(self) -> str:
        told = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        # A stranger's manifest has it, and it is shown to people.
        return printable(f"{self.tool} {self.version}" + (f" ({told})" if told else ""))


@dataclass(frozen=True, eq=False)
class Original:
    """An original: its file `name`, `length` in bytes and SHA-256; how much of the residue is `before` and `after`.

    `plain_bytes`: how long the plain bytes are. Without a `recompression` they stand in the original as they are. Row r is
    `literal_lengths[r]` bytes of the residue, then the content of the file `literal_files[r]`, NO_FILE for none.
    """

    name: str
    length: int
    sha256: bytes
    before: int
    after: int
    plain_bytes: int
    literal_lengths: Column32
    literal_files: Column32
    recompression: Recompression | None = None

    @classmethod
    def of_document(cls, document: Document) -> Original:
        """What a manifest with an original says of it; `fault` says whether that agrees. Raises Corrupt."""
        value = document.header["original"]
        if not isinstance(value, dict) or tuple(sorted(value)) != _KEYS:
            raise document.corrupt("its original has other keys")
        name, sha256 = value["name"], value["sha256"]
        if not isinstance(name, str) or not isinstance(sha256, bytes) or len(sha256) != _SHA256_BYTES:
            raise document.corrupt("its original has no name or digest")
        try:
            check_name(name.encode())
        except Refused as error:
            raise document.corrupt(f"its original's name {error.message}") from error
        numbers = [value[key] for key in ("length", "before", "after", "plain")]
        if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
            raise document.corrupt("a length of its original is out of bounds")
        length, before, after, plain = (cast(int, number) for number in numbers)
        rows = len(document.sections["literal_files"]) // U32.itemsize
        return cls(
            name, length, sha256, before, after, plain,
            cast(Column32, document.column("literal_lengths", U32, rows)),
            cast(Column32, document.column("literal_files", U32, rows)),
            _recompression(document, value["recompression"]),
        )  # fmt: skip

    def header(self) -> dict[str, Value]:
        """As it stands in a manifest."""
        return {
            "name": self.name,
            "length": self.length,
            "sha256": self.sha256,
            "before": self.before,
            "after": self.after,
            "plain": self.plain_bytes,
            "recompression": self.recompression.header() if self.recompression else {},
        }

    @property
    def residue_bytes(self) -> int:
        """How long the residue is."""
        return self.before + self.after + int(self.literal_lengths.sum(dtype=np.int64))

    def fault(self, sizes: Column64, residue_bytes: int) -> str:
        """What is wrong with it, beside files of these `sizes` and so much residue; empty for nothing."""
        used = self.literal_files[self.literal_files != NO_FILE]
        if len(self.literal_files) > LIMITS.tree_entries or (used >= len(sizes)).any():
            return "its original has a file that is not in the tree"
        counts = np.bincount(used, minlength=len(sizes)) if len(used) else np.zeros(0)
        if (counts > 1).any():
            return "its original has a file twice"
        if self.residue_bytes != residue_bytes:
            return "the residue of its original has another length"
        # Of distinct files, whose sizes add up to less than 2^63.
        plain = int(self.literal_lengths.sum(dtype=np.int64)) + int(sizes[used].sum(dtype=np.uint64))
        if plain != self.plain_bytes:
            return "the plain bytes of its original do not add up"
        if self.recompression is None and self.before + plain + self.after != self.length:
            return "the parts of its original do not add up"
        if self.recompression is not None and self.before + self.after > min(self.length, ENDS_BYTES):
            return "too much stands before and after the stream of its original"
        return ""


def _recompression(document: Document, value: Value) -> Recompression | None:
    if not isinstance(value, dict) or len(value) > _RECOMPRESSION_ITEMS:
        raise document.corrupt("its original has no valid recompression")
    if not value:
        return None
    rest = dict(value)
    tool, version, skipped = (rest.pop(key, None) for key in ("tool", "version", "skipped"))
    if not isinstance(tool, str) or not isinstance(version, str) or type(skipped) is not int:
        raise document.corrupt("its original's recompression names no tool, version or length")
    if max(len(tool), len(version)) > _TEXT_CHARACTERS or any(type(item) is not int for item in rest.values()):
        raise document.corrupt(
            "its original's recompression has a text that is too long, or a setting that is no number"
        )
    return Recompression(tool, version, {key: cast(int, item) for key, item in rest.items()}, skipped)

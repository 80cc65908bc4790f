"""Material: what a release is to be made of, a directory or an archive, open for being read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pacstore.archive.taking import Archive, taken
from pacstore.declaration import FILE, FILE_BYTES, check_declaration, check_declared
from pacstore.errors import Refused
from pacstore.progress import Progress
from pacstore.reader import Contents, Directory
from pacstore.tree import EntryKind
from pacstore.walk import Extent, extent_of


@dataclass(frozen=True)
class Material:
    """The directory or file at `path`: its contents, and the archive that a file is."""

    path: Path
    contents: Contents
    archive: Archive | None = None

    def measure(self, progress: Progress) -> Extent:
        """How much it is. Raises Refused where it is nothing, or what no release may contain."""
        extent = extent_of(self.contents.entries(progress))
        if not extent.entries:
            raise Refused("is empty", place=str(self.path), hint="name the directory that holds the release")
        return extent

    def check_declared(self) -> None:
        """Raise Corrupt, TooLarge, NewerFormat or Refused for a pacball.toml in it that is not valid."""
        if self.archive is None:
            check_declared(self.path)
            return
        entries, place = self.archive.entries, f"{self.path}: {FILE}"
        kind = entries.kind_of(FILE.encode())
        if kind is None:
            return
        if not kind.is_file:
            raise Refused("must be an ordinary file", place=place, hint="give it another name, or make it a file")
        data = entries.read(FILE.encode(), FILE_BYTES + 1)
        check_declaration(data, partial(_check_program, self.archive), place=place)


@contextmanager
def opened(path: Path, *, staging: Path, keep_stream: bool, progress: Progress) -> Iterator[Material]:
    """The material at `path`; `staging` and `keep_stream` as for `taken`, whose errors are raised."""
    if path.is_dir():
        yield Material(path, Directory(path))
        return
    with taken(path, staging, keep_stream=keep_stream, progress=progress) as archive:
        yield Material(path, archive.entries, archive)


def _check_program(archive: Archive, program: str, place: str) -> None:
    kind = archive.entries.kind_of(program.encode())
    if kind is None:
        raise Refused("names a program that the release does not have", place=place, hint=program)
    if kind not in (EntryKind.EXECUTABLE, EntryKind.SYMLINK):
        raise Refused(
            "names what is no executable file", place=place, hint=f"chmod +x {program}; make the archive again"
        )

"""Checking: an installed tree against what it should be, by threads of this process or, where there is much, by processes.

The threads of one interpreter hash hardly faster than one: with many small files they mostly wait for one another.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pacstore.errors import Unavailable
from pacstore.install.crew import Crew
from pacstore.install.root.layout import Root
from pacstore.install.team import Desk, Team, may_fork
from pacstore.install.tree.disk import DIRECTORY_FLAGS
from pacstore.install.tree.hashing import Known
from pacstore.install.upkeep.examination import Buffer, Examination, Found, Inode, attribute_faults
from pacstore.install.upkeep.findings import Fault, Finding
from pacstore.install.upkeep.parts import Cutting, Expected, Piece
from pacstore.limits import MIB
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.tree import EntryKind

TOP_PATH = "."
_Take = Callable[[Found], None]
_Order = tuple[str, Inode, Piece]


@dataclass(frozen=True)
class Readers:
    """How many read: `threads`, or `processes` (if two or more) where there are `processes_from_bytes` and no other thread."""

    threads: int = 2
    processes: int = 1
    processes_from_bytes: int = 64 * MIB


READERS = Readers()


@dataclass(frozen=True)
class Subject:
    """The tree of a release: its open top, and the pieces into which it is cut."""

    release: Release
    top: int
    pieces: Iterable[Piece]


class Examiners(Protocol):
    """Who compares pieces of a tree."""

    def examine(self, subject: Subject, *, known: Known, progress: Progress, take: _Take) -> None:
        """Compare all pieces; `take` is given what comes of each, by the thread that calls this."""


class Threads:
    """Threads of this process."""

    def __init__(self, count: int) -> None:
        self._count = count

    def examine(self, subject: Subject, *, known: Known, progress: Progress, take: _Take) -> None:
        """As the protocol says."""
        results: list[Found] = []

        def job(piece: Piece) -> Callable[[Buffer], None]:
            def examine(buffer: Buffer) -> None:
                examination = Examination(
                    subject.top, piece.owner, buffer, ask=known.find_all, advance=progress.advance
                )
                found = examination.run(piece)
                known.keep_all(found.digests)
                results.append(found)

            return examine

        with Crew(self._count, Buffer) as crew:
            for piece in subject.pieces:
                crew.give(job(piece))
            crew.finish()
        for found in results:
            take(found)


class Processes:
    """Forked processes, each of which opens the trees for itself."""

    def __init__(self, team: Team[_Order, list[bytes], list[bytes | None], Found]) -> None:
        self._team = team

    def examine(self, subject: Subject, *, known: Known, progress: Progress, take: _Take) -> None:
        """As the protocol says. Raises Unavailable where a process was ended, or another tree has taken this one's place."""

        def keep(found: Found) -> None:
            known.keep_all(found.digests)
            take(found)

        inode = _inode(subject.top)
        orders = ((str(subject.release), inode, piece) for piece in subject.pieces)
        self._team.run(orders, answer=known.find_all, advance=progress.advance, take=keep)


class _Examiner:
    """What a process does: pieces of one tree after another."""

    def __init__(self, releases: int) -> None:
        self._releases = releases
        self._name = ""
        self._top = -1
        self._buffer = Buffer()

    def __call__(self, order: _Order, desk: Desk[list[bytes], list[bytes | None]]) -> Found:
        name, inode, piece = order
        if name != self._name:
            self._open(name, inode)
        return Examination(self._top, piece.owner, self._buffer, ask=desk.ask, advance=desk.advance).run(piece)

    def _open(self, name: str, inode: Inode) -> None:
        if self._top >= 0:
            os.close(self._top)
            self._top = -1
        self._top, self._name = os.open(name, DIRECTORY_FLAGS, dir_fd=self._releases), name
        if _inode(self._top) != inode:
            raise Unavailable("has been replaced while it was compared", place=name, hint="run the same command again")


def _inode(descriptor: int) -> Inode:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def examiners(root: Root, readers: Readers, *, bytes_total: int) -> Iterator[Examiners]:
    """Who compares releases of `root`, `bytes_total` in all."""
    with contextlib.ExitStack() as stack:
        who: Examiners = Threads(readers.threads)
        if readers.processes > 1 and bytes_total >= readers.processes_from_bytes and may_fork():
            # Where no more processes are allowed, or there is no room for them, threads take longer.
            with contextlib.suppress(OSError):
                who = Processes(stack.enter_context(Team(readers.processes, _Examiner(root.releases))))
        yield who


def check_tree(
    expected: Expected, release: Release, top: int, *, examiners: Examiners, known: Known, progress: Progress
) -> list[Finding]:
    """All that is wrong with the tree of `release`, whose open top is `top`, by path. Raises OSError, Unavailable."""
    faults = attribute_faults(EntryKind.DIRECTORY, os.fstat(top), expected.owner)
    findings = [Finding(TOP_PATH, fault, detail) for fault, detail in faults]
    inodes: dict[int, Inode] = {}

    def take(found: Found) -> None:
        findings.extend(found.findings)
        inodes.update(found.inodes)

    subject = Subject(release, top, Cutting(expected).pieces())
    examiners.examine(subject, known=known, progress=progress, take=take)
    return sorted([*findings, *_broken_links(expected, inodes)])


def _broken_links(expected: Expected, inodes: dict[int, Inode]) -> Iterator[Finding]:
    """Members of hard-link groups that are not one file any more."""
    for first, *others in expected.attributes.groups() if expected.attributes is not None else ():
        inode = inodes.get(first)
        for entry in others:
            other = inodes.get(entry)
            if inode is not None and other is not None and other != inode:
                detail = f"is no longer the same file as {expected.paths.shown(first)}"
                yield Finding(expected.paths.shown(entry), Fault.LINK, detail, entry)

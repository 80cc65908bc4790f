"""Exporting: releases of a store, and its signed catalog, become one file or several volumes, each of which can be taken in by
itself.

Packs travel whole, as mirrors hold them: those that the releases need and the other side lacks. A volume grows under its name
with `.partial` at the end and gets its name when it is whole and durable; what an interrupted export left is read back, and
what is right in it is not fetched again. The same releases of the same state of a catalog give the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pacstore.digest import Bytes
from pacstore.durable import sync_directory, wrapped
from pacstore.errors import NotFound, PacballError, Refused, TooLarge, Unavailable, printable
from pacstore.pacball.members import END
from pacstore.partial_pack import write_at
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock, ObjectKind, object_path
from pacstore.trust.targets import CatalogRelease
from pacstore.volumes.contents import CONTENTS_BYTES, NAME, Contents, Piece
from pacstore.volumes.expected import CatalogCopy, Expected, copy_catalog, packs_named, pieces_of
from pacstore.volumes.layout import Place, divide, places_of, undivided, volume_bytes, volume_path
from pacstore.volumes.volume import BEGINNING, Volume, read_contents

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.source import Source

PARTIAL = ".partial"


@dataclass(frozen=True)
class Exported:
    """What an export has. `volumes`: its files; `bytes_total` of them together. `packs` and `bytes_packs` of those in it;
    `bytes_since` of the packs that the releases need and the other side is taken to have. `bytes_kept`: what was there from
    before.
    """

    catalog_version: int
    releases: tuple[Release, ...]
    since: tuple[Release, ...]
    packs: int
    bytes_packs: int
    bytes_since: int
    bytes_total: int
    bytes_kept: int
    volumes: tuple[Path, ...] = field(default=())


@dataclass(frozen=True)
class Plan:
    """What is to be written: `contents`, and what each member must be. `packs_since` are those that are left out."""

    contents: Contents
    expected: Expected
    bytes_packs: int
    bytes_since: int


def plan_export(
    source: Source,
    catalog_source: Source,
    releases: Iterable[Release],
    since: Iterable[Release],
    *,
    root: bytes,
    split_bytes: int | None,
    clock: Clock,
) -> Plan:
    """What an export of `releases` has for a side that holds those of `since`, by the catalog of `catalog_source`.

    `root` is trusted. Raises NotFound for a release that is not there, Refused for one that was withdrawn, and where a volume
    of `split_bytes` is too small; and what the sources raise.
    """
    catalog = copy_catalog(catalog_source, root=root, clock=clock)
    wanted, held = (_entries(catalog, names) for names in (releases, since))
    there = {pack for entry in held for pack in packs_named(source, entry)}
    needed: dict[Digest, int] = {}
    for entry in wanted:
        needed |= packs_named(source, entry)
    packs = [Piece(object_path(ObjectKind.PACK, pack), length) for pack, length in needed.items() if pack not in there]
    expected = Expected.of(catalog, wanted)
    names, assumed = (tuple(entry.release for entry in entries) for entries in (wanted, held))
    bare = Contents(catalog.root, catalog.state.version, names, assumed, expected.shared(), ())
    last = expected.last()
    contents = undivided(bare, packs, last) if split_bytes is None else divide(bare, packs, last, split_bytes)
    if len(contents.encode(1)) > CONTENTS_BYTES:
        raise TooLarge("has more packs than one export can", place=NAME, hint="export fewer releases at once")
    total = sum(piece.length for piece in packs)
    return Plan(contents, expected, total, sum(needed.values()) - total)


def plan_bundle(
    source: Source, catalog_source: Source, release: Release, *, root: bytes, clock: Clock
) -> tuple[Plan, CatalogRelease]:
    """What an export of one release without its packs has (see `pacstore.volumes.bundle`), and what the catalog says of it.

    Raises as `plan_export`. `bytes_since` is the length of all its packs.
    """
    catalog = copy_catalog(catalog_source, root=root, clock=clock)
    (entry,) = _entries(catalog, [release])
    expected = Expected.of(catalog, [entry])
    bare = Contents(catalog.root, catalog.state.version, (release,), (), expected.shared(), ())
    left_out = sum(packs_named(source, entry).values())
    return Plan(undivided(bare, [], expected.last()), expected, 0, left_out), entry


def write_export(plan: Plan, source: Source, output: Path, *, is_split: bool, progress: Progress) -> Exported:
    """Write the volumes of `plan` to `output`, or, if it `is_split`, to files with numbers behind that name.

    When this returns all of them are whole and durable; each has its name only when it is. Raises Refused where a file has the
    name that is none of this export, Unavailable when the disk is full or fails or another export writes there, and what the
    source raises.
    """
    contents = plan.contents
    if output.is_dir() or not output.parent.is_dir():
        message = "is a directory" if output.is_dir() else "lies in no directory"
        raise Refused(message, place=str(output), hint="name the file to be written with -o")
    paths = [volume_path(output, number, is_split=is_split) for number in range(1, len(contents.volumes) + 1)]
    lengths = [volume_bytes(places_of(contents, number)) for number in range(1, len(paths) + 1)]
    _check_space(paths, lengths)
    kept = 0
    progress.begin("exporting", sum(lengths))
    for number, path in enumerate(paths, 1):
        kept += _write_volume(plan, source, path, number, progress)
    return Exported(
        contents.version,
        contents.releases,
        contents.since,
        len(contents.packs()),
        plan.bytes_packs,
        plan.bytes_since,
        sum(lengths),
        kept,
        tuple(paths),
    )


def volume_pieces(plan: Plan, source: Source, number: int) -> Iterator[Bytes]:
    """The bytes of one volume, in order, each member verified. Raises what the source raises, and Corrupt."""
    for place in places_of(plan.contents, number):
        yield place.header
        yield from _content(plan, source, place, number)
        yield place.padding
    yield END


def _entries(catalog: CatalogCopy, names: Iterable[Release]) -> list[CatalogRelease]:
    entries = []
    for name in sorted(set(names)):
        entry = catalog.releases.get(name)
        if entry is None:
            raise NotFound("is not in the catalog", place=str(name), hint="pacball list --from SOURCE says what is")
        if entry.withdrawal is not None:
            message = f"was withdrawn: {printable(entry.withdrawal.reason)}"
            raise Refused(message, place=str(name), hint="leave it out; mirrors cease to hold such releases")
        entries.append(entry)
    return entries


def _check_space(paths: Sequence[Path], lengths: Sequence[int]) -> None:
    needed = 0
    for path, length in zip(paths, lengths, strict=True):
        if not path.exists():
            partial = path.with_name(path.name + PARTIAL)
            needed += length - (partial.stat().st_blocks * 512 if partial.exists() else 0)
    found = os.statvfs(paths[0].parent)
    if needed > found.f_bavail * found.f_frsize:
        raise Unavailable(
            f"has {found.f_bavail * found.f_frsize:,} bytes free, but {needed:,} more are needed",
            place=str(paths[0].parent),
            hint="free some space, or name a file on another disk with -o",
        )


def _write_volume(plan: Plan, source: Source, path: Path, number: int, progress: Progress) -> int:
    """Write one volume; how many bytes of it were there before."""
    if os.path.lexists(path):
        return _keep(plan, path, number, progress)
    partial = path.with_name(path.name + PARTIAL)
    with wrapped(partial), _fitting(partial), _opened(partial) as descriptor:
        places = places_of(plan.contents, number)
        begin, kept = _resumed(plan, descriptor, partial, number, progress)
        os.ftruncate(descriptor, places[begin].at if begin < len(places) else places[-1].end)
        for place in places[begin:]:
            _write_member(plan, source, descriptor, place, number, progress)
        write_at(descriptor, END, places[-1].end)
        os.fsync(descriptor)
        os.rename(partial, path)
        sync_directory(path.parent)
    progress.advance(len(END))
    return kept


@contextmanager
def _fitting(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        hint = "its file system takes no longer files, FAT none of 4 GiB: give --split 4000M"
        raise Unavailable("is too large a file for where it is written", place=str(partial), hint=hint) from error


def _keep(plan: Plan, path: Path, number: int, progress: Progress) -> int:
    """A volume that has its name already, read back. Raises Refused if it is another one, or was altered since."""
    hint = "name another file with -o, or remove it"
    try:
        with closing(Volume.open(path)) as volume:
            if (volume.contents, volume.number) == (plan.contents, number):
                for place in volume.places[1:]:
                    plan.expected.check(volume, Piece(place.path, place.length), progress)
                return path.stat().st_size
    except PacballError as error:
        raise Refused(
            f"is there already, and is not this volume: {error.message}", place=str(path), hint=hint
        ) from error
    message = "is there already, and is of another export, or of another state of the catalog"
    raise Refused(message, place=str(path), hint=hint)


@contextmanager
def _opened(partial: Path) -> Iterator[int]:
    """What an interrupted export left, or a new file; nobody else writes to it meanwhile."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o644)
    try:
        found = os.fstat(descriptor)
        beginning = os.pread(descriptor, len(BEGINNING), 0)
        if not stat.S_ISREG(found.st_mode) or not BEGINNING.startswith(beginning):
            raise Refused("is none of an export", place=str(partial), hint="move it away, or name another file with -o")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("another export writes to it", place=str(partial), hint="wait for its end") from None
        # Whoever had it before may have ended just now, and given it its name.
        if not partial.exists() or not os.path.samestat(partial.stat(), found):
            raise Unavailable("another export has just ended", place=str(partial), hint="run the same command again")
        yield descriptor
    finally:
        os.close(descriptor)


def _resumed(plan: Plan, descriptor: int, partial: Path, number: int, progress: Progress) -> tuple[int, int]:
    """How many members of the volume stand in `partial` as they must be, and their bytes."""
    size = os.fstat(descriptor).st_size
    try:
        if read_contents(descriptor, partial) != (plan.contents, number):
            return 0, 0
    except PacballError:
        return 0, 0
    with closing(Volume(partial, os.dup(descriptor), plan.contents, number)) as volume:
        for count, place in enumerate(volume.places):
            if not _is_right(plan, volume, place, size, progress):
                return count, place.at
            progress.advance(place.begin - place.at)
    return count + 1, place.end


def _is_right(plan: Plan, volume: Volume, place: Place, size: int, progress: Progress) -> bool:
    if place.end > size or not volume.has_around(place):
        return False
    try:
        if place.path != NAME:  # which was compared as a whole
            plan.expected.check(volume, Piece(place.path, place.length), progress)
    except PacballError:
        return False
    return True


def _write_member(plan: Plan, source: Source, descriptor: int, place: Place, number: int, progress: Progress) -> None:
    write_at(descriptor, place.header, place.at)
    at = place.begin
    for data in _content(plan, source, place, number):
        write_at(descriptor, data, at)
        at += len(data)
        progress.advance(len(data))
    write_at(descriptor, place.padding, at)
    progress.advance(place.end - place.at - place.length)


def _content(plan: Plan, source: Source, place: Place, number: int) -> Iterable[Bytes]:
    if place.path == NAME:
        return [plan.contents.encode(number)]
    piece = Piece(place.path, place.length)
    return [plan.expected.fetch(source, piece)] if piece.pack is None else pieces_of(source, piece.pack, piece.length)

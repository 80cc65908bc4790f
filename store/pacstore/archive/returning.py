"""Giving back the file that a release was taken in from, bit for bit, from the chunks of its files and of what was between them.

It grows like a pacball that is fetched (`pacstore.pacball.filling`), with its residue behind it until all has its place. A
compressed one is plain until it is whole, and is then compressed again as it was. At last its SHA-256 is compared.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pacstore.archive.headers import Plain
from pacstore.archive.recompressing import remake, version_of
from pacstore.document import Column32, Numbers, starts
from pacstore.durable import sync_directory, write_all
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.install.documents import Documents, Refresh, fetch_all
from pacstore.install.options import DEFAULTS, InstallOptions
from pacstore.install.tree.disk import disk_at
from pacstore.install.trust import check_withdrawn, checking_withdrawn
from pacstore.install.wanted import Flags, Wanted
from pacstore.limits import MIB
from pacstore.manifest import Manifest
from pacstore.original import NO_FILE, Original
from pacstore.pacball.fetching import Replaced, fill
from pacstore.pacball.filling import PARTIAL, Filling
from pacstore.progress import Progress
from pacstore.source import Source
from pacstore.trust.targets import CatalogRelease

STREAM = ".stream"
"""What the name of a file ends in that is being compressed."""

_PIECE_BYTES = 1 * MIB
_AGAIN = "run the same command again: what is right is kept; if it happens again, check the disk"


@dataclass(frozen=True)
class Returned:
    """An original that was fetched, and its SHA-256. Bytes: of all of it; of what was downloaded; of what an earlier attempt had
    left, and a seed had. `recompression`: how its stream was made again. `existed`: it was there already, and is what it must be.
    """

    path: Path
    sha256: str
    total_bytes: int
    bytes_downloaded: int = 0
    bytes_resumed: int = 0
    bytes_seeded: int = 0
    recompression: str = ""
    existed: bool = False


def fetch_original(
    release: CatalogRelease,
    *,
    source: Source,
    output: Path,
    progress: Progress,
    refresh: Refresh | None = None,
    seeds: tuple[Path, ...] = (),
    allow_withdrawn: bool = False,
    options: InstallOptions = DEFAULTS,
) -> Returned:
    """Write the file that `release` was taken in from to the file `output` or, if that is a directory, under its name in it.

    When this returns it is whole and durable. Raises NotFound for a release without one, Unavailable also where the tool is
    missing, or is of another version, that compressed it, and where another fetch makes this file, and what
    `pacstore.pacball.fetching.fetch` raises.
    """
    check_withdrawn(release, allowed=allow_withdrawn, warn=progress.warn)
    refresh = refresh if allow_withdrawn else checking_withdrawn(refresh)
    progress.begin("preparing", None)
    before = source.traffic.bytes_downloaded
    documents, placement, release = fetch_all(source, release, refresh)
    original = documents.manifest.original
    if original is None:
        hint = "leave out --original: its pacball can always be made"
        raise NotFound(
            "was published from a directory, and has no original file", place=str(release.release), hint=hint
        )
    path = output / original.name if output.is_dir() else output
    if not path.parent.is_dir():
        raise Refused("is not a directory", place=str(path.parent), hint="make it, or name another with -o")
    done = Returned(path, original.sha256.hex(), original.length, recompression=str(original.recompression or ""))
    with disk_at(str(path)):
        if os.path.lexists(path):
            _check_same(path, original, progress)
            return replace(done, existed=True)
        layout = _Layout(documents.manifest, original)
        with _alone(path), closing(layout.filling(documents, path, progress)) as filling:
            filling.room_bytes += original.length if original.recompression else 0
            replaced = Replaced(release, source, refresh, documents)
            resumed, seeded = fill(filling, placement, source, seeds, replaced, progress=progress, options=options)
            _finish(filling, layout, original, path, progress)
    downloaded = source.traffic.bytes_downloaded - before
    return replace(done, bytes_downloaded=downloaded, bytes_resumed=resumed, bytes_seeded=seeded)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Raise Unavailable if somebody else makes the same file: unlike a pacball it is cut, and made again, when all is there."""
    partial = path.with_name(path.name + PARTIAL)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(partial, flags, 0o755)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("another fetch writes to it", place=str(partial), hint="wait for its end") from None
        # Whoever had it before may have ended just now, and given it its name.
        if not partial.exists() or not os.path.samestat(partial.stat(), os.fstat(descriptor)):
            raise Unavailable("another fetch has just ended", place=str(partial), hint="run the same command again")
        yield
    finally:
        os.close(descriptor)


class _Layout:
    """Where everything stands in the growing file: the plain bytes from `begin` on, and the residue from `residue` on.

    An original that is not compressed again has its final form from the beginning; the residue is cut off at the end.
    """

    def __init__(self, manifest: Manifest, original: Original) -> None:
        self._manifest = manifest
        sizes = np.append(manifest.tree.sizes, np.uint64(0)).astype(np.int64)
        self.literals: Column32 = original.literal_lengths
        files = np.minimum(original.literal_files, len(manifest.tree.sizes))
        self.begin = 0 if original.recompression else original.before
        row_begins = self.begin + starts(self.literals + sizes[files])
        self.row_begins = row_begins[:-1]
        self.final_bytes = original.plain_bytes if original.recompression else original.length
        # With no rows all of the file is residue, and stands where it belongs.
        self.is_opaque = not len(self.literals)
        self.residue = 0 if self.is_opaque else self.final_bytes
        self.total_bytes = self.residue + original.residue_bytes
        self.contents: Numbers = np.full(manifest.tree.files + 1, -1, dtype=np.int64)
        used = original.literal_files != NO_FILE
        self.contents[files[used]] = (self.row_begins + self.literals)[used]
        self.contents[-1] = self.residue

    def filling(self, documents: Documents, path: Path, progress: Progress) -> Filling:
        """The file that grows; for it the residue is one more file of the release."""
        manifest = self._manifest
        counts = np.append(manifest.chunk_counts, np.uint32(manifest.chunks - manifest.tree_chunks))
        extended = replace(manifest, chunk_counts=counts, first_chunks=starts(counts))
        only: Flags = self.contents >= 0
        wanted = Wanted(extended, documents.attributes, only)
        return Filling(wanted, self.contents, self.total_bytes, path, progress)


def _check_same(path: Path, original: Original, progress: Progress) -> None:
    """Raise Refused unless `path` is the original."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != original.length:
        raise Refused("is there already, and is not this file", place=str(path), hint="name another file with -o")
    progress.begin("verifying", original.length)
    with open(path, "rb") as file:
        if _sha256(file.fileno(), original.length, progress) != original.sha256:
            hint = "remove it, or name another file with -o"
            raise Refused("is there already, and has other bytes than this file", place=str(path), hint=hint)


def _finish(filling: Filling, layout: _Layout, original: Original, path: Path, progress: Progress) -> None:
    descriptor = filling.descriptor
    before = _read(descriptor, layout.residue, original.before)
    after = _read(descriptor, layout.residue + original.before, original.after)
    if not layout.is_opaque:
        at = layout.residue + original.before + original.after
        if original.recompression is None:
            _copy(filling, before, 0)
            _copy(filling, after, original.length - original.after)
        for begin, length in zip(layout.row_begins.tolist(), layout.literals.tolist(), strict=True):
            _copy(filling, _read(descriptor, at, length), begin)
            at += length
    if original.recompression is not None:
        _compress(filling, [*before], [*after], original, path, progress)
        return
    os.ftruncate(descriptor, layout.final_bytes)
    progress.begin("verifying", original.length)
    if _sha256(descriptor, original.length, progress) != original.sha256:
        raise Corrupt("has not become the file that was published", place=str(filling.partial), hint=_AGAIN)
    os.fchmod(descriptor, _mode(descriptor))
    filling.publish()


def _compress(
    filling: Filling, before: list[bytes], after: list[bytes], original: Original, path: Path, progress: Progress
) -> None:
    """Make the stream again in a file of its own, and let that be the original."""
    assert original.recompression is not None
    os.ftruncate(filling.descriptor, original.plain_bytes)
    plain = Plain(filling.descriptor, 0, original.plain_bytes, original.name)
    progress.begin("compressing", original.length)
    stream = path.with_name(path.name + STREAM)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(stream, flags, 0o755)
    try:
        digest, length = hashlib.sha256(), 0
        with closing(remake(original.recompression, plain)) as made:
            for pieces in (before, made, after):
                for piece in pieces:
                    digest.update(piece)
                    length += len(piece)
                    if length > original.length:
                        break
                    write_all(descriptor, piece)
                    progress.advance(len(piece))
        _check_made(digest.digest(), original)
        os.fchmod(descriptor, _mode(descriptor))
        os.fsync(descriptor)
        os.replace(stream, path)
        os.unlink(filling.partial)
        sync_directory(path.parent)
    except BaseException:
        if os.path.lexists(stream):
            os.unlink(stream)
        raise
    finally:
        os.close(descriptor)


def _check_made(sha256: bytes, original: Original) -> None:
    """Raise Unavailable if what was made has another SHA-256 than the original."""
    if sha256 == original.sha256:
        return
    assert original.recompression is not None
    tool = original.recompression.tool
    here = version_of(tool)
    raise Unavailable(
        f"{tool} {here} makes another stream of the same tar than {original.recompression} did",
        place=original.name,
        hint=f"use a machine with version {original.recompression.version} of it; the files themselves are not affected",
    )


def _mode(descriptor: int) -> int:
    """A script may be executed by whom its maker's umask lets; nothing else may."""
    mode = os.fstat(descriptor).st_mode & 0o777
    return mode if os.pread(descriptor, 2, 0) == b"#!" else mode & ~0o111


def _copy(filling: Filling, pieces: Iterator[bytes], offset: int) -> None:
    for piece in pieces:
        filling.write(offset, piece)
        offset += len(piece)


def _read(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    for at in range(offset, offset + length, _PIECE_BYTES):
        yield os.pread(descriptor, min(_PIECE_BYTES, offset + length - at), at)


def _sha256(descriptor: int, length: int, progress: Progress) -> bytes:
    digest = hashlib.sha256()
    for piece in _read(descriptor, 0, length):
        digest.update(piece)
        progress.advance(len(piece))
    return digest.digest()

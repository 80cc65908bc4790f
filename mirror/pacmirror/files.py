"""The public files of a store, as they are served: which paths exist, what may be said of them, how they are opened.

A path is either exactly one of FORMAT.md section 2 or does not exist. Absent and unreadable are two answers: NotFound is
raised only if the docroot is there, is a store, and has no such file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from pacstore.errors import NotFound, Refused, TooLarge, Unavailable, printable
from pacstore.limits import LIMITS, MIB
from pacstore.marker import check_marker
from pacstore.release import Release
from pacstore.storage import STORE_MARKER, is_target_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.config import Config

IMMUTABLE = "public, max-age=31536000, immutable, no-transform"
CHANGING = "max-age=61, no-transform"
BINARY = "application/octet-stream"
JSON = "application/json"
STORE_FORMAT = 1

_OBJECT = re.compile(r"(?:packs|manifests|attributes|provenance|bundles)/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")
_PLACEMENT = re.compile(r"placements/([A-Za-z0-9._-]+)\.[1-9][0-9]{0,9}\Z")
_HOLDINGS = re.compile(r"holdings/([A-Za-z0-9._-]+)\Z")
_CATALOG = re.compile(r"catalog/([A-Za-z0-9](?:\.?[A-Za-z0-9_-]){0,194})\.json\Z")
_VERSIONED = re.compile(r"[1-9][0-9]*\.")
_PIECE_BYTES = 4 * MIB
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that somebody left there must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A path below the docroot and what its name alone tells; `etag_id` is empty where the bytes must be hashed."""

    path: str
    etag_id: str
    cache_control: str
    content_type: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file to serve, of `size` bytes; `etag` has its quotes. Whoever opened it closes `file`."""

    file: BinaryIO
    size: int
    etag: str
    public: PublicFile


def parse_public(path: str) -> PublicFile:
    """The public file that `path` (undecoded, relative to the base URL) names. Raises NotFound for any other path."""
    if path == STORE_MARKER:
        return PublicFile(path, "", CHANGING, JSON)
    if match := _OBJECT.match(path):
        return PublicFile(path, match[2], IMMUTABLE, BINARY)
    if match := _CATALOG.match(path):
        return PublicFile(path, "", IMMUTABLE if _VERSIONED.match(match[1]) else CHANGING, JSON)
    if is_target_path(path):
        return PublicFile(path, "", IMMUTABLE, BINARY)
    if (match := _PLACEMENT.match(path)) and _is_release(match[1]):
        return PublicFile(path, "", IMMUTABLE, BINARY)
    if (match := _HOLDINGS.match(path)) and _is_release(match[1]):
        return PublicFile(path, "", CHANGING, JSON)
    raise NotFound("is no path of a pacball store", place=printable(path[:200]))


def _is_release(text: str) -> bool:
    try:
        Release.parse(text)
    except Refused:
        return False
    return True


class PublicFiles:
    """Opens the public files of one store. Blocking: to be called from a thread. Threads may share it."""

    def __init__(self, config: Config) -> None:
        self._root = os.fspath(config.public)
        self._limits = config.limits
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._lock = Lock()

    def open(self, public: PublicFile) -> OpenFile:
        """The file, open for reading. Raises NotFound only if it is definitely absent, otherwise Unavailable."""
        with _answered(public.path):
            file = self._open(public)
            try:
                return self._describe(file, public)
            except BaseException:
                file.close()
                raise

    def look(self, path: str) -> tuple[int, ...]:
        """Numbers that differ as soon as the file was replaced or written to. Raises as `open`."""
        with _answered(path), self._docroot() as root:
            try:
                status = os.stat(path, dir_fd=root, follow_symlinks=False)
            except FileNotFoundError:
                _require_store(root)
                raise
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)

    def read(self, path: str, *, limit: int) -> bytes:
        """The bytes of a public file. Raises TooLarge for more than `limit`, otherwise as `open`."""
        public = parse_public(path)
        with _answered(path), self._open(public) as file:
            _require_regular(file, public)
            data = bytearray()
            while piece := file.read(min(limit + 1, _PIECE_BYTES)):
                data += piece
                if len(data) > limit:
                    raise TooLarge(f"has more than {limit} bytes", place=path)
        return bytes(data)

    def check(self) -> None:
        """Return if the store can be read and has a known format. Raises Unavailable, Corrupt or NewerFormat."""
        with self.open(parse_public(STORE_MARKER)).file as file, _answered(STORE_MARKER):
            check_marker(file.read(LIMITS.store_marker_bytes + 1), STORE_MARKER)

    def _open(self, public: PublicFile) -> BinaryIO:
        with self._docroot() as root:
            try:
                return _open_beneath(root, public.path)
            except FileNotFoundError:
                _require_store(root)
                raise

    @contextlib.contextmanager
    def _docroot(self) -> Iterator[int]:
        # Opened anew each time, so that a store which is mounted later, or again, is found.
        try:
            root = os.open(self._root, _DIRECTORY)
        except FileNotFoundError as error:
            raise Unavailable("the store's public directory is not there", hint="is it mounted?") from error
        try:
            yield root
        finally:
            os.close(root)

    def _describe(self, file: BinaryIO, public: PublicFile) -> OpenFile:
        status = _require_regular(file, public)
        etag_id = public.etag_id or self._digest(file, status)
        return OpenFile(file, status.st_size, f'"b3-{etag_id}"', public)

    def _digest(self, file: BinaryIO, status: os.stat_result) -> str:
        if status.st_size <= self._limits.hashed_each_time_bytes:
            return _hash(file)
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._digests.get(key)
        return known or self._remember(key, _hash(file))

    def _remember(self, key: tuple[int, ...], digest: str) -> str:
        with self._lock:
            self._digests[key] = digest
            while len(self._digests) > self._limits.cached_digests:
                self._digests.popitem(last=False)
        return digest


def _require_regular(file: BinaryIO, public: PublicFile) -> os.stat_result:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise Unavailable("is not a regular file", place=public.path, hint="the server's store needs repair")
    return status


@contextlib.contextmanager
def _answered(path: str) -> Iterator[None]:
    """Turn what the system says about `path` into NotFound or Unavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("is not here", place=path, hint="ask another source") from error
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise Unavailable(f"could not be read: {reason}", place=path, hint="try again, or another source") from error


def _open_beneath(root: int, path: str) -> BinaryIO:
    """Open `path` below the directory descriptor `root`, through no symbolic link at all."""
    *directories, name = path.split("/")
    at = root
    try:
        for directory in directories:
            below = os.open(directory, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != root:
                os.close(at)
            at = below
        return os.fdopen(os.open(name, _FILE, dir_fd=at), "rb", buffering=0)
    finally:
        if at != root:
            os.close(at)


def _require_store(root: int) -> None:
    """An empty directory, where a file system is not mounted, must not say that nothing exists."""
    try:
        os.stat(STORE_MARKER, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError as error:
        raise Unavailable(f"the docroot has no {STORE_MARKER}", hint="is the store mounted?") from error


def _hash(file: BinaryIO) -> str:
    hasher = blake3()
    while piece := file.read(_PIECE_BYTES):
        hasher.update(piece)
    file.seek(0)  # whoever sends it without sendfile reads from where it stands
    return hasher.hexdigest()

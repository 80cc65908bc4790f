"""Reading what a disk holds, past the page cache and without changing what is in it.

Where the file system allows it, files are read with O_DIRECT: the bytes come from the disk, also those that the kernel still
remembers from before they rotted, and what is cached for others stays cached. Where it does not (tmpfs, some network and
FUSE file systems), what is in the page cache is taken from there, since nothing short of evicting it from under those who are
served could make the disk be read; what was not in it is evicted again after reading. A disk's own cache is beyond reach.
"""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import os
from typing import TYPE_CHECKING, BinaryIO

from pacstore.limits import KIB, MIB

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 4 * KIB
_DAMAGE = frozenset((errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO))


def is_media_error(error: OSError) -> bool:
    """Whether the disk or file system says that it lost these bytes, unlike errors that say nothing about them.

    EBADMSG and EUCLEAN are failed checksums of ext4 and xfs; ENODATA, EILSEQ and EREMOTEIO are what block devices report of a
    medium, of its protection data, and of a target.
    """
    return error.errno in _DAMAGE


class DiskBuffer:
    """Memory for one reader at a time, aligned as O_DIRECT needs it; `size` in bytes is the longest view."""

    def __init__(self, size: int = 4 * MIB) -> None:
        self.size = size
        self._memory = mmap.mmap(-1, size + 2 * _BLOCK)
        self.view = memoryview(self._memory)

    def close(self) -> None:
        """Release the memory."""
        self.view.release()
        self._memory.close()


class DiskFile(io.RawIOBase):
    """The open file `file`, which it closes, read from the disk. For one thread; its buffer may serve one file after another."""

    def __init__(self, file: BinaryIO, buffer: DiskBuffer) -> None:
        super().__init__()
        self._file = file
        self._buffer = buffer
        self._descriptor = file.fileno()
        self._at = 0
        self.direct = self._set_direct(on=True)
        if not self.direct:
            self._read_no_further()

    @property
    def length(self) -> int:
        """The file's length in bytes. Raises OSError."""
        return os.fstat(self._descriptor).st_size

    def bytes_at(self, offset: int, length: int) -> memoryview:
        """The bytes there, at most `DiskBuffer.size`, fewer only where the file ends; valid until the next read.

        Raises OSError; `is_media_error` tells whether these bytes are lost.
        """
        begin = offset - offset % _BLOCK
        end = -(-(offset + min(length, self._buffer.size)) // _BLOCK) * _BLOCK
        got = self._fill(begin, self._buffer.view[: end - begin])
        return self._buffer.view[offset - begin : max(min(got, offset - begin + length), offset - begin)]

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As files do. Raises OSError."""
        view = memoryview(buffer).cast("B")
        data = self.bytes_at(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file. May be repeated."""
        self._file.close()
        super().close()

    def _fill(self, begin: int, view: memoryview) -> int:
        """Read from `begin` on until `view` is full or the file ends; how many bytes that are."""
        got = 0
        while got < len(view):
            count = self._read(begin + got, view[got:])
            got += count
            if not count or (self.direct and count % _BLOCK):
                break
        return got

    def _read(self, offset: int, view: memoryview) -> int:
        if self.direct:
            try:
                return os.preadv(self._descriptor, [view], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system took the flag and cannot do it after all.
                self.direct = self._set_direct(on=False)
                self._read_no_further()
        return self._read_cached(offset, view)

    def _read_cached(self, offset: int, view: memoryview) -> int:
        try:
            count = os.preadv(self._descriptor, [view], offset, os.RWF_NOWAIT)
            if count:
                return count
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
        count = os.preadv(self._descriptor, [view], offset)
        os.posix_fadvise(self._descriptor, offset, -(-count // _BLOCK) * _BLOCK, os.POSIX_FADV_DONTNEED)
        return count

    def _set_direct(self, *, on: bool) -> bool:
        """Whether reads bypass the page cache from now on."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
        except OSError:
            return False
        return on

    def _read_no_further(self) -> None:
        """Have nothing read ahead: it would be found cached, and then stay."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

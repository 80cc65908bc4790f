"""Running python-tuf's Updater on a directory that clients may share: a lock, its cache, and what killed clients left.

The cache saves requests and nothing else: what cannot be used is dropped, and where the lock cannot be had an Updater gets
a directory of its own. Expiry is not looked at here (judge.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.ngclient import Updater, UpdaterConfig

from pacstore.durable import unavailable
from pacstore.trust import internals
from pacstore.trust.fetcher import BASE_URL, SourceFetcher, pacball_errors
from pacstore.trust.metadata import METADATA_LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFTOVER_SECONDS = 3600.0
"""No client keeps a temporary file for that long."""
_LOCK_POLL_SECONDS = 0.05
_TEMPORARY = re.compile(r"tmp[a-z0-9_]{8}\Z|[0-9a-f]{32}\.tmp\Z")
"""What `tempfile`, for python-tuf, and `pacstore.durable` call their files."""


def updated(fetcher: SourceFetcher, root: bytes, directory: Path | None) -> tuple[Updater, Path]:
    """An Updater that has verified the newest state of the source, expired or not, and the directory of its files.

    `directory` is the cache; None for one of its own. Raises as `open_catalog` does.
    """
    if directory is not None:
        try:
            return _refreshed(fetcher, root, directory), directory
        except OSError:
            # python-tuf's files are a cache: what cannot be used is dropped. The floor is kept elsewhere.
            shutil.rmtree(directory, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix="pacball-catalog-"))
    try:
        updater = _refreshed(fetcher, root, temporary)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise unavailable(error, temporary) from error
        raise
    # Lines are cached in it for as long as the updater lives.
    weakref.finalize(updater, shutil.rmtree, temporary, ignore_errors=True)
    return updater, temporary


def _refreshed(fetcher: SourceFetcher, root: bytes, directory: Path) -> Updater:
    config = UpdaterConfig(
        max_root_rotations=METADATA_LIMITS.root_rotations + 1,  # the fetcher refuses the last one
        root_max_length=METADATA_LIMITS.root_bytes,
        timestamp_max_length=METADATA_LIMITS.timestamp_bytes,
        snapshot_max_length=METADATA_LIMITS.snapshot_bytes,
        targets_max_length=METADATA_LIMITS.targets_bytes,
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with pacball_errors(fetcher):
        updater = Updater(str(directory), BASE_URL, fetcher=fetcher, config=config, bootstrap=root)
        internals.ignore_expiry(updater)
        updater.refresh()
    return updater


@contextmanager
def locking(path: Path, seconds: float, *, sweeping: Iterable[Path] = ()) -> Iterator[bool]:
    """Hold the lock on `path`: True; False if that fails for `seconds` or locks do not work there. It only saves work.

    On the way, temporary files which killed clients left in the directories `sweeping` are removed.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable(error, path) from error
    try:
        locked = _try_lock(descriptor, seconds)
        with suppress(OSError):
            # The time of the file system, which may be that of another machine.
            os.utime(descriptor)
            oldest = os.fstat(descriptor).st_mtime - LEFTOVER_SECONDS
            for directory in sweeping:
                _sweep(directory, oldest)
        yield locked
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, seconds: float) -> bool:
    for attempt in range(int(seconds / _LOCK_POLL_SECONDS) + 1):
        if attempt:
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return False
        return True
    return False


def _sweep(directory: Path, oldest: float) -> None:
    with suppress(OSError), os.scandir(directory) as found:
        for entry in found:
            if _TEMPORARY.match(entry.name):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)

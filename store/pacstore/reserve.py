"""Reserve: a file that only takes room beside the databases, so that they can be opened at all when the disk is full.

Whoever opens them to make room gives it up then, and makes it again when there is room.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from pacstore.limits import MIB

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_NAME = "reserve"
RESERVE_BYTES = 4 * MIB
"""What the write-ahead log of a database grows to, about."""


def keep(directory: Path) -> bool:
    """Make the reserve in `directory`, if it is not there; whether it is. Where there is no room for it, there is none."""
    path = directory / RESERVE_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        with suppress(OSError):
            path.unlink()
        return False
    return True


def give_up(directory: Path) -> bool:
    """Delete the reserve if the disk of `directory` is full; whether that gave room."""
    with suppress(OSError):
        if shutil.disk_usage(directory).free < RESERVE_BYTES:
            (directory / RESERVE_NAME).unlink()
            return True
    return False

"""Writing back: has the disk begin with what was written while more is being made, so that the sync at the end is short.

Left alone, the kernel keeps gigabytes in memory until it is asked to sync, and the disk idles meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pacstore.install.disk import sync_file_system
from pacstore.limits import MIB

_STEP_BYTES = 64 * MIB
_LOOK_SECONDS = 0.1


@contextmanager
def writing_back(directory: int, written: Callable[[], int]) -> Iterator[None]:
    """Sync the file system of the open `directory` from a thread whenever `written()` has grown by some megabytes.

    An error is left for the sync at the end, which alone decides what is durable.
    """
    stop = threading.Event()

    def run() -> None:
        synced = 0
        while not stop.wait(_LOOK_SECONDS):
            now = written()
            if now - synced >= _STEP_BYTES:
                with suppress(OSError):
                    sync_file_system(directory)
                synced = now

    thread = threading.Thread(target=run, name="writing-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

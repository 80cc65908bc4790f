"""Writing back: has the disk begin with what was written while more is being made, so that the sync at the end is short.

Left alone, the kernel keeps gigabytes in memory until it is asked to sync, and the disk idles meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pacstore.limits import MIB

_STEP_BYTES = 64 * MIB
_LOOK_SECONDS = 0.1


@contextmanager
def writing_back(sync: Callable[[], None], written: Callable[[], int]) -> Iterator[None]:
    """Call `sync` from a thread whenever `written()` has grown by some megabytes.

    The kernel tells of what it could not write only once, so the first OSError of `sync` is raised at the end.
    """
    stop = threading.Event()
    errors: list[OSError] = []

    def run() -> None:
        synced = 0
        while not stop.wait(_LOOK_SECONDS):
            now = written()
            if now - synced >= _STEP_BYTES:
                try:
                    sync()
                except OSError as error:
                    errors.append(error)
                    return
                synced = now

    thread = threading.Thread(target=run, name="writing-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]

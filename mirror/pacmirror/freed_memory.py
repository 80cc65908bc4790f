"""Freed memory: glibc keeps what threads have freed for the next thread, a MiB and more for each; here it is given back."""

from __future__ import annotations

import ctypes
import time
from threading import Lock

_LEAST_SECONDS = 1.0


class FreedMemory:
    """Any thread may use it. Where the C library cannot do it, nothing happens."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_any = False
        self._not_before = 0.0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def note(self) -> None:
        """Something large was freed."""
        self._is_any = True

    def give_back(self) -> None:
        """Give back what was freed, unless that was done just now; takes milliseconds."""
        with self._lock:
            now = time.monotonic()
            if self._trim is None or not self._is_any or now < self._not_before:
                return
            self._is_any = False
            self._not_before = now + _LEAST_SECONDS
        self._trim(0)

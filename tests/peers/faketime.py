"""Clocks that jump, by libfaketime."""

from __future__ import annotations

import os
from pathlib import Path

from tests.peers.programs import program

_LIBRARIES = (f"/usr/lib/{os.uname().machine}-linux-gnu/faketime", "/usr/lib/faketime")


class Clock:
    """A clock that jumps for whom it runs (`before` the command); what is measured between two moments is right all the same.

    A jump is seen within `cached_seconds`. With 0, at once, each look at the clock takes long.
    """

    def __init__(self, path: Path, *, cached_seconds: int = 0) -> None:
        self.path = path
        self.set("+0")
        preload = program("faketime")
        library = next(p for p in (f"{d}/libfaketimeMT.so.1" for d in _LIBRARIES) if os.path.exists(p))
        assert preload
        cache = f"FAKETIME_CACHE_DURATION={cached_seconds}" if cached_seconds else "FAKETIME_NO_CACHE=1"
        self.before = ("env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={path}", cache,
                       "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1")  # fmt: skip

    def set(self, jump: str) -> None:
        """From now on it is wrong by this, such as `-1y`."""
        partial = self.path.with_name("partial")
        partial.write_text(f"{jump}\n")
        partial.rename(self.path)

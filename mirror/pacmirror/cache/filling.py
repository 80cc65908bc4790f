"""Filling: one pack that is being filled: which of its frames are here, wanted, or asked for, and who waits for them.

It lives in the daemon's event loop. A frame is *here* when it is verified, and on disk, or in memory where the disk is full.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacstore.pack import FRAMES_BEGIN, HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacmirror.cache.passing import Passing
    from pacmirror.limits import CacheLimits
    from pacstore.digest import Digest
    from pacstore.errors import PacballError
    from pacstore.frame_list import FrameList
    from pacstore.partial_pack import PartialPack

_IDLE, _BULK, _URGENT, _ASKED, _LOOK_BULK, _LOOK_URGENT = range(6)
_AFTER_LOOK = {_LOOK_BULK: _BULK, _LOOK_URGENT: _URGENT}
_LOOKED_AT_ONCE = 8


class Filling:
    """A pack being filled; `partial` is None, and `ending` what follows its frames, where there is no room for it on disk."""

    def __init__(
        self,
        pack: Digest,
        frames: FrameList,
        partial: PartialPack | None,
        *,
        ending: bytes = b"",
        passing: Passing,
        limits: CacheLimits,
    ) -> None:
        self.pack = pack
        self.frames = frames
        self.partial = partial
        self.ending = ending
        self.users = 0
        """How many must not lose it."""
        self.under_way = 0
        """Jobs and looks that go on for it."""
        self.is_needed = False
        """Not only clients want it: it is kept also where there is no room for what they want."""
        self.window = 1
        """Jobs that may: few at first, so that the first frame does not share the line with the rest."""
        self.whole: asyncio.Task[None] | None = None
        """Makes the pack public, once every frame is on disk."""
        self.is_saved = False
        """What is in memory of it is being written to the disk."""
        self.is_over = False
        """It is public, or was given up: nothing is to be asked of it any more."""
        self._passing = passing
        self._limits = limits
        self._states = bytearray(len(frames))
        self._times_wrong: Counter[int] = Counter()
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._ends: dict[int, int] = {}

    # What is here

    def is_on_disk(self, number: int) -> bool:
        """Whether frame `number` is verified and on disk."""
        return self.partial is not None and self.partial.has(number)

    def is_here(self, number: int) -> bool:
        """Whether frame `number` can be sent."""
        return self.is_on_disk(number) or self._passing.get(self.pack, number) is not None

    def in_memory(self, number: int) -> memoryview | None:
        """Frame `number`, if it is in memory."""
        return self._passing.get(self.pack, number)

    def on_disk_until(self, offset: int, end: int) -> int:
        """Up to where, at most `end`, the bytes of the pack from `offset` on are verified and on disk."""
        if self.partial is None:
            return offset
        for number in self.frames.covering(offset, end - offset):
            if not self.is_on_disk(number):
                return max(min(self.frames.begin(number), end), offset)
        return end

    def bytes_in_memory(self, offset: int, end: int) -> memoryview:
        """Some bytes of the pack from `offset` on, at most up to `end`, which are in memory; none if the next one is not."""
        if offset < FRAMES_BEGIN:
            return memoryview(HEADER)[offset:end]
        table = self.frames.begin(len(self.frames))
        if offset >= table:
            return memoryview(self.ending)[offset - table : end - table]
        number = self.frames.covering(offset, 1)[0]
        begin = self.frames.begin(number)
        return (self._passing.get(self.pack, number) or memoryview(b""))[offset - begin : end - begin]

    @property
    def is_whole(self) -> bool:
        """Whether every frame is on disk."""
        return self.partial is not None and self.partial.is_whole

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it or wants anything of it."""
        return not (self.users or self.under_way or any(self._states))

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody can do nothing else than wait for one of its frames."""
        return bool(self._waiters)

    # What is wanted

    def want(self, numbers: Iterable[int], *, urgent: bool) -> bool:
        """Let these frames be fetched if they are not here; whether any of them was wanted by others already."""
        level, joined = _URGENT if urgent else _BULK, False
        for number in numbers:
            state = self._states[number]
            joined |= state != _IDLE
            if self.is_here(number) or state == _ASKED:
                continue
            look = self.partial is not None and self.partial.needs_look(number)
            self._states[number] = max(state, level + _ASKED if look else level)
        return joined

    def is_wanted(self, number: int) -> bool:
        """Whether something is done about frame `number`."""
        return self._states[number] != _IDLE

    def next_look(self) -> list[int]:
        """Some wanted frames that may be here from before, those that are urgent first."""
        for state in (_LOOK_URGENT, _LOOK_BULK):
            first = self._states.find(state)
            if first >= 0:
                last = min(first + _LOOKED_AT_ONCE, len(self._states))
                return [number for number in range(first, last) if self._states[number] == state]
        return []

    def looked(self, numbers: Iterable[int]) -> None:
        """Those were looked at; what is not here is wanted now."""
        for number in numbers:
            if self.is_on_disk(number):
                self._arrive(number)
            else:
                self._states[number] = _AFTER_LOOK.get(self._states[number], self._states[number])

    def next_run(self, *, urgent: bool, most_bytes: int, waited_for: bool) -> range | None:
        """The next frames to fetch, which lie one after another; they are asked for from now on. None if there are none now.

        `waited_for`: only what somebody waits for at the moment, and a little more.
        """
        if urgent and self.under_way >= self.window:
            return None
        level = _URGENT if urgent else _BULK
        first, end = self._first_waited_for(level) if waited_for else (self._states.find(level), len(self._states))
        if first < 0:
            return None
        # Who begins somewhere gets one frame, and ever more from there on.
        most = min(2 * self._ends.pop(first, 0), most_bytes) if urgent else most_bytes
        last = first + 1
        while last < end and self._states[last] == level and self._length(first, last + 1) <= most:
            last += 1
        run = range(first, last)
        for number in run:
            self._states[number] = _ASKED
        self._ends[last] = self._length(first, last)
        return run

    def wants(self, *, urgent: bool) -> bool:
        """Whether there is anything to be fetched, or looked at, and not asked for yet."""
        states = (_URGENT, _LOOK_URGENT) if urgent else (_BULK, _LOOK_BULK)
        return any(self._states.find(state) >= 0 for state in states)

    def _first_waited_for(self, level: int) -> tuple[int, int]:
        for waiter in sorted(self._waiters):
            end = min(waiter + self._limits.ahead_frames, len(self._states))
            for number in range(waiter, end):
                if self._states[number] == level:
                    return number, end
        return -1, 0

    def _length(self, first: int, last: int) -> int:
        return self.frames.begin(last) - self.frames.begin(first)

    # What comes of it

    @contextmanager
    def expecting(self, number: int) -> Iterator[asyncio.Future[None]]:
        """Ends when something became of frame `number`; raises why it cannot be had. Who leaves the context waits no more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(number, []).append(future)
        try:
            yield future
        finally:
            left = self._waiters.get(number, [])
            if future in left:
                left.remove(future)
                if not left:
                    del self._waiters[number]

    def arrived(self, numbers: Iterable[int]) -> None:
        """Those frames are here."""
        for number in numbers:
            self._arrive(number)

    def came_short(self, numbers: Iterable[int], *, urgent: bool) -> None:
        """Those did not come with the frames before them: they are wanted as before."""
        for number in numbers:
            self._states[number] = _URGENT if urgent else _BULK

    def came_wrong(self, numbers: Iterable[int], error: PacballError) -> None:
        """Those came, but wrong: they are asked for again, and too often given up."""
        for number in numbers:
            self._times_wrong[number] += 1
            if self._times_wrong[number] < self._limits.wrong_times:
                self._states[number] = _URGENT
            else:
                del self._times_wrong[number]
                self._states[number] = _IDLE
                self._wake(number, error)

    def fail(self, error: PacballError, run: Iterable[int] = (), *, bulk: bool = False) -> None:
        """The frames of `run` were asked for in vain; neither they nor what else is wanted of this pack will come now.

        `bulk`: only what is not urgent is meant.
        """
        for number in run:
            self._states[number] = _IDLE
        for number, state in enumerate(self._states):
            if state in (_BULK, _LOOK_BULK) or (state != _ASKED and not bulk):
                self._states[number] = _IDLE
        for number in list(self._waiters):
            if self._states[number] == _IDLE:
                self._wake(number, error)

    def _arrive(self, number: int) -> None:
        self._states[number] = _IDLE
        self._times_wrong.pop(number, None)
        self._wake(number, None)

    def _wake(self, number: int, error: PacballError | None) -> None:
        for future in self._waiters.pop(number, ()):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

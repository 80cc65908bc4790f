"""MirrorList: several stores with the same content, at URLs and in directories, seen as one source.

Nothing fails, and nothing waits for long, as long as one of them is good. That something is absent is said only when all of
them say so. Whoever verifies what comes says with `blame` what was wrong; then another one is asked.
"""

from __future__ import annotations

import queue
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Self, TypeVar

from pacmirror.dispatch import Dispatch
from pacmirror.limits import MirrorLimits
from pacmirror.member import Member
from pacmirror.part import Arrival, PartSource, Transfer
from pacmirror.reading import Reading
from pacmirror.threads import run_in_thread
from pacstore.errors import NotFound, PacballError, Refused
from pacstore.source import PackRange, Traffic
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from pacmirror.part import Part
    from pacmirror.throttle import Throttle
    from pacstore.digest import Bytes, Digest
    from pacstore.source import Source, SourceState, Tail

_REMEMBERED_GIVERS = 4_096
_EXAMINED_SECONDS = 3.0
T = TypeVar("T")


class MirrorList:
    """Sources as one, as the protocol `pacstore.source.Source` demands. It owns its parts. Any number of threads may use it."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        examine: Callable[[Source], None] | None = None,
        limits: MirrorLimits | None = None,
        throttle: Throttle | None = None,
        files_only: Collection[str] = (),
        packs_only: Collection[str] = (),
    ) -> None:
        """Nothing is asked yet. Raises Refused if there is none, or one twice.

        `examine` raises for a source that must not be used; it is called with each before anything else is asked of it.
        Those named in `files_only` are asked for no packs; those in `packs_only` for nothing else, and never examined: packs
        are what their ids say.
        """
        names = [part.name for part in parts]
        if not parts or len(set(names)) < len(names):
            message = "the same source is named twice" if parts else "no source is named"
            raise Refused(message, place=", ".join(names), hint="name each source once")
        self._parts: list[Part] = [
            part if examine is None or part.name in packs_only else _Examined(part, examine) for part in parts
        ]
        self._members = [Member(part, limits or MirrorLimits(), throttle) for part in self._parts]
        self._readers = [member for member in self._members if member.name not in packs_only]
        self._carriers = [member for member in self._members if member.name not in files_only]
        self._givers: OrderedDict[PackRange | str, Member] = OrderedDict()
        self._throttle = throttle
        self._lock = Lock()
        self._dispatch = Dispatch(self._carriers, given=self._remember)

    @property
    def name(self) -> str:
        """The first source, and how many others."""
        others = len(self._members) - 1
        return f"{self._members[0].name} and {others} more" if others else self._members[0].name

    @property
    def traffic(self) -> Traffic:
        """That of all together."""
        all_ = [part.traffic for part in self._parts]
        return Traffic(
            sum(one.bytes_downloaded for one in all_),
            sum(one.requests for one in all_),
            sum(one.retries for one in all_),
        )

    def states(self) -> tuple[SourceState, ...]:
        """How each source does, in the order in which they were given."""
        return tuple(member.state() for member in self._members)

    def range_bytes(self) -> int:
        """About how long the next range should be that is taken from the caller of `ranges`."""
        return self._dispatch.range_bytes

    def bytes_per_second(self) -> float:
        """What all that may be asked now bring together, under our own limit; 0 while nothing was measured."""
        speeds = [member.effective_bytes_per_second for member in self._carriers if not member.pause_left()]
        limit = self._throttle.bytes_per_second if self._throttle is not None else None
        return sum(speeds) if limit is None else min(sum(speeds), limit)

    def examine(self, *, but: Collection[str] = ()) -> None:
        """Examine all sources at once, apart from those named in `but`, which are examined when something is asked of them;
        those that take long while another one has passed are examined when they answer.
        """
        started = self._members[0].clock()
        ended: queue.SimpleQueue[bool] = queue.SimpleQueue()
        left = 0
        for member in self._members:
            if isinstance(member.part, _Examined) and member.name not in but:
                left += 1
                member.part.examine().result.add_done_callback(partial(_judge, member, ended))
        passed = False
        while left and not (passed and self._members[0].clock() > started + _EXAMINED_SECONDS):
            with suppress(queue.Empty):
                passed = ended.get(timeout=_EXAMINED_SECONDS / 10) or passed
                left -= 1

    def singles(self) -> list[Single]:
        """Each source by itself, those first that may be asked now; for what must come from one source as a whole."""
        return [Single(member) for member in sorted(self._readers, key=lambda member: member.pause_left() > 0)]

    def carriers(self) -> list[Single]:
        """Each source of packs by itself, in the order of `singles`."""
        return [Single(member) for member in sorted(self._carriers, key=lambda member: member.pause_left() > 0)]

    def unexamined(self) -> list[Single]:
        """Each source by itself, in the order given, for finding out by what they are to be examined."""
        inner = (member.part.inner if isinstance(member.part, _Examined) else member.part for member in self._readers)
        return [Single(member, part) for member, part in zip(self._readers, inner, strict=True)]

    def read(self, path: str, *, limit: int) -> bytes:
        """The whole file at `path`, from the first source that has it. Raises what all of them together say."""
        return self._read(self._readers, path, lambda part: part.start_read(path, limit=limit))

    def tail(self, pack: Digest, *, length: int) -> Tail:
        """The last `length` bytes of a pack, and how long it is; to `blame`, name its path. Raises as `read`."""
        path = object_path(ObjectKind.PACK, pack)
        return self._read(self._carriers, path, lambda part: part.start_tail(pack, length=length))

    def _read(self, members: Sequence[Member], path: str, start: Callable[[Part], Transfer[T]]) -> T:
        value, member = Reading(members, path, start).result()
        self._remember(path, member)
        return value

    def ranges(
        self, wanted: Iterable[PackRange], *, broken: Callable[[PackRange, Bytes], None] | None = None
    ) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range in any order, from all sources at once, by their speed. Raises as `read`.

        `broken` is given what had come of a range when a source broke off, before another one is asked for all of it. What
        it raises ends the iteration.
        """
        return self._dispatch.ranges(wanted, broken=broken)

    def blame(self, given: PackRange | str, error: PacballError) -> str:
        """The name of the source that gave what was wrong: it is left alone for long, and for this asked last."""
        with self._lock:
            member = self._givers.get(given)
        if member is None:
            return self.name
        member.gave_wrong(given, error)
        return member.name

    def close(self) -> None:
        """End all that is under way. May be repeated."""
        for part in self._parts:
            part.close()

    def _remember(self, given: PackRange | str, member: Member) -> None:
        with self._lock:
            self._givers[given] = member
            self._givers.move_to_end(given)
            if len(self._givers) > _REMEMBERED_GIVERS:
                self._givers.popitem(last=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _judge(member: Member, ended: queue.SimpleQueue[bool], result: Future[None]) -> None:
    try:
        with member.judged():
            result.result()
    except PacballError:
        ended.put(False)
    else:
        ended.put(True)


class Single(PartSource):
    """One source of a list, by itself. How it does counts for the list."""

    def __init__(self, member: Member, part: Part | None = None) -> None:
        super().__init__(part or member.part)
        self._member = member

    def is_paused(self) -> bool:
        """Whether it did badly, and should not be asked while there are others."""
        return self._member.pause_left() > 0

    def blame(self, given: PackRange | str, error: PacballError) -> str:
        """As `MirrorList.blame`."""
        self._member.gave_wrong(given, error)
        return self.name

    def wait(self, transfer: Transfer[T]) -> T:
        with self._member.judged():
            return super().wait(transfer)


class _Examined:
    """A part of which nothing is asked before it was examined, which is done in a thread, and again if it failed to answer."""

    def __init__(self, part: Part, examine: Callable[[Source], None]) -> None:
        self.name = part.name
        self.inner = part
        self._source = PartSource(part)
        self._examine = examine
        self._lock = Lock()
        self._passed = False

    @property
    def traffic(self) -> Traffic:
        return self.inner.traffic

    def progress(self) -> tuple[int, float]:
        return self.inner.progress()

    def start_range(self, wanted: PackRange) -> Transfer[Bytes]:
        if self._passed:
            return self.inner.start_range(wanted)
        return self._after_examination(lambda: self._source.wait(self.inner.start_range(wanted)))

    def start_read(self, path: str, *, limit: int) -> Transfer[bytes]:
        if self._passed:
            return self.inner.start_read(path, limit=limit)
        return self._after_examination(lambda: self._source.wait(self.inner.start_read(path, limit=limit)))

    def start_tail(self, pack: Digest, *, length: int) -> Transfer[Tail]:
        if self._passed:
            return self.inner.start_tail(pack, length=length)
        return self._after_examination(lambda: self._source.wait(self.inner.start_tail(pack, length=length)))

    def close(self) -> None:
        self.inner.close()

    def examine(self) -> Transfer[None]:
        """Begin to examine it, unless it has passed; the result raises why it must not be used."""
        return self._after_examination(lambda: None)

    def _after_examination(self, then: Callable[[], T]) -> Transfer[T]:
        def work() -> T:
            with self._lock:
                if not self._passed:
                    try:
                        self._examine(self._source)
                    except NotFound as error:
                        # Nothing is said by it about what was to be asked.
                        raise Refused(error.message, place=error.place, hint=error.hint) from error
                    self._passed = True
            return then()

        return Transfer(run_in_thread(work, name="pacball-examine"), Arrival())

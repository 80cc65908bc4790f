"""What is known of a pack's frames: each wanted one is asked for exactly once, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacmirror.cache.filling import Filling
from pacmirror.cache.passing import Passing
from pacmirror.cache.schedule import Room, Schedule
from pacmirror.cache.shelf import Shelf
from pacmirror.limits import MIB, CacheLimits
from pacstore.errors import Corrupt, Unavailable
from tests.store.packs import noise_pack
from tests.store.samples import BOUNDED

COUNT = 20
PACK = noise_pack(COUNT, 1_000)
WIDE = Room(MIB, 100 * MIB)
NARROW = Room(1_000, 100 * MIB)
WRONG = Corrupt("is wrong")
GONE = Unavailable("is gone")


class Memory:
    """A partial pack that only knows what is in it; `unsure` frames need a look."""

    def __init__(self, here=(), unsure=()):
        self.here = set(here)
        self.unsure = set(unsure)

    def has(self, number):
        return number in self.here and number not in self.unsure

    def needs_look(self, number):
        return number in self.unsure

    def look(self, numbers):
        self.unsure -= set(numbers)

    def close(self):
        pass


def make(partial=None, limits=None, pack=PACK):
    limits = limits or CacheLimits(wrong_times=3)
    return Filling(pack.id, pack.frames, Memory() if partial is None else partial, passing=Passing(MIB), limits=limits)


def take_runs(filling, *, urgent=True, most_bytes=MIB):
    """Everything that can be asked for now."""
    runs = []
    while (run := filling.next_run(urgent=urgent, most_bytes=most_bytes, waited_for=False)) is not None:
        runs.append(run)
    return runs


def arrive(filling, numbers):
    filling.partial.here |= set(numbers)
    filling.arrived(numbers)


def test_runs_begin_with_one_frame_and_double_and_end_at_the_limit():
    filling = make()
    filling.want(range(COUNT), urgent=True)
    assert take_runs(filling, most_bytes=5_000) == [
        range(1), range(1, 3), range(3, 7), range(7, 12), range(12, 17), range(17, 20),
    ]  # fmt: skip
    assert not filling.wants(urgent=True)


def test_whoever_begins_elsewhere_gets_one_frame_first():
    filling = make()
    filling.want(range(4), urgent=True)
    take_runs(filling)
    filling.want(range(10, 14), urgent=True)
    assert take_runs(filling) == [range(10, 11), range(11, 13), range(13, 14)]


def test_what_nobody_waits_for_comes_in_long_runs_and_after_what_is_urgent():
    filling = make()
    filling.want(range(COUNT), urgent=False)
    assert take_runs(filling, urgent=True) == []
    assert take_runs(filling, urgent=False, most_bytes=12_000) == [range(12), range(12, 20)]


def test_what_becomes_urgent_goes_first():
    filling = make()
    filling.want(range(COUNT), urgent=False)
    assert filling.want((7,), urgent=True)
    assert take_runs(filling, urgent=True) == [range(7, 8)]


def test_only_as_many_jobs_of_one_pack_as_its_window_allows():
    limits = CacheLimits(jobs=3)
    schedule, filling = Schedule(limits), make(limits=limits)
    filling.want(range(COUNT), urgent=True)
    schedule.add(filling)
    first = schedule.begin_next(WIDE)
    assert schedule.begin_next(WIDE) is None
    schedule.end(first)
    assert [schedule.begin_next(WIDE) is None for _ in range(3)] == [False, False, True]
    assert (schedule.under_way, schedule.queued) == (2, 1)


def test_the_successor_of_a_pack_that_was_given_up_has_its_own_place():
    """It would otherwise be taken for the one that is still in the queue, and whoever waits for it wait for ever."""
    limits = CacheLimits()
    schedule, given_up, successor = Schedule(limits), make(limits=limits), make(limits=limits)
    for one in (given_up, successor):
        one.want(range(COUNT), urgent=True)
        schedule.add(one)
    given_up.is_over = True
    job = schedule.begin_next(WIDE)
    assert job is not None
    assert job.filling is successor


def test_packs_take_turns_and_whoever_waits_goes_before_the_rest():
    async def work():
        limits = CacheLimits(jobs=8, bulk_jobs=2)
        schedule = Schedule(limits)
        bulk, left, waited = (
            [make(limits=limits, pack=noise_pack(9, seed=f"{kind} {number}")) for number in range(3)] for kind in "abc"
        )
        with ExitStack() as waiting:
            for one in (*bulk, *left, *waited):
                one.window = 8
                one.want(range(9), urgent=one not in bulk)
                schedule.add(one)
                if one in waited:
                    waiting.enter_context(one.expecting(0))
            jobs = [schedule.begin_next(NARROW).filling for _ in range(6)]
        assert jobs == waited * 2
        assert [schedule.begin_next(NARROW).filling for _ in range(2)] == left[:2]
        assert schedule.begin_next(NARROW) is None
        for one in (*left, *waited):
            one.fail(GONE)
        assert schedule.begin_next(NARROW) is None, "places are kept for clients"

    asyncio.run(work())


def test_on_a_thin_line_little_is_under_way_and_a_quarter_of_it_is_for_whoever_waits():
    async def work():
        limits, thin = CacheLimits(), Room(1_000, 4_000)
        schedule, left, waited = (
            Schedule(limits),
            make(limits=limits),
            make(limits=limits, pack=noise_pack(9, seed="w")),
        )
        for one in (left, waited):
            one.window = 8
            one.want(range(9), urgent=True)
            schedule.add(one)
        jobs = []
        while (job := schedule.begin_next(thin)) is not None:
            jobs.append(job.filling)
        assert len(jobs) == 3
        with waited.expecting(8):
            assert schedule.begin_next(thin).filling is waited
            assert schedule.begin_next(thin) is None

    asyncio.run(work())


def test_bytes_under_way_are_bounded():
    limits = CacheLimits(jobs=100, flight_bytes=3_000)
    schedule, filling = Schedule(limits), make(limits=limits)
    filling.window = 100
    filling.want(range(COUNT), urgent=True)
    schedule.add(filling)
    jobs = []
    while (job := schedule.begin_next(NARROW)) is not None:
        jobs.append(job)
    assert len(jobs) == 3
    schedule.end(jobs[0])
    assert schedule.begin_next(NARROW) is not None


def test_what_may_be_here_is_looked_at_before_it_is_fetched():
    partial = Memory(here=(1, 2, 4), unsure=(1, 2, 3))
    filling = make(partial)
    filling.want(range(6), urgent=True)
    assert take_runs(filling) == [range(1), range(5, 6)]
    assert filling.next_look() == [1, 2, 3]
    partial.look([1, 2, 3])
    filling.looked([1, 2, 3])
    assert filling.next_look() == []
    assert take_runs(filling) == [range(3, 4)]


def test_with_a_full_disk_only_what_is_waited_for_is_fetched_and_a_little_more():
    async def work():
        filling = make(limits=CacheLimits(ahead_frames=3))
        filling.want(range(COUNT), urgent=True)
        filling.window = 100
        assert filling.next_run(urgent=True, most_bytes=0, waited_for=True) is None
        with filling.expecting(5), filling.expecting(12):
            runs = [filling.next_run(urgent=True, most_bytes=0, waited_for=True) for _ in range(7)]
        assert runs == [*(range(n, n + 1) for n in (5, 6, 7, 12, 13, 14)), None]

    asyncio.run(work())


def test_a_frame_that_is_wrong_too_often_is_given_up_and_no_other():
    async def work():
        filling = make()
        filling.want((3, 4), urgent=True)
        with filling.expecting(3) as third, filling.expecting(4) as fourth:
            for _ in range(3):
                assert not third.done()
                take_runs(filling)
                filling.came_wrong((3,), WRONG)
            assert third.exception() is WRONG
            assert not fourth.done()
            arrive(filling, (4,))
            assert fourth.result() is None
        assert filling.is_idle

    asyncio.run(work())


def test_a_failure_ends_all_waiting_except_for_what_others_still_fetch():
    async def work():
        filling = make()
        filling.want(range(4), urgent=True)
        run = filling.next_run(urgent=True, most_bytes=0, waited_for=False)
        other = filling.next_run(urgent=True, most_bytes=0, waited_for=False)
        with filling.expecting(0) as first, filling.expecting(1) as second, filling.expecting(3) as last:
            filling.fail(GONE, run)
            assert first.exception() is GONE
            assert last.exception() is GONE
            assert not second.done()
            arrive(filling, other)
            assert second.result() is None
        assert filling.is_idle

    asyncio.run(work())


def test_who_stops_waiting_is_forgotten():
    async def work():
        filling = make()
        filling.want((0,), urgent=True)
        for _ in range(3):
            with filling.expecting(0):
                pass
        assert filling._waiters == {}

    asyncio.run(work())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(0, COUNT - 1), st.integers(1, 8), st.booleans()),
        st.tuples(st.just("run"), st.booleans(), st.integers(0, 9_000)),
        st.tuples(st.just("arrive"), st.integers(0, 50)),
        st.tuples(st.just("wrong"), st.integers(0, 50)),
        st.tuples(st.just("fail"), st.integers(0, 50)),
        st.tuples(st.just("look")),
    ),
    max_size=60,
)


@BOUNDED
@given(STEPS, st.sets(st.integers(0, COUNT - 1)), st.sets(st.integers(0, COUNT - 1)))
def test_in_any_order_no_frame_is_under_way_twice_and_everybody_gets_an_answer(steps, here, unsure):
    async def work():
        partial = Memory(here, unsure)
        filling = make(partial)
        filling.window = 1_000
        under_way: list[range] = []
        with ExitStack() as waiting:
            futures = []
            for step in steps:
                match step:
                    case ("want", first, count, urgent):
                        numbers = range(first, min(first + count, COUNT))
                        filling.want(numbers, urgent=urgent)
                        futures += [
                            waiting.enter_context(filling.expecting(number))
                            for number in numbers
                            if not filling.is_here(number)
                        ]
                    case ("run", urgent, most):
                        run = filling.next_run(urgent=urgent, most_bytes=most, waited_for=False)
                        if run is not None:
                            assert not {*run} & {number for other in under_way for number in other}
                            assert not any(filling.is_here(number) or partial.needs_look(number) for number in run)
                            under_way.append(run)
                    case ("look",):
                        numbers = filling.next_look()
                        partial.look(numbers)
                        filling.looked(numbers)
                    case (kind, which) if under_way:
                        run = under_way.pop(which % len(under_way))
                        if kind == "arrive":
                            arrive(filling, run)
                        elif kind == "wrong":
                            arrive(filling, run[1:])
                            filling.came_wrong(run[:1], WRONG)
                        else:
                            filling.fail(GONE, run)
            while (numbers := filling.next_look()) or under_way or not filling.is_idle:
                partial.look(numbers)
                filling.looked(numbers)
                under_way += take_runs(filling, urgent=True) + take_runs(filling, urgent=False)
                while under_way:
                    arrive(filling, under_way.pop())
            assert all(future.done() for future in futures)
            assert filling.is_idle
            for future in futures:
                future.exception()

    asyncio.run(work())


def test_the_shelf_closes_what_was_idle_longest_and_never_what_is_used():
    shelf = Shelf(CacheLimits(packs=3, idle_packs=2))
    fillings = [make(pack=noise_pack(2, seed=f"shelf {number}")) for number in range(5)]
    for one in fillings[:3]:
        shelf.put(one)
        shelf.take(one)
    with pytest.raises(Unavailable, match="too many"):
        shelf.make_room(0)
    assert shelf.in_use == 3
    for one in (fillings[1], fillings[0], fillings[2]):
        shelf.give_back(one)
    assert [shelf.get(one.pack) for one in fillings[:3]] == [fillings[0], None, fillings[2]]
    shelf.make_room(1)
    assert shelf.get(fillings[0].pack) is None

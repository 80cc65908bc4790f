"""What is remembered of a source: its speed, its pauses, its wrongs; by a clock that only goes forward."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise

import pytest

from pacmirror.limits import MirrorLimits
from pacmirror.member import Member
from pacmirror.part import Arrival, Transfer
from pacmirror.throttle import Throttle
from pacmirror.verdict import TryLater, all_failed
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.source import Condition, PackRange, PerhapsAbsent, Traffic

DOWN = Unavailable("is down", place="http://a")
LIMITS = MirrorLimits()
PACK = Digest(bytes(32))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Fake:
    """A part that brings what a test says."""

    name = "http://a"

    def __init__(self):
        self.bytes = 0
        self.seconds = 0.0

    @property
    def traffic(self):
        return Traffic(self.bytes, 1, 0)

    def progress(self):
        return self.bytes, self.seconds

    def start_range(self, wanted):
        return Transfer(Future(), Arrival())

    def start_read(self, path, *, limit):
        return Transfer(Future(), Arrival())

    def start_tail(self, pack, *, length):
        return Transfer(Future(), Arrival())

    def close(self):
        pass


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def member(clock):
    return Member(Fake(), LIMITS, clock=clock)


def bring(member, count, seconds):
    member.part.bytes += count
    member.part.seconds += seconds
    member.observe()


def test_a_source_that_fails_is_left_alone_longer_each_time(member, clock):
    pauses = []
    for _ in range(12):
        member.failed(DOWN, began=clock.now)
        pauses.append(member.pause_left())
        clock.now += pauses[-1] + 0.001
        assert member.pause_left() == 0
    assert all(later > earlier for earlier, later in pairwise(pauses[:6]))
    assert max(pauses) <= LIMITS.pause_max_seconds
    assert member.state().failures == 12
    assert len(set(pauses)) == 12  # no two clients come back at the same moment


def test_what_was_under_way_fails_with_it_and_counts_once(member, clock):
    began = clock.now
    clock.now += 1
    for _ in range(4):
        member.failed(DOWN, began=began)
    assert member.state().failures == 1
    clock.now += 100
    member.failed(DOWN, began=clock.now)
    assert member.state().failures == 2


def test_on_probation_it_has_to_do_well_for_as_long_as_it_was_left_alone(member, clock):
    for _ in range(4):
        clock.now += 100
        member.failed(DOWN)
    long = member.pause_left()
    clock.now += long
    member.succeeded()
    assert member.state().state is Condition.GOOD
    clock.now += 0.1
    member.failed(DOWN)
    assert member.pause_left() > long
    clock.now += 1000
    member.succeeded()
    member.failed(DOWN)
    assert member.pause_left() <= LIMITS.pause_seconds


@pytest.mark.parametrize(
    ("error", "condition", "least"),
    [
        (DOWN, Condition.FAILING, LIMITS.pause_seconds),
        (TryLater("is busy", place="", seconds=30), Condition.FAILING, 30),
        (TryLater("is busy", place="", seconds=86400), Condition.FAILING, LIMITS.pause_max_seconds),
        (Refused("redirects"), Condition.REFUSED, LIMITS.refused_pause_seconds),
        (Corrupt("another range"), Condition.WRONG, LIMITS.wrong_pause_seconds),
    ],
)
def test_how_long_depends_on_what_it_did(member, error, condition, least):
    member.failed(error)
    assert member.state().state is condition
    assert 0.74 * least <= member.pause_left() <= least


def test_wrong_bytes_are_not_forgiven_for_right_ones(member, clock):
    given = PackRange(PACK, 1000, 500)
    member.gave_wrong(given, Corrupt("is wrong"))
    left = member.pause_left()
    member.succeeded()
    member.failed(DOWN)
    assert member.state().state is Condition.WRONG
    assert member.pause_left() == left > 0.7 * LIMITS.wrong_pause_seconds
    assert member.pause_left(drought=True) == 0  # where nobody else has anything, it may have been an accident
    assert [member.times_wrong(PackRange(PACK, at, 100)) for at in (900, 901, 1499, 1500)] == [0, 1, 1, 0]
    assert member.times_wrong(PackRange(Digest(b"x" * 32), 1000, 500)) == 0
    assert member.times_wrong("a path") == 0
    clock.now += left
    member.succeeded()
    assert member.state().state is Condition.GOOD
    assert member.times_wrong(given) == 1


def test_many_wrongs_are_remembered_but_not_all(member):
    for number in range(1500):
        member.gave_wrong(PackRange(PACK, number, 1), Corrupt("is wrong"))
    assert member.state().failures == 1500
    assert [member.times_wrong(PackRange(PACK, number, 1)) for number in (0, 499, 500, 1499)] == [0, 0, 1, 1]


def test_in_a_drought_a_source_that_is_down_is_asked_sooner(member, clock):
    for _ in range(20):
        clock.now += 1000
        member.failed(DOWN)
    assert member.pause_left() > 40
    assert 0 < member.pause_left(drought=True) <= LIMITS.drought_pause_seconds


def test_speed_is_measured_while_it_works(member):
    assert member.bytes_per_second == 0
    bring(member, 1_000_000, 1.0)
    assert member.bytes_per_second == 1_000_000
    for _ in range(20):
        bring(member, 4_000_000, 1.0)
    assert member.bytes_per_second == pytest.approx(4_000_000, rel=0.01)
    for _ in range(20):
        bring(member, 0, 1.0)
    assert member.bytes_per_second < 10_000


def test_a_fast_line_is_known_to_be_fast_after_a_few_ranges(member):
    bring(member, 1 << 20, 0.4)
    for _ in range(4):
        bring(member, 6 << 20, 0.01)
    assert member.bytes_per_second > 400e6


def test_small_documents_say_nothing_of_the_speed(member):
    member.part.bytes, member.part.seconds = 100, 0.5
    member.skip()
    bring(member, 10_000_000, 1.0)
    assert member.bytes_per_second == 10_000_000


def test_slow_is_what_others_make_it(member):
    bring(member, 60_000, 6.0)
    assert not member.is_slow_beside(20_000)
    assert member.is_slow_beside(1_000_000)
    member.is_slow()
    assert member.state().state is Condition.SLOW
    assert "10 kB/s" in member.state().error
    assert not member.is_slow_beside(1_000_000)  # it is measured anew


def test_a_source_is_not_slow_because_another_is_very_fast(member):
    bring(member, 60_000_000, 6.0)
    assert not member.is_slow_beside(5_000_000_000)


def test_our_own_limit_is_not_its_speed(clock):
    member = Member(Fake(), LIMITS, Throttle(50_000), clock=clock)
    bring(member, 10_000_000, 1.0)
    assert member.effective_bytes_per_second == 50_000
    assert member.bytes_per_second == 10_000_000


def test_what_is_not_there_is_a_good_answer(member):
    with pytest.raises(NotFound), member.judged():
        raise NotFound("is not there")
    assert member.state().failures == 0
    with pytest.raises(Unavailable), member.judged():
        raise DOWN
    assert member.state().failures == 1


GONE, WRONG = NotFound("is not there"), Corrupt("is wrong")


@pytest.mark.parametrize(
    ("causes", "kind"),
    [
        ([GONE, GONE], NotFound),
        ([GONE, DOWN], PerhapsAbsent),
        ([GONE, WRONG], PerhapsAbsent),
        ([WRONG, DOWN], Unavailable),
        ([WRONG, Refused("redirects")], Corrupt),
        ([Refused("redirects"), Refused("denies")], Refused),
    ],
)
def test_one_error_for_all(causes, kind):
    error = all_failed("a pack", {f"http://{n}": cause for n, cause in enumerate(causes)})
    assert type(error) is kind
    for number, cause in enumerate(causes):
        assert f"http://{number}: " in str(error)
        assert cause.message in str(error)
    assert error.hint


def test_one_source_speaks_for_itself():
    assert all_failed("a pack", {"http://a": DOWN}) is DOWN

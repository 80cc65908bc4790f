"""The limit on the rate: exact over a few seconds, shared by all, and no reason to call a source slow."""

from __future__ import annotations

import time

import pytest

from pacmirror.limits import ClientLimits
from pacmirror.mirrors import MirrorList
from pacmirror.part import BlockingPart
from pacmirror.source import HttpSource
from pacmirror.throttle import Throttle
from pacstore.digest import Digest
from pacstore.directory_source import DirectorySource
from pacstore.errors import Refused
from pacstore.source import PackRange
from tests.mirror.mischief import serving

PACK = Digest(bytes(32))
PATH = f"packs/00/{PACK}"
FILES = {PATH: bytes(range(256)) * 4096}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def pieces(count: int, length: int) -> list[PackRange]:
    return [PackRange(PACK, n * length, length) for n in range(count)]


@pytest.mark.parametrize("piece", [1, 1000, 65536, 5_000_000])
def test_over_time_exactly_the_rate_passes(piece):
    clock = Clock()
    throttle = Throttle(1_000_000, clock=clock)
    passed = 0
    while clock.now < 1030.0:
        clock.now += throttle.take(piece)
        passed += piece
        if piece == 1 and passed > 1_000_000:
            break
    assert passed == pytest.approx(1_000_000 * (clock.now - 1000.0), rel=0.01, abs=250_001)


def test_those_who_share_it_have_the_rate_together():
    clock = Clock()
    throttle = Throttle(100_000, clock=clock)
    free_at = [clock.now] * 10
    passed = 0
    while min(free_at) < 1020.0:
        one = free_at.index(min(free_at))
        clock.now = free_at[one]
        free_at[one] += throttle.take(16_384)
        passed += 16_384
    assert passed == pytest.approx(100_000 * 20, rel=0.1)


def test_who_was_idle_catches_up_with_little():
    clock = Clock()
    throttle = Throttle(100_000, clock=clock)
    clock.now += 3600.0
    assert throttle.take(25_000) == pytest.approx(0.0)
    assert throttle.take(10_000) == pytest.approx(0.1)


def test_a_rate_at_which_nothing_would_arrive():
    with pytest.raises(Refused, match="too few"):
        Throttle(1000)


def test_a_source_keeps_the_rate_and_is_not_called_slow():
    # One answer takes 4 s for the sake of the rate: longer than it may, and at less than the least rate.
    limits = ClientLimits(stall_seconds=3.0, answer_seconds=3.0, min_bytes_per_second=10_000_000, attempts=1)
    began = time.monotonic()
    with (
        serving(FILES) as mirror,
        HttpSource(mirror.url, limits=limits, throttle=Throttle(200_000)) as source,
    ):
        assert sum(len(data) for _, data in source.ranges(pieces(1, 800_000))) == 800_000
        (state,) = source.states()
    assert time.monotonic() - began > 3.5
    assert not state.is_bad
    assert mirror.bytes_sent == 800_000


def test_little_more_is_taken_in_than_the_rate_allows():
    with (
        serving({PATH: bytes(8 << 20)}) as mirror,
        HttpSource(mirror.url, throttle=Throttle(200_000)) as source,
    ):
        began = time.monotonic()
        arriving = source.ranges([PackRange(PACK, 0, 8 << 20)])
        timer = time.monotonic() + 1.0
        transfer = source.start_range(PackRange(PACK, 0, 8 << 20))
        while time.monotonic() < timer:
            time.sleep(0.05)
        received = transfer.arrival.received
        transfer.result.cancel()
        arriving.close()
        passed = time.monotonic() - began
    assert 100_000 < received <= 200_000 * passed + 200_000
    # What lies in the kernels of both ends comes on top; without a narrow socket it would be all.
    assert mirror.bytes_sent < 6 << 20


def test_all_sources_have_the_rate_together(tmp_path):
    (tmp_path / "packs/00").mkdir(parents=True)
    (tmp_path / PATH).write_bytes(FILES[PATH])
    (tmp_path / "store.json").write_text("{}")
    throttle = Throttle(500_000)
    began = time.monotonic()
    with serving(FILES) as mirror:
        parts = [HttpSource(mirror.url, throttle=throttle), BlockingPart(DirectorySource(tmp_path), throttle=throttle)]
        with MirrorList(parts, throttle=throttle) as source:
            assert sum(len(data) for _, data in source.ranges(pieces(8, 100_000))) == 800_000
            assert not any(one.is_bad for one in source.states())
    assert time.monotonic() - began > 1.2


def test_the_rate_can_be_changed_while_it_runs():
    clock = Clock()
    throttle = Throttle(1_000_000, clock=clock)
    clock.now += 10
    throttle.take(250_000)
    assert throttle.take(1_000_000) == pytest.approx(1.0)
    throttle.change(None)
    assert throttle.take(10**12) == 0
    throttle.change(100_000)
    assert throttle.take(100_000) == pytest.approx(1.0)
    with pytest.raises(Refused, match="too few"):
        throttle.change(10)
    assert throttle.bytes_per_second == 100_000

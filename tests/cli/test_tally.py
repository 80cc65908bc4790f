"""Counting, rates and what is left: pure, with times of its own."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paccli.bar import amount_of, clock, in_words, left_of, row, source_lines
from paccli.tally import MEMORY_SECONDS, Snapshot, Tally
from pacstore.source import Condition, SourceState


def test_a_steady_rate_is_right_from_the_first_look():
    tally = Tally()
    tally.begin("downloading", 1_000, 100.0)
    for second in range(1, 6):
        tally.advance(100)
        now = tally.look(100.0 + second)
        assert (now.bytes_done, now.bytes_total, now.seconds) == (100 * second, 1_000, second)
        assert now.bytes_per_second == pytest.approx(100)
        assert now.seconds_left == pytest.approx(10 - second)


def test_the_remaining_time_is_calm_where_bytes_come_in_lumps():
    tally = Tally()
    tally.begin("downloading", 10_000_000, 0.0)
    left = []
    for tick in range(1, 301):  # a lump of 8 seconds' bytes every 8 seconds, looked at five times a second
        if tick % 40 == 0:
            tally.advance(80_000)
        left.append(tally.look(tick / 5).seconds_left)
    late = [seconds for seconds in left[150:] if seconds is not None]
    assert len(late) == 150
    assert max(late) < 2.6 * min(late)


def test_the_rate_follows_a_line_that_becomes_slow_and_one_that_dies():
    tally = Tally()
    tally.begin("downloading", 10_000_000, 0.0)
    for second in range(1, 31):
        tally.advance(1_000)
        tally.look(float(second))
    for second in range(31, 31 + int(3 * MEMORY_SECONDS)):
        tally.advance(100)
        now = tally.look(float(second))
    assert 100 < now.bytes_per_second < 200
    for second in range(70, 70 + int(60 * MEMORY_SECONDS)):
        now = tally.look(float(second))
    assert now.bytes_per_second < 1
    assert now.seconds_left is None  # nobody waits for longer than this


def test_more_than_announced_is_no_more_than_all():
    tally = Tally()
    tally.begin("copying", 10, 0.0)
    tally.advance(25)
    now = tally.look(1.0)
    assert (now.bytes_done, now.seconds_left, left_of(now)) == (10, 0.0, "")


def test_without_a_total_nothing_is_promised():
    tally = Tally()
    tally.begin("preparing", None, 0.0)
    tally.advance(5)
    now = tally.look(1.0)
    assert (now.bytes_done, now.bytes_total, now.seconds_left, amount_of(now)) == (5, None, None, "5 B")


def test_what_has_arrived_counts_before_it_is_done_but_once():
    tally = Tally()
    tally.begin("downloading", 100, 0.0)
    assert tally.look(1.0, arrived=30).bytes_done == 30
    tally.advance(50)
    assert tally.look(2.0, arrived=45).bytes_done == 50
    assert tally.look(3.0, arrived=300).bytes_done == 100


def test_no_count_is_lost_between_threads():
    tally = Tally()
    tally.begin("copying", None, 0.0)
    threads = [threading.Thread(target=lambda: [tally.advance(1) for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.look(1.0).bytes_done == 40_000


def shot(done: int, total: int | None, *, rate: float = 1e6, left: float | None = 10.0) -> Snapshot:
    return Snapshot("downloading", done, total, rate, left, 1.0)


@pytest.mark.parametrize(
    ("now", "width", "line"),
    [
        (shot(1_234_567, 4_500_000), 79, "downloading  [22]  1.2 of 4.5 MB  1.0 MB/s  3.3 MB left, 0:10"),
        (shot(1_234_567, 4_500_000), 60, "downloading  1.2 of 4.5 MB  1.0 MB/s  3.3 MB left, 0:10"),
        (shot(1_234_567, 4_500_000), 45, "downloading  1.2 of 4.5 MB  1.0 MB/s  0:10"),
        (shot(1_234_567, 4_500_000), 39, "downloading  1.2 of 4.5 MB  0:10"),
        (shot(1_234_567, 4_500_000), 30, "downloading  1.2 of 4.5 MB"),
        (shot(1_234_567, 4_500_000), 13, "downloading  "),
        (shot(999, 4_500_000, left=None), 79, "downloading  [26]  999 B of 4.5 MB  1.0 MB/s  4.5 MB left"),
        (shot(0, None, rate=0), 79, "downloading"),
        (shot(7_000, None), 79, "downloading  7.0 kB  1.0 MB/s"),
    ],
)
def test_the_bar_fits_itself_to_the_width(now, width, line):
    before, cells, after = row(now, width)
    assert before + (f"  [{cells}]" if cells else "") + after == line
    assert len(before) + (cells + 2 if cells else 0) + len(after) <= width


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.floats(0, 1e10), st.integers(1, 300))
def test_no_line_is_wider_than_the_terminal(done, total, rate, width):
    before, cells, after = row(shot(min(done, total), total, rate=rate, left=total / (rate + 1)), width)
    assert len(before) + (cells + 2 if cells else 0) + len(after) <= width
    states = [SourceState("https://a.example/" + "x" * (total % 99), done, 1, 1, rate, Condition.SLOW)] * 11
    lines = source_lines(states, width)
    assert len(lines) == 9
    assert all(len(line) <= width for line in lines)


def test_a_line_for_each_of_several_sources():
    good = SourceState("https://one.example.org/pacball", 12_000_000, 9, 0, 3_400_000, Condition.GOOD)
    bad = SourceState("http://two.example.org:8080/\x1b[31m", 0, 9, 4, 0, Condition.FAILING, "is down")
    assert source_lines([good], 79) == []
    assert source_lines([good, bad], 79) == [
        "  one.example.org/pacball          3.4 MB/s   12.0 MB",
        r"  two.example.org:8080/\x1b[31m       0 B/s       0 B  failing",
    ]
    assert source_lines([good, bad], 39) == [
        "  one.example.org/p…  3.4 MB/s  12.0 MB",
        "  two.example.org…  0 B/s  0 B  failing",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (86_399, "23:59:59"), (190_000, "2 d 4 h")],
)
def test_lengths_of_time(seconds, text):
    assert clock(seconds) == text


def test_a_line_of_a_log():
    assert in_words(shot(1_200_000, 4_500_000)) == "downloading: 1.2 of 4.5 MB, 1.0 MB/s, 3.3 MB left, 0:10"
    assert in_words(shot(0, None)) == "downloading"

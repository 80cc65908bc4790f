"""Rates by hours of the day: pure, with minutes of its own."""

from __future__ import annotations

import pytest

from pacmirror.hours import RateHours, parse_hours, rate_at
from pacstore.errors import Refused


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("08:00-18:00", 480, 1080),
        ("8:05 - 9:00", 485, 540),
        ("22:00-06:00", 1320, 360),
        ("00:00-24:00", 0, 0),
        ("18:00-24:00", 1080, 0),
    ],
)
def test_hours(text, begin, end):
    assert parse_hours(text, place="x") == (begin, end)


@pytest.mark.parametrize("text", ["", "8-18", "08:00", "08:00-18:60", "24:00-06:00", "08:00-24:01", "a\x1b:00-18:00"])
def test_no_hours(text):
    with pytest.raises(Refused, match="22:00-06:00 over midnight") as caught:
        parse_hours(text, place="f: upstream.hours")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("minute", "rate"), [(0, 7), (359, 7), (360, 9), (479, 9), (480, 5), (1079, 5), (1080, 9), (1319, 9), (1320, 7)]
)
def test_a_rate_holds_from_its_first_minute_until_before_its_last(minute, rate):
    hours = [RateHours(480, 1080, 5), RateHours(1320, 360, 7)]
    assert rate_at(minute, hours, usual=9) == rate


def test_the_first_hours_that_fit_decide_and_no_limit_is_a_rate_too():
    hours = [RateHours(480, 1080, None), RateHours(0, 0, 0)]
    assert rate_at(600, hours, usual=9) is None
    assert rate_at(0, hours, usual=9) == 0
    assert rate_at(0, [], usual=None) is None

"""The history keeps every event, and is read past all that a crash or a newer pacball may leave in it."""

import json
import multiprocessing
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.errors import Corrupt
from pacstore.install.root.history import LINE_BYTES, NAME, EventKind, append_event, read_events
from pacstore.release import Release

ONE, TWO = Release.parse("Sample-1.0-any"), Release.parse("Sample-1.1-any")


@pytest.fixture
def private(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def append(private, release=ONE, kind=EventKind.SWITCH, time=1.0, **values):
    append_event(private, kind, release, time=time, values=values)


def test_what_was_written_comes_back_in_order(private, tmp_path):
    append(private, ONE, EventKind.INSTALL, 1.23456, source="here")
    append(private, TWO, EventKind.ROLLBACK, 2, previous=str(ONE))
    one, two = read_events(private)
    assert (one.kind, one.release, one.time, one.text("source"), one.previous) == ("install", ONE, 1.235, "here", "")
    assert (two.kind, two.release, two.previous) == ("rollback", TWO, str(ONE))
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_no_history(private):
    assert list(read_events(private)) == []


def test_lines_of_before_there_were_events_are_switches(private, tmp_path):
    (tmp_path / NAME).write_text('{"previous": null, "release": "Sample-1.0-any", "source": "x", "time": 3.5}\n')
    (only,) = read_events(private)
    assert (only.kind, only.release, only.time, only.previous) == (EventKind.SWITCH, ONE, 3.5, "")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\0" * 5000,
        b'{"event": "polish", "release": "Sample-1.0-any", "time": 1}',
        b'{"event": 7, "release": "Sample-1.0-any", "time": 1}',
        b'{"release": "no name", "time": 1}',
        b'{"release": 1, "time": 1}',
        b'{"release": "Sample-1.0-any"}',
        b'{"release": "Sample-1.0-any", "time": "now"}',
        b'{"release": "Sample-1.0-any", "time": true}',
        b'{"release": "Sample-1.0-any", "time": NaN}',
        b'{"release": "Sample-1.0-any", "time": 1e999}',
        b'{"release": "Sample-1.0-any", "release": "Sample-1.0-any", "time": 1}',
        b"[" * 100_000,
        b"x" * (3 * LINE_BYTES),
        b'{"release": "Sample-1.0-any", "time": 1, "x": "' + b"x" * LINE_BYTES + b'"}',
    ],
)
def test_lines_that_say_nothing_are_passed_over(private, tmp_path, line):
    append(private, ONE)
    with (tmp_path / NAME).open("ab") as file:
        file.write(line + b"\n")
    append(private, TWO)
    assert [event.release for event in read_events(private)] == [ONE, TWO]


@pytest.mark.parametrize("cut", [1, 2, 30, -1])
@pytest.mark.parametrize("tail", [b"", b"\0" * 100])
def test_a_torn_last_line_is_not_read_and_not_continued(private, tmp_path, cut, tail):
    append(private, ONE)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole + whole[:cut] + tail)
    assert [event.release for event in read_events(private)] == [ONE]
    append(private, TWO)
    assert [event.release for event in read_events(private)][::2] in ([ONE], [ONE, TWO])
    assert list(read_events(private))[-1].release == TWO


@given(st.binary(max_size=300))
def test_any_bytes_give_events_or_nothing(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("history")
    (place / NAME).write_bytes(data)
    private = os.open(place, os.O_RDONLY)
    try:
        assert list(read_events(private)) == []
        append(private)
        assert [event.release for event in read_events(private)] == [ONE]
    finally:
        os.close(private)


def test_an_event_too_long_to_be_read_is_not_written(private, tmp_path):
    with pytest.raises(Corrupt, match="an event has"):
        append(private, x="x" * LINE_BYTES)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_not_followed(private, tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / NAME).symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        append(private)
    with pytest.raises(OSError, match="symbolic links"):
        list(read_events(private))
    assert (tmp_path / "elsewhere").read_text() == ""


def _append_many(place, time):
    private = os.open(place, os.O_RDONLY)
    for number in range(200):
        append(private, ONE, EventKind.VALIDATE, time, number=number, filler="x" * 500)


def test_several_processes_at_once_lose_nothing(tmp_path, private):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(tmp_path, time)) for time in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    numbers = {0: [], 1: [], 2: []}
    for event in read_events(private):
        numbers[int(event.time)].append(event.values["number"])
    assert all(found == list(range(200)) for found in numbers.values())
    assert all(json.loads(line) for line in (tmp_path / NAME).read_text().splitlines() if line)

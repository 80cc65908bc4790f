"""The format of server-sent events, written as the standard wants it, and read in pieces of any size from anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacmirror.event_stream import (
    KEEP_ALIVE,
    Event,
    EventReader,
    decode_data,
    encode_data,
    encode_event,
    encode_retry,
)
from pacstore.errors import Corrupt

TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)


def read(*pieces, limit=1000):
    reader = EventReader(limit=limit)
    return [event for piece in pieces for event in reader.feed(piece)]


def test_what_is_written_is_what_the_standard_says():
    event = Event("catalog", encode_data({"version": 7}), "ab-1")
    assert encode_event(event) == b'id: ab-1\nevent: catalog\ndata: {"version":7}\n\n'
    assert encode_retry(2.5) == b"retry: 2500\n\n"
    assert read(encode_retry(2), KEEP_ALIVE, encode_event(event), KEEP_ALIVE) == [event]


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3), TEXT), max_size=4), st.data())
def test_events_come_whole_however_they_are_cut(fields, draw):
    events = [Event(kind or "message", "\n".join(data), id_) for kind, data, id_ in fields]
    stream = b"".join(encode_event(event) for event in events)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = read(*pieces)
    assert [(event.kind, event.data) for event in found] == [(event.kind, event.data) for event in events]
    # An event without an id keeps the one before, as the standard has it.
    assert all(one.id == other.id for one, other in zip(found, events, strict=True) if other.id)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"\xef\xbb\xbfdata: a\r\n\r\n", [Event("message", "a")]),
        (b"data:a\rdata:  b\r\r", [Event("message", "a\n b")]),
        (b"event: x\n\ndata\n\n", [Event("message", "")]),
        (b": comment\nunknown: field\nretry: soon\ndata: a\nid: 1\0\n\n", [Event("message", "a")]),
        (b"data: never ended", []),
    ],
)
def test_the_corners_of_the_standard(stream, events):
    assert read(stream + (b"x" if stream.endswith(b"\r") else b"")) == events
    assert read(*(bytes([byte]) for byte in stream + b":")) == events


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x" * 100] * 20,
        [b"data: " + b"x" * 90 + b"\n"] * 20,
        [b"data: \xff\n\n"],
        [b":" + b"x" * 2000],
    ],
)
def test_what_has_no_end_is_refused(pieces):
    with pytest.raises(Corrupt):
        read(*pieces)


def test_comments_for_ever_are_no_event():
    assert read(*[b": alive\n"] * 5000) == []


@pytest.mark.parametrize("data", ["", "7", "[" * 100_000, "{", '"x"', "null"])
def test_data_that_is_no_object_says_nothing(data):
    assert decode_data(Event("catalog", data)) == {}

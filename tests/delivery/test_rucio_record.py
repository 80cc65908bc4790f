"""What an agent remembers, and when something leaves: never because of an error, late where much leaves at once."""

from __future__ import annotations

import pytest

from pacmirror.delivery.rucio import record
from pacmirror.delivery.rucio.naming import Did
from pacmirror.delivery.rucio.record import MASS_FACTOR, AgentRecord, Kept
from pacstore.errors import Corrupt, NewerFormat, Refused

HOUR = 3600.0


def _did(number: int) -> Did:
    return Did("sw", f"sw.Demo-1.{number}-x86_64.b3-{'0' * 16}.p1")


def _seen(count: int, *, wanted: int, at: float = 0.0) -> AgentRecord:
    """A record of `count` datasets, of which the first `wanted` still are at the moment `at`."""
    made = _asked(AgentRecord("SITE"), count, now=at)
    return _asked(made, wanted, now=at)


def _asked(made: AgentRecord, wanted: int, *, now: float) -> AgentRecord:
    return made.seen({_did(n) for n in range(wanted)}, now=now, grace_seconds=HOUR)


def _asked_often(made: AgentRecord, wanted: int, *, until: float) -> AgentRecord:
    """The same after Rucio was asked every ten minutes until then, and said the same each time."""
    at = made.asked_at
    while at is not None and at < until:
        at = min(at + 600.0, until)
        made = _asked(made, wanted, now=at)
    return made


def test_what_is_written_is_read_again(tmp_path):
    assert record.load(tmp_path, "SITE").kept == {}
    made = (
        AgentRecord("SITE")
        .with_(Kept(_did(1), "Demo-1.1-x86_64", is_whole=True))
        .with_(Kept(_did(2), unwanted_since=7.5))
    )
    record.save(tmp_path, made)
    assert record.load(tmp_path, "SITE") == made
    assert made.without(_did(1)).kept.keys() == {_did(2)}


def test_a_store_is_for_one_rse(tmp_path):
    record.save(tmp_path, AgentRecord("SITE"))
    with pytest.raises(Refused, match=r"for the RSE SITE, not for OTHER.*--rse SITE"):
        record.load(tmp_path, "OTHER")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"format":1}',
        b'{"format":1,"rse":"S","store":"x","datasets":[{}]}',
        b'{"format":1,"rse":"S","store":"x","datasets":[{"did":"sw:..","release":"","whole":true,"was_here":false,"unwanted_since":null}]}',
        b'{"format":1,"rse":"S","store":"x","datasets":[{"did":"sw:ab","release":"","whole":true,"was_here":false,"unwanted_since":"1"}]}',
    ],
)
def test_a_damaged_record_is_no_empty_one(tmp_path, data):
    (tmp_path / record.RECORD_NAME).write_bytes(data)
    with pytest.raises(Corrupt):
        record.load(tmp_path, "S")


def test_a_newer_record_is_left_alone(tmp_path):
    (tmp_path / record.RECORD_NAME).write_bytes(b'{"format":2}')
    with pytest.raises(NewerFormat):
        record.load(tmp_path, "S")


def test_a_dataset_leaves_after_its_grace_time_and_not_before():
    made = _seen(3, wanted=2, at=100.0)
    before = _asked_often(made, 2, until=100.0 + HOUR - 1)
    assert before.due(now=100.0 + HOUR - 1, grace_seconds=HOUR) == []
    after = _asked_often(before, 2, until=100.0 + HOUR)
    assert [one.did for one in after.due(now=100.0 + HOUR, grace_seconds=HOUR)] == [_did(2)]
    assert [one.unwanted_since for one in after.leaving()] == [100.0]


def test_what_is_wanted_again_stays():
    made = _asked(_seen(1, wanted=0), 1, now=HOUR)
    assert (made.leaving(), made.asked_at) == ([], None)
    assert _asked(made, 0, now=2 * HOUR).due(now=2 * HOUR, grace_seconds=HOUR) == []


def test_a_rucio_that_lost_most_locks_is_not_believed_as_soon():
    made = _seen(5, wanted=2)
    assert made.is_mass()
    waiting = _asked_often(made, 2, until=HOUR * MASS_FACTOR - 1)
    assert waiting.due(now=HOUR * MASS_FACTOR - 1, grace_seconds=HOUR) == []
    assert len(_asked(waiting, 2, now=HOUR * MASS_FACTOR).due(now=HOUR * MASS_FACTOR, grace_seconds=HOUR)) == 3
    # With half of them it is no mass, and of a few any part may leave.
    assert not _seen(4, wanted=2).is_mass()
    assert not _seen(3, wanted=0).is_mass()


def test_one_answer_before_and_one_after_a_long_silence_are_not_enough(tmp_path):
    made = _seen(1, wanted=0, at=100.0)
    # Stopped meanwhile, or without Rucio for a week.
    record.save(tmp_path, made)
    late = 100.0 + 168 * HOUR
    made = _asked(record.load(tmp_path, "SITE"), 0, now=late)
    assert made.due(now=late, grace_seconds=HOUR) == []
    for number in range(1, record.ANSWERS):
        assert made.due(now=late, grace_seconds=HOUR) == []
        late = 100.0 + (168 + number) * HOUR
        made = _asked(made, 0, now=late)
    assert made.due(now=late, grace_seconds=HOUR) != []


@pytest.mark.parametrize("wrong", [0.0, 1e12])
def test_a_clock_that_was_wrong_neither_shortens_the_grace_time_nor_keeps_anything_for_ever(wrong):
    made = _seen(1, wanted=0, at=1e9)
    for moment in (wrong, 1e9 + 60):
        made = _asked(made, 0, now=moment)
        assert made.due(now=moment, grace_seconds=HOUR) == []
    assert made.leaving()[0].unwanted_since >= 1e9 + 60 - HOUR / record.ANSWERS
    assert _asked_often(made, 0, until=1e9 + 60 + HOUR).due(now=1e9 + 60 + HOUR, grace_seconds=HOUR) != []


def test_a_clock_that_was_wrong_when_a_dataset_was_left_does_not_make_it_leave_at_once():
    made = _asked(_seen(1, wanted=0, at=0.0), 0, now=1e9)
    assert made.due(now=1e9, grace_seconds=HOUR) == []


def test_a_time_that_is_no_number_is_damage(tmp_path):
    data = b'{"asked_at":"1","format":1,"rse":"S","store":"x","datasets":[]}'
    (tmp_path / record.RECORD_NAME).write_bytes(data)
    with pytest.raises(Corrupt):
        record.load(tmp_path, "S")

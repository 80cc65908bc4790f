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
    made = AgentRecord("SITE").seen({_did(n) for n in range(count)}, now=at)
    return made.seen({_did(n) for n in range(wanted)}, now=at)


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
    assert made.due(now=100.0 + HOUR - 1, grace_seconds=HOUR) == []
    assert [one.did for one in made.due(now=100.0 + HOUR, grace_seconds=HOUR)] == [_did(2)]
    # What is said again in between does not begin it anew.
    again = made.seen({_did(0), _did(1)}, now=2000.0)
    assert again == made


def test_what_is_wanted_again_stays():
    made = _seen(1, wanted=0).seen({_did(0)}, now=HOUR)
    assert made.leaving() == []
    assert made.seen(set(), now=2 * HOUR).due(now=2 * HOUR, grace_seconds=HOUR) == []


def test_a_rucio_that_lost_most_locks_is_not_believed_as_soon():
    made = _seen(5, wanted=2)
    assert made.is_mass()
    assert made.due(now=HOUR * MASS_FACTOR - 1, grace_seconds=HOUR) == []
    assert len(made.due(now=HOUR * MASS_FACTOR, grace_seconds=HOUR)) == 3
    # With half of them it is no mass, and of a few any part may leave.
    assert not _seen(4, wanted=2).is_mass()
    assert not _seen(3, wanted=0).is_mass()


def test_a_clock_that_was_wrong_keeps_nothing_for_ever():
    made = _seen(1, wanted=0, at=1e12).seen(set(), now=50.0)
    assert [one.unwanted_since for one in made.leaving()] == [50.0]

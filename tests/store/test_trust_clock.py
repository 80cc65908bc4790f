"""By which time a catalog is judged: clocks that are set back or ahead, thieves who sign the future, and --as-of."""

import json

import pytest

from pacstore.errors import Corrupt, Untrusted
from pacstore.release import Release
from pacstore.trust.clock import Clock, Moment, date, parse_date
from pacstore.trust.metadata import at
from tests.store.trust_signing import new_online_key, refresh, sign_timestamp
from tests.store.trust_world import DAY, NOW, RELEASE, MemorySource, World, entry

HOUR = 3600.0
KNOWN = Release.parse(RELEASE)
KEYS = ("a",)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def signed(world, when: object) -> None:
    """Let the timestamp say that it was signed then."""
    value = date(when) if isinstance(when, float) else when

    def change(timestamp):
        timestamp.unrecognized_fields.pop("signed_at", None)
        if value is not None:
            timestamp.unrecognized_fields["signed_at"] = value

    sign_timestamp(world, change)


def forget_timestamp(world) -> None:
    """Or python-tuf would keep the one of the same version that it has."""
    (world.metadata_dir() / "timestamp.json").unlink(missing_ok=True)


def recorded(world) -> list[float]:
    return sorted(json.loads(path.read_bytes())["time"] for path in world.state.glob("*/clock/*.json"))


def test_a_clock_that_was_set_back_does_not_make_an_old_catalog_fresh(world):
    old = world.copy()
    refresh(world, now=NOW + 20 * DAY)
    world.open(now=NOW + 40 * DAY)
    # Another client, which remembers the time but no versions, is shown what expired ten days before that.
    for record in world.floor_records():
        record.unlink()
    for metadata in world.state.glob("*/metadata"):
        metadata.rename(world.state / "gone")
    catalog = world.open(source=MemorySource(old), now=NOW)
    assert "timestamp, version 2, expired" in catalog.stale
    with pytest.raises(Untrusted) as caught:
        catalog.release(KNOWN)
    assert f"clock says {date(NOW)}" in caught.value.hint
    assert "set the clock" in caught.value.hint


def test_what_is_fresh_is_fresh_whatever_a_slow_clock_says(world):
    refresh(world, now=NOW + 20 * DAY)
    world.open(now=NOW + 25 * DAY)
    # 1970: a machine without a clock of its own, after a restart.
    assert world.open(now=0.0).release(KNOWN) == entry()


def test_time_is_remembered_in_steps_of_an_hour(world):
    for moment, expected in ((NOW, NOW), (NOW + HOUR - 1, NOW), (NOW + HOUR, NOW + HOUR), (NOW - DAY, NOW + HOUR)):
        world.open(now=moment)
        assert recorded(world) == [expected]


def test_only_a_verified_fresh_catalog_tells_the_time(world):
    world.open(now=NOW)
    # A clock that is years ahead finds everything expired, and is forgotten.
    for ahead in (NOW + 31 * DAY, NOW + 3650 * DAY, 2e11):
        world.open(now=ahead)
        assert recorded(world) == [NOW]
    files = world.copy()
    files["catalog/timestamp.json"] = files["catalog/timestamp.json"][:-1]
    with pytest.raises(Untrusted):
        world.open(source=MemorySource(files), now=NOW + DAY)
    assert recorded(world) == [NOW]
    assert world.open(now=NOW).release(KNOWN) == entry()


def test_a_clock_that_was_ahead_delays_no_catalog_that_is_signed_later(world):
    world.open(now=NOW + 29 * DAY)
    refresh(world, now=NOW + DAY)
    assert world.open(now=NOW + DAY).release(KNOWN) == entry()


def test_the_time_is_never_later_than_the_end_of_what_was_fresh(tmp_path):
    Clock(tmp_path).advance(Moment(100.0, 100.0), KEYS, expires=50.0)
    assert Clock(tmp_path).latest(KEYS) == 50.0


def test_records_of_clients_without_a_lock_are_joined(tmp_path):
    slow = Clock(tmp_path)
    Clock(tmp_path).advance(Moment(9 * HOUR, 9 * HOUR), KEYS, expires=1e9)
    slow.advance(Moment(5 * HOUR, 5 * HOUR), KEYS, expires=1e9)
    assert Clock(tmp_path).latest(KEYS) == 9 * HOUR
    Clock(tmp_path).advance(Moment(20 * HOUR, 20 * HOUR), KEYS, expires=1e9)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_record_is_never_ignored(world):
    world.open()
    (record,) = world.state.glob("*/clock/*")
    record.write_bytes(b"")
    with pytest.raises(Corrupt) as caught:
        world.open()
    assert caught.value.place == str(record)
    assert "remove this file" in caught.value.hint


def test_a_clock_that_is_behind_the_signature_is_wrong(world):
    world.open(now=NOW - DAY)
    for moment in (NOW - DAY - 1, 0.0):
        stranger = World(world.state.parent / str(moment))
        with pytest.raises(Untrusted) as caught:
            stranger.open(now=moment)
        assert f"says {date(moment)}, but the catalog was signed at {date(NOW)}" in caught.value.message
        assert "set the clock" in caught.value.hint
        assert f"--as-of {date(NOW)}" in caught.value.hint
        assert stranger.open(now=moment, as_of=NOW).release(KNOWN) == entry()


def test_no_time_of_signing_or_nonsense_is_unknown(world):
    for value in (None, "yesterday", 17, [], "2023-11-14T22:13:20", "9999-99-99T99:99:99Z", "2099-1-1T0:0:0Z"):
        signed(world, value)
        catalog = world.open(now=NOW)
        assert (catalog.signed_at, catalog.release(KNOWN)) == (None, entry())
        late = world.open(now=NOW + 40 * DAY)
        assert f"last seen here at {date(NOW)}, 40 days ago" in late.stale
        forget_timestamp(world)


def test_a_thief_who_signs_the_future_only_denies_until_the_online_key_is_replaced(world):
    world.open()
    sign_timestamp(world, lambda timestamp: setattr(timestamp, "version", 2**40))
    signed(world, NOW + 3650 * DAY)
    with pytest.raises(Untrusted, match="the catalog was signed at 2033"):
        world.open()
    assert recorded(world) == [NOW]
    # With years to live it is fresh for a clock that is ahead, which is remembered, until there is another key.
    sign_timestamp(world, lambda timestamp: setattr(timestamp, "expires", at(NOW + 9999 * DAY)))
    signed(world, NOW)
    forget_timestamp(world)
    world.open(now=NOW + 29 * DAY)
    assert recorded(world) == [NOW + 29 * DAY]
    new_online_key(world, now=NOW)
    assert world.open(now=NOW).release(KNOWN) == entry()
    assert recorded(world) == [NOW]


def test_as_of_judges_by_the_time_that_was_named(world):
    years = NOW + 3650 * DAY
    with pytest.raises(Untrusted):
        world.open(now=years).release(KNOWN)
    catalog = world.open(now=years, as_of=NOW + DAY)
    assert (catalog.release(KNOWN), catalog.stale) == (entry(), "")
    with pytest.raises(Untrusted) as caught:
        world.open(now=years, as_of=NOW + 31 * DAY).release(KNOWN)
    assert f"judged as of {date(NOW + 31 * DAY)}" in caught.value.message
    assert "earlier --as-of" in caught.value.hint


def test_as_of_remembers_no_time_and_no_release(world):
    world.open(now=NOW, as_of=NOW + 29 * DAY).releases()
    assert recorded(world) == []
    assert list(world.state.glob("*/seen/*")) == []
    with pytest.raises(Untrusted):
        world.open(now=NOW + 40 * DAY).release(KNOWN)
    # And what was remembered does not matter for it.
    world.open(now=NOW + 29 * DAY)
    assert world.open(now=NOW, as_of=NOW + DAY).release(KNOWN) == entry()


def test_as_of_does_not_roll_back(world):
    old = world.copy()
    world.publish("Zebra-1-any")
    for raised in ({"now": NOW}, {"now": NOW, "as_of": NOW}):
        world.open(**raised)
        with pytest.raises(Untrusted, match="rolled back"):
            world.open(source=MemorySource(old), now=NOW, as_of=NOW)


def test_as_of_before_the_signature_is_a_mistake(world):
    assert world.open(now=NOW, as_of=NOW - DAY).release(KNOWN) == entry()
    with pytest.raises(Untrusted, match=r"after .*, as of which") as caught:
        world.open(now=NOW, as_of=NOW - DAY - 1)
    assert f"--as-of {date(NOW)} or later" in caught.value.hint


WRONG = (
    "",
    "2023-11-14",
    "2023-11-14T22:13:20",
    " 2023-11-14T22:13:20Z",
    "2023-1-14T22:13:20Z",
    "\u0662023-11-14T22:13:20Z",
)


def test_times_have_one_spelling():
    assert date(0) == "1970-01-01T00:00:00Z"
    assert parse_date(date(NOW)) == NOW
    for text in WRONG:
        with pytest.raises(ValueError, match=r"does not match|is not of the form"):
            parse_date(text)

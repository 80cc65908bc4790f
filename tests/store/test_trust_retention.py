import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.errors import Corrupt, NewerFormat, Refused
from pacstore.trust.retention import DAY_SECONDS, MOST, Retain, droppable, lapsed
from pacstore.trust.targets import Withdrawal
from tests.store.trust_world import entry

DAYS_0 = 1_000_000 * DAY_SECONDS


def line(*days, withdrawn=None):
    """Releases 1, 2, ... that were published on those days; `withdrawn`: number of a release to the day."""
    found = []
    for number, day in enumerate(days, 1):
        at = (withdrawn or {}).get(number)
        withdrawal = Withdrawal(DAYS_0 + at * DAY_SECONDS, "bad") if at is not None else None
        release = dataclasses.replace(entry(f"Demo-{number:02}-x"), published=DAYS_0 + day * DAY_SECONDS)
        found.append(dataclasses.replace(release, withdrawal=withdrawal))
    return found


def numbers(releases):
    return sorted(int(release.version) for release in releases)


def lapsed_on(day, releases, rule):
    return numbers(lapsed(releases, Retain.parse(rule), DAYS_0 + day * DAY_SECONDS))


def droppable_on(day, releases, rule, grace=0.0):
    retain = Retain.parse(rule) if rule else None
    return numbers(
        droppable(releases, retain, now=DAYS_0 + day * DAY_SECONDS, grace_seconds=grace * DAY_SECONDS),
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [("10", Retain(10)), ("30d", Retain(days=30)), ("10,30d", Retain(10, 30)), ("30d, 10", Retain(10, 30))],
)
def test_rules_are_written_in_one_way(text, rule):
    assert Retain.parse(text) == rule
    assert Retain.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "0", "0d", "-1", "1.5", "10,10", "30d,5d", "10,30d,", "d", "30 d", "10 releases", "30D", "1e3",
     "010", "\u0661", "9999999", "99999999999", "10\n,x"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(Refused) as caught:
        Retain.parse(text)
    assert "10,30d" in caught.value.hint


@pytest.mark.parametrize(
    "values", [(None, None), (0, None), (None, 0), (-1, 5), (True, None), (MOST + 1, None), (1.0, None)]
)
def test_rules_are_valid_by_construction(values):
    with pytest.raises(Refused):
        Retain(*values)


@pytest.mark.parametrize("rule", [Retain(1), Retain(days=MOST), Retain(7, 90)])
def test_rules_come_back_from_metadata(rule):
    assert Retain.from_fields(json.loads(json.dumps(rule.to_fields())), place="x") == rule


@pytest.mark.parametrize(
    "value",
    [None, {}, [], "10", 10, True, {"releases": 0}, {"releases": None}, {"releases": "10"}, {"releases": True},
     {"releases": 1.5}, {"days": -1}, {"releases": 5, "days": None}, {"days": MOST + 1}, {"days": 10**30}],
)  # fmt: skip
def test_malformed_rules_are_corrupt(value):
    with pytest.raises(Corrupt) as caught:
        Retain.from_fields(value, place="line-Demo")
    assert caught.value.place == "line-Demo"


def test_a_rule_of_another_kind_is_of_a_newer_format():
    """It could keep what the known ones do not: whoever ignored it would drop too much."""
    with pytest.raises(NewerFormat):
        Retain.from_fields({"releases": 1, "tagged": "production"}, place="x")


def test_the_newest_are_kept():
    releases = line(0, 1, 2, 3, 4)
    assert lapsed_on(10_000, releases, "2") == [1, 2, 3]
    assert lapsed_on(10_000, releases, "5") == []
    assert lapsed_on(10_000, releases[::-1], "4") == [1]
    assert lapsed_on(10_000, [], "4") == []


def test_the_youngest_are_kept():
    releases = line(0, 1, 2, 3, 4)
    assert lapsed_on(2.9, releases, "3d") == []
    assert lapsed_on(3, releases, "3d") == [1]
    assert lapsed_on(5.5, releases, "3d") == [1, 2, 3]
    assert lapsed_on(10_000, releases, "3d") == [1, 2, 3, 4, 5]


def test_any_rule_that_keeps_a_release_keeps_it():
    releases = line(0, 1, 2, 3, 4)
    assert lapsed_on(5.5, releases, "1,3d") == [1, 2, 3]
    assert lapsed_on(10_000, releases, "1,3d") == [1, 2, 3, 4]
    assert lapsed_on(5.5, releases, "4,3d") == [1]


def test_withdrawn_releases_do_not_count_among_the_newest():
    releases = line(0, 1, 2, 3, 4, withdrawn={4: 5, 5: 5})
    assert lapsed_on(10_000, releases, "2") == [1]
    assert lapsed_on(10_000, releases, "3") == []
    # They lapse themselves as if they had not been withdrawn.
    assert lapsed_on(10_000, line(0, 1, 2, 3, 4, withdrawn={1: 5}), "2") == [1, 2, 3]


def test_releases_of_one_second_have_an_order_too():
    assert lapsed_on(10_000, line(0, 0, 0), "1") == [1, 2]


def test_clocks_that_were_wrong_at_publication_keep_rather_than_drop():
    assert lapsed_on(0, line(100, 1), "3d") == []


def test_what_was_withdrawn_may_be_dropped_after_the_grace():
    releases = line(0, 1, 2, withdrawn={3: 10})
    assert droppable_on(9.9, releases, None) == []
    assert droppable_on(10, releases, None) == [3]
    assert droppable_on(16.9, releases, None, grace=7) == []
    assert droppable_on(17, releases, None, grace=7) == [3]
    assert droppable_on(17, releases, "9", grace=7) == [3]


def test_what_lapsed_by_age_may_be_dropped_after_the_grace():
    releases = line(0, 5)
    assert droppable_on(30, releases, "30d") == [1]
    assert droppable_on(36.9, releases, "30d", grace=7) == []
    assert droppable_on(37, releases, "30d", grace=7) == [1]


def test_what_was_pushed_out_may_be_dropped_after_the_grace():
    """Release 1 was pushed out by release 3, release 2 by release 4."""
    releases = line(0, 10, 20, 30)
    assert droppable_on(26.9, releases[:3], "2", grace=7) == []
    assert droppable_on(27, releases[:3], "2", grace=7) == [1]
    assert droppable_on(31, releases, "2", grace=7) == [1]
    assert droppable_on(37, releases, "2", grace=7) == [1, 2]
    # By both rules: from when the last of them let it go.
    assert droppable_on(37, releases, "2,33d", grace=7) == []
    assert droppable_on(40, releases, "2,33d", grace=7) == [1]


def test_what_was_dropped_stays_droppable_when_it_is_withdrawn_later():
    releases = line(0, 10, 20, withdrawn={1: 100})
    assert droppable_on(100, releases, "2", grace=7) == [1]


RELEASES = st.lists(st.integers(0, 30), max_size=8).flatmap(
    lambda days: st.dictionaries(st.integers(1, 8), st.integers(0, 40), max_size=3).map(
        lambda withdrawn: line(*days, withdrawn=withdrawn)
    )
)
RULES = st.builds(Retain, st.integers(1, 5), st.none() | st.integers(1, 20)) | st.builds(
    Retain, st.none(), st.integers(1, 20)
)


@given(RELEASES, RULES, st.integers(0, 60))
def test_lapsed_is_what_the_definition_says(releases, retain, day):
    now = DAYS_0 + day * DAY_SECONDS
    releases = [entry for entry in releases if entry.published <= now]
    kept = set()
    for one in releases:
        newer = [e for e in releases if (e.published, e.release) > (one.published, one.release) and not e.withdrawal]
        if retain.releases is not None and len(newer) < retain.releases:
            kept.add(one.release)
        if retain.days is not None and now - one.published < retain.days * DAY_SECONDS:
            kept.add(one.release)
    assert lapsed(releases, retain, now) == {one.release for one in releases} - kept


@given(RELEASES, RULES, st.integers(0, 60), st.integers(0, 20), st.integers(0, 20))
def test_time_only_adds_to_what_may_be_dropped(releases, retain, day, later, grace):
    def found(day, grace):
        return droppable(releases, retain, now=DAYS_0 + day * DAY_SECONDS, grace_seconds=grace * DAY_SECONDS)

    assert found(day, grace) <= found(day + later, grace) <= found(day + later, 0)
    withdrawn = {e.release for e in releases if e.withdrawal}
    assert found(day, 0) <= lapsed(releases, retain, DAYS_0 + day * DAY_SECONDS) | withdrawn

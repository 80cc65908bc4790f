"""What an agent is told by a real Rucio of its RSE, and tells it."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest

from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue
from pacmirror.delivery.rucio.naming import Did
from pacmirror.delivery.rucio.rse import Beat, Rse, RucioAway
from pacstore.errors import NotFound, Refused
from tests.peers.rucio.rses import SCOPE, add_rse, catalogue_of, end_rule, pack_names

pytestmark = pytest.mark.peers
_NUMBERS = itertools.count()


@pytest.fixture
def place(rucio, tmp_path, monkeypatch):
    """A catalogue, and two RSEs of this test alone: three packs in one dataset, the last two and one more in another."""
    number = next(_NUMBERS)
    catalogue = catalogue_of(rucio)
    origin, site = (f"RSE{number}-{name}" for name in ("ORIGIN", "SITE"))
    for rse in (origin, site):
        add_rse(catalogue.client, rse)
    names = pack_names(4, seed=number)
    catalogue.client.add_replicas(
        origin, [{"scope": SCOPE, "name": n, "bytes": 10, "adler32": "0" * 8, "md5": "0" * 32} for n in names]
    )
    dids = [Did(SCOPE, f"sw.Demo-1.{number}-x86_64.b3-{'0' * 16}.p{n}") for n in (1, 2)]
    for did, files in zip(dids, (names[:3], names[1:]), strict=True):
        catalogue.client.add_dataset(SCOPE, did.name)
        catalogue.client.add_files_to_dataset(SCOPE, did.name, [{"scope": SCOPE, "name": n} for n in files])
        catalogue.client.close(SCOPE, did.name)
    return catalogue, Rse(catalogue, site, SCOPE), dids, names


def _rule(catalogue, did, rse, **options):
    return catalogue.client.add_replication_rule([did.fields()], 1, rse, **options)[0]


def _states(rse, did):
    return {name: file.state for name, file in rse.files(did).items()}


def test_what_rules_want_is_listed_and_fulfilled_file_by_file(place):
    catalogue, rse, (did, other), names = place
    assert rse.wanted() == {}
    assert set(_states(rse, did).values()) == {""}
    rule = _rule(catalogue, did, rse.name)
    wanted = rse.wanted()[did]
    assert (wanted.rules, wanted.is_ok) == ((rule,), False)
    assert set(_states(rse, did).values()) == {"COPYING"}
    rse.report(names[:1])
    rse.report(names[:1])
    assert not rse.wanted()[did].is_ok
    assert sorted(_states(rse, did).values()) == ["AVAILABLE", "COPYING", "COPYING"]
    rse.report(names[1:3])
    assert rse.wanted()[did].is_ok
    # The second one needs only what the first has not brought.
    _rule(catalogue, other, rse.name)
    assert [name for name, state in _states(rse, other).items() if state != "AVAILABLE"] == names[3:]


def test_what_nobody_wants_is_withdrawn_and_what_others_want_stays(place, rucio):
    catalogue, rse, (did, other), names = place
    rules = [_rule(catalogue, one, rse.name) for one in (did, other)]
    rse.report(names)
    # As long as a rule holds them, Rucio itself says no.
    held = rse.withdraw(names[:3])
    assert (held.gone, held.wanted, held.unknown) == ((), tuple(names[:3]), ())
    end_rule(rucio, catalogue.client, rules[0])
    assert set(rse.wanted()) == {other}
    done = rse.withdraw([*names[:3], "0" * 64 + ".pack"])
    assert (done.gone, done.wanted, done.unknown) == ((names[0],), tuple(names[1:3]), ("0" * 64 + ".pack",))
    assert rse.withdraw(names[:1]).gone == (names[0],)
    assert _states(rse, did) == {names[0]: "UNAVAILABLE", names[1]: "AVAILABLE", names[2]: "AVAILABLE"}
    assert rse.wanted()[other].is_ok
    # Wanted again, it is fetched again.
    _rule(catalogue, did, rse.name)
    assert _states(rse, did)[names[0]] == "COPYING"
    rse.report(names[:1])
    assert rse.wanted()[did].is_ok


def test_damage_is_declared_and_taken_back(place):
    catalogue, rse, (did, _), names = place
    _rule(catalogue, did, rse.name)
    rse.report(names[:3])
    rse.declare_bad(names[:1], "the scrub found it damaged")
    rse.declare_bad(names[:1], "the scrub found it damaged")
    assert _states(rse, did)[names[0]] == "BAD"
    rse.report(names[:1])
    assert _states(rse, did)[names[0]] == "AVAILABLE"


def test_datasets_of_other_scopes_and_with_slashes_are_passed_over(place):
    catalogue, rse, (did, _), _names = place
    with contextlib.suppress(Exception):
        catalogue.client.add_scope("root", "elsewhere")
    for scope, name in ((SCOPE, f"user/{did.name}"), ("elsewhere", did.name)):
        catalogue.client.add_dataset(scope, name)
        catalogue.client.add_replication_rule([{"scope": scope, "name": name}], 1, rse.name)
    assert rse.wanted() == {}


def test_a_comment_says_why_and_those_of_people_stay(place):
    catalogue, rse, (did, other), _ = place
    ours, theirs = _rule(catalogue, did, rse.name), _rule(catalogue, other, rse.name, comment="for the reprocessing")
    rse.comment([ours, theirs, "0" * 32], "is of another catalog " + "\x1b" + "x" * 500)
    shown = [catalogue.client.get_replication_rule(rule)["comments"] for rule in (ours, theirs)]
    assert shown[0].startswith("pacball: is of another catalog \\x1bxxx")
    assert shown[1] == "for the reprocessing"
    rse.comment([ours], "")
    assert not catalogue.client.get_replication_rule(ours)["comments"]


def test_agents_see_each_others_heartbeats(place):
    _, rse, *_ = place
    for host in ("one.example", "two.example"):
        rse.beat(Beat(rse.name, "aa", 60.0, host, 7), forget_seconds=600)
    found = [row for row in rse.beats() if json.loads(row["payload"])["rse"] == rse.name]
    assert {row["hostname"] for row in found} == {"one.example", "two.example"}
    assert all(json.loads(row["payload"])["store"] == "aa" for row in found)


def test_absent_is_not_unknown(place, rucio):
    catalogue, rse, *_ = place
    with pytest.raises(NotFound, match=r"NO-SUCH-RSE.*rucio rse list"):
        Rse(catalogue, "NO-SUCH-RSE", SCOPE).wanted()
    with pytest.raises(NotFound, match=r"sw\.Nothing"):
        rse.files(Did(SCOPE, "sw.Nothing"))
    impatient = RucioCatalogue(catalogue.client, Patience(attempts=2, pause_seconds=0.0), pause=lambda _: None)
    rucio.stop()
    try:
        asked = Rse(impatient, rse.name, SCOPE)
        for ask in (asked.wanted, lambda: asked.files(Did(SCOPE, "sw.Nothing")), lambda: asked.withdraw(["x.pack"])):
            with pytest.raises(RucioAway):
                ask()
    finally:
        rucio.start()
    assert rse.wanted() == {}


def test_who_may_not_is_told_what_to_do(place, rucio):
    _, rse, *_ = place
    stranger = catalogue_of(rucio, account="stranger")
    with pytest.raises(Refused, match="account stranger"):
        Rse(stranger, rse.name, SCOPE).report(["0" * 64 + ".pack"])
    with pytest.raises(Refused, match="account stranger"):
        Rse(stranger, rse.name, SCOPE).beats()

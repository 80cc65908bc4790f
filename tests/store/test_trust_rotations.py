"""Keys come and go: clients that slept through it all follow, thieves of the online key get nowhere, lost versions come back."""

import pytest

from pacstore.errors import Refused, Untrusted
from pacstore.release import Release
from pacstore.trust import chain
from pacstore.trust.change import MOST_VERSIONS
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.store.trust_world import (
    DAY,
    NOW,
    RELEASE,
    Crash,
    HookedStorage,
    Office,
    World,
    crash,
    document,
    entry,
    followers,
    releases_of,
)

LINE, PLACEMENT = "line-AtlasOffline", "placement-AtlasOffline"
ROLES = ("root", "targets", LINE, "online")
NEWER = "AtlasOffline-18-any"


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    releases_of(world.storage.files, world.state)
    return world


def renew_keys(world: World, number: int) -> None:
    """Another key for every role, and the old ones are gone for ever."""
    for role in ROLES:
        old = f"{role}-{number - 1}" if number > 1 else role
        new = world.keys.create(f"{role}-{number}")
        world.catalog.rotate(role, world.keys, now=NOW, add=[new], remove=[world.keys.public(old).keyid])
    world.lose(*[f"{role}-{number - 1}" if number > 1 else role for role in ROLES])


def test_clients_that_slept_through_three_changes_of_every_key_follow(world, tmp_path):
    for number in (1, 2, 3):
        renew_keys(world, number)
    world.publish(NEWER)
    assert world.catalog.status().root_version == 10
    assert followers(world, tmp_path) == [[RELEASE, NEWER]] * 3
    assert {keyid for role in world.catalog.status().roles for keyid in role.keyids} == {
        world.keys.public(f"{role}-3").keyid for role in ROLES
    }


def test_clients_follow_each_change_of_each_key(world, tmp_path):
    for number in (1, 2):
        for role in ROLES:
            old = role if number == 1 else f"{role}-{number - 1}"
            new = world.keys.create(f"{role}-{number}")
            world.catalog.rotate(role, world.keys, now=NOW, add=[new], remove=[world.keys.public(old).keyid])
            assert followers(world, tmp_path / f"{number}{role}") == [[RELEASE]] * 3


def test_a_root_of_several_whose_holders_all_change(tmp_path):
    office = Office(tmp_path).begin("Atlas-1-x86")
    client = tmp_path / "client"
    releases_of(office.storage.files, client)
    for gone, come in (("ann", "ann2"), ("bob", "bob2"), ("cid", "cid2")):
        office.catalog.rotate("root", office.origin, now=NOW, add=office.keys(come).keys, remove=[office.keyid(gone)])
        # The old ones as well as the new ones agree, by two of three each.
        signers = [name for name in ("ann", "bob", "cid", "ann2", "bob2", "cid2") if name in (gone, come)]
        assert office.carry(*signers).committed == ()
        others = {"ann": "bob", "bob": "cid", "cid": "ann2"}[gone]
        assert office.carry(others).committed == ("root",)
        assert releases_of(office.storage.files, client) == ["Atlas-1-x86"]
    assert office.catalog.status().roles[0].keyids == tuple(sorted(map(office.keyid, ("ann2", "bob2", "cid2"))))
    assert office.releases() == ["Atlas-1-x86"]


def test_the_whole_life_of_a_catalog_whose_people_have_no_store(tmp_path):
    office = Office(tmp_path).begin("Atlas-1-x86", "Atlas-2-x86")
    catalog, client = office.catalog, tmp_path / "client"

    def sees(*names: str) -> None:
        assert releases_of(office.storage.files, client) == list(names) == office.releases()
        assert catalog.status().waiting == ()

    sees("Atlas-1-x86", "Atlas-2-x86")
    one, two = map(Release.parse, ("Atlas-1-x86", "Atlas-2-x86"))
    catalog.withdraw(one, Withdrawal(int(NOW), "wrong calibration", two), office.origin, now=NOW)
    catalog.keep("Atlas", Retain(releases=5), office.origin, now=NOW)
    catalog.attach(two, document("provenance"), office.origin, now=NOW)
    assert office.carry("gus", "hal").committed == ("line-Atlas",)
    sees("Atlas-1-x86", "Atlas-2-x86")
    assert catalog.release(one).withdrawal.replaced_by == two
    assert catalog.release(two).provenance == document("provenance")
    catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    catalog.publish(entry("Zebra-1-x86"), office.origin, now=NOW, sign_later=True)
    assert office.carry("zoe", "dan", "eve").committed == ("line-Zebra", "targets")
    sees("Atlas-1-x86", "Atlas-2-x86", "Zebra-1-x86")
    catalog.revoke(office.keyid("dan"), office.keys("dora").keys[0], office.origin, now=NOW)
    assert office.carry("ann", "cid", "eve").committed == ()
    assert office.carry("dora").committed == ("root", "targets")
    catalog.revoke(office.keyid("hal"), None, office.origin, now=NOW)
    # What hal and gus have signed needs another signature than hal's.
    assert office.carry("dora", "eve").committed == ()
    assert office.carry("fay", "gus").committed == ("line-Atlas", "targets")
    new = office.origin.create("online-2")
    catalog.revoke(office.online.keyid, new, office.origin, now=NOW)
    assert office.carry("ann", "bob", "dora").committed == ()
    assert office.carry("eve").committed == ("root", "targets")
    sees("Atlas-1-x86", "Atlas-2-x86", "Zebra-1-x86")
    catalog.republish(office.origin, now=NOW, above=500)
    assert office.carry("dora", "eve", "fay", "zoe").version < 500
    assert office.carry("gus").version == 501
    office.publish("Atlas-3-x86")
    office.carry("fay", "gus")
    sees("Atlas-1-x86", "Atlas-2-x86", "Atlas-3-x86", "Zebra-1-x86")


# After a restored backup: higher versions than clients have seen.


@pytest.fixture
def restored(world, tmp_path):
    """A store as it was before three releases, all of which its clients have seen."""
    backup = world.twin(tmp_path / "backup")
    for n in (1, 2, 3):
        world.publish(f"AtlasOffline-9{n}-any")
    releases_of(world.storage.files, world.state)
    backup.state = world.state
    with pytest.raises(Untrusted, match="rolled back"):
        releases_of(backup.storage.files, backup.state)
    return backup


def test_clients_that_saw_later_versions_follow_what_is_republished(restored, tmp_path):
    outcome = restored.catalog.republish(restored.keys, now=NOW, above=100)
    assert (outcome.version, outcome.committed) == (101, (LINE, "targets"))
    assert followers(restored, tmp_path) == [[RELEASE]] * 3
    versions = {role.role: role.version for role in restored.catalog.status().roles}
    assert versions == {"root": 1, **dict.fromkeys(("targets", "snapshot", "timestamp", LINE, PLACEMENT), 101)}
    # It goes on from there, and a second time from where that has come to.
    restored.publish(NEWER)
    restored.catalog.refresh(restored.keys, now=NOW + DAY)
    assert restored.catalog.version == 103
    assert restored.catalog.republish(restored.keys, now=NOW, above=103).version == 104
    assert followers(restored, tmp_path) == [[RELEASE, NEWER]] * 3


def test_a_line_that_is_as_clients_know_it_is_kept(world, tmp_path):
    world.publish("Zebra-1-any")
    backup = world.twin(tmp_path / "backup")
    world.publish("Zebra-2-any")
    releases_of(world.storage.files, world.state)
    backup.state = world.state
    backup.lose(LINE)
    outcome = backup.catalog.republish(backup.keys, now=NOW, above=50, keep=[LINE])
    assert outcome.committed == ("line-Zebra", "targets")
    assert followers(backup, tmp_path) == [[RELEASE, "Zebra-1-any"]] * 3
    versions = {role.role: role.version for role in backup.catalog.status().roles}
    assert (versions[LINE], versions[PLACEMENT], versions["line-Zebra"]) == (1, 51, 51)


def test_who_cannot_sign_every_line_waits_for_the_others(restored, tmp_path):
    before = dict(restored.storage.files)
    restored.lose(LINE)
    outcome = restored.catalog.republish(restored.keys, now=NOW, above=100)
    assert {one.role: (one.version, one.missing) for one in outcome.waiting} == {LINE: (101, 1), "targets": (101, 0)}
    # Neither a refresh nor anything else commits a part of it.
    restored.catalog.refresh(restored.keys, now=NOW + DAY)
    assert restored.catalog.version == 3
    assert restored.catalog.publish(entry(NEWER), restored.keys, now=NOW, sign_later=True).committed == ()
    assert {path for path in restored.storage.files if path not in before} == {"catalog/3.timestamp.json"}
    assert restored.catalog.drop([LINE]) == (LINE,)
    assert restored.catalog.refresh(restored.keys, now=NOW + DAY).version == 101


@pytest.mark.parametrize(
    ("above", "keep", "message"),
    [
        (1, (), "the catalog has version 2 already"),
        (-5, (), "the catalog has version 2 already"),
        (MOST_VERSIONS, (), "more than any catalog counts to"),
        (1 << 62, (), "more than any catalog counts to"),
        (100, ("AtlasOffline",), "is no line of this catalog"),
        (100, ("line-Zebra",), "is no line of this catalog"),
        (100, ("targets",), "is no line of this catalog"),
    ],
)
def test_what_cannot_be_republished_is_refused(world, above, keep, message):
    before = world.copy()
    with pytest.raises(Refused, match=message) as caught:
        world.catalog.republish(world.keys, now=NOW, above=above, keep=keep)
    assert caught.value.place
    assert world.storage.files == before


def test_republishing_above_what_is_there_is_the_least(world):
    assert world.catalog.republish(world.keys, now=NOW, above=world.catalog.version).version == 3


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_inside_is_made_good_by_the_same_command(restored, tmp_path, after):
    for n in range(20):
        world = restored.twin(tmp_path / f"{n}")
        hooked = HookedStorage(world.storage, n, crash, after=after)
        world.catalog = type(world.catalog)(hooked, world.drafts)
        try:
            world.catalog.republish(world.keys, now=NOW, above=100)
        except Crash:
            whole = restored.twin(tmp_path / f"{n}whole")
            whole.storage.files.update(world.storage.files)
            if chain.load_head(whole.storage).timestamp.version < 100:
                with pytest.raises(Untrusted, match="rolled back"):
                    releases_of(whole.storage.files, whole.state)
                whole.catalog.republish(whole.keys, now=NOW, above=100)
            whole.catalog.refresh(whole.keys, now=NOW)
            assert releases_of(whole.storage.files, whole.state) == [RELEASE]
            assert whole.catalog.version in (101, 102)
            continue
        assert n == hooked.calls == 6
        return
    raise AssertionError


def test_who_publishes_while_another_republishes_loses_nothing(restored, tmp_path):
    """Both want the name after the newest version, however far the one of them goes."""
    mine = restored.twin(tmp_path / "mine")
    hooked = HookedStorage(mine.storage, 4, lambda: mine.publish(NEWER))
    outcome = type(mine.catalog)(hooked, mine.drafts).republish(mine.keys, now=NOW, above=100)
    assert outcome.version == 101
    assert followers(mine, tmp_path) == [[RELEASE, NEWER]] * 3

import dataclasses
import json

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.release import Release
from pacstore.storage import DocumentKind
from pacstore.trust.ceremony import Founding, Keys
from pacstore.trust.client import open_catalog
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog, create
from tests.store.trust_world import DAY, NOW, RELEASE, Crash, HookedStorage, MemorySource, World, crash, document, entry

OTHER = "AtlasOffline-17.2.1-x86_64-slc6-gcc46-opt"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def names(files) -> set[str]:
    return {path.removeprefix("catalog/") for path in files}


def test_the_files_are_those_of_the_format(world):
    assert names(world.storage.files) >= {
        "timestamp.json",
        "1.root.json",
        "1.targets.json",
        "2.targets.json",
        "2.snapshot.json",
        "1.line-AtlasOffline.json",
        "1.placement-AtlasOffline.json",
    }
    targets = json.loads(world.storage.files["catalog/2.targets.json"])["signed"]
    assert targets["targets"] == {}
    roles = targets["delegations"]["roles"]
    assert [role["name"] for role in roles] == ["placement-AtlasOffline", "line-AtlasOffline"]
    assert [role["paths"] for role in roles] == [["releases/AtlasOffline/*/placement"], ["releases/AtlasOffline/*/*"]]
    assert all(role["terminating"] for role in roles)
    line = json.loads(world.storage.files["catalog/1.line-AtlasOffline.json"])["signed"]["targets"]
    manifest = line[f"releases/AtlasOffline/{RELEASE}/manifest"]
    assert manifest["custom"]["published"] == "2023-11-14T22:13:20Z"
    assert set(manifest["hashes"]) == {"sha256"}


def test_a_new_line_gets_a_key_of_its_own(tmp_path):
    keys = KeyRing(tmp_path / "keys")
    catalog = create(MemoryStorage(), keys, now=NOW)
    first = catalog.publish(entry(), keys, now=NOW)
    assert first.changed
    assert first.committed == ("line-AtlasOffline", "targets")
    assert keys.names() == ["line-AtlasOffline", "online", "root", "targets"]
    second = catalog.publish(entry(OTHER), keys, now=NOW)
    assert (second.committed, second.version) == (("line-AtlasOffline",), first.version + 1)
    assert second.waiting == ()


def test_the_same_tree_again_changes_nothing(world):
    before = world.copy()
    again = dataclasses.replace(entry(), published=int(NOW) + 99)
    assert not world.catalog.publish(again, world.keys, now=NOW + 99).changed
    assert world.storage.files == before


def test_another_tree_under_the_same_name_is_refused(world):
    before = world.copy()
    with pytest.raises(Refused, match="bound for ever"):
        world.catalog.publish(entry(tree="another"), world.keys, now=NOW)
    assert world.storage.files == before


@pytest.mark.parametrize("name", [RELEASE.replace("slc6", "SLC6"), RELEASE.replace("Atlas", "ATLAS")])
def test_names_that_differ_in_case_only_are_refused(world, name):
    before = world.copy()
    with pytest.raises(Refused, match="differs only in case"):
        world.publish(name)
    assert world.storage.files == before
    assert "line-ATLASOffline" not in world.keys.names()


@pytest.mark.parametrize(
    "change",
    [
        {"total_bytes": -1},
        {"files": 1 << 63},
        {"placement_number": 0},
        {"published": 10**15},
        {"manifest": dataclasses.replace(document("x"), length=-1)},
        {"placement": dataclasses.replace(document("x"), sha256=b"short")},
    ],
)
def test_values_that_a_catalog_cannot_carry_are_refused(world, change):
    before = world.copy()
    with pytest.raises(Refused, match="cannot carry"):
        world.catalog.publish(dataclasses.replace(entry(OTHER), **change), world.keys, now=NOW)
    assert world.storage.files == before


def test_open_and_create_know_whether_there_is_a_catalog(world):
    with pytest.raises(NotFound, match="no catalog"):
        Catalog.open(MemoryStorage())
    with pytest.raises(Refused, match="already"):
        create(world.storage, world.keys, now=NOW)
    again = Catalog.open(world.storage)
    assert again.catalog_id == world.catalog.catalog_id
    assert len(again.catalog_id) == 16
    assert again.releases() == [entry()]
    assert again.release(Release.parse(OTHER)) is None


def test_releases_of_all_lines_are_listed_in_order(world):
    world.publish("Zebra-1-any")
    world.publish(OTHER)
    assert [str(e.release) for e in world.catalog.releases()] == [RELEASE, OTHER, "Zebra-1-any"]


def test_a_missing_targets_key_stops_a_new_line_before_anything_is_made(world):
    world.lose("targets")
    before = world.copy()
    with pytest.raises(Refused, match="no such line"):
        world.publish("Zebra-1-any")
    assert "line-Zebra" not in world.keys.names()
    assert world.storage.files == before
    assert world.publish(OTHER).changed


def test_keys_that_are_not_the_catalogs_are_refused(world, tmp_path):
    strangers = KeyRing(tmp_path / "strangers")
    for name in ("online", "line-AtlasOffline"):
        strangers.create(name)
    before = world.copy()
    with pytest.raises(NotFound, match="no key of this line is here"):
        world.catalog.publish(entry(OTHER), strangers, now=NOW)
    with pytest.raises(Refused, match="needs 1 of the keys that the catalog trusts for it, here are 0"):
        world.catalog.refresh(strangers, now=NOW)
    assert world.storage.files == before


def test_thresholds_that_the_keys_cannot_meet_are_refused_before_anything_is_written(tmp_path):
    storage = MemoryStorage()
    keys = KeyRing(tmp_path / "keys")
    one, two = (Keys((keys.create(name),), threshold) for name, threshold in (("one", 1), ("two", 2)))
    with pytest.raises(Refused, match="2 of 1 keys cannot be asked for"):
        Catalog(storage).found(Founding(two, one, one), keys, now=NOW)
    assert storage.files == {}


def test_a_placement_is_replaced_with_the_online_key_alone(world):
    world.lose("root", "targets", "line-AtlasOffline")
    name = Release.parse(RELEASE)
    assert world.catalog.replace_placements({name: (document("second"), 2)}, world.keys, now=NOW)
    assert not world.catalog.replace_placements({name: (document("second"), 2)}, world.keys, now=NOW)
    expected = dataclasses.replace(entry(), placement=document("second"), placement_number=2)
    assert world.catalog.release(name) == expected
    assert world.open().release(name) == expected
    for number in (1, 2):
        with pytest.raises(Refused, match="higher"):
            world.catalog.replace_placements({name: (document("third"), number)}, world.keys, now=NOW)
    with pytest.raises(Refused, match="not in the catalog"):
        world.catalog.replace_placements({Release.parse(OTHER): (document("x"), 2)}, world.keys, now=NOW)


def test_refresh_prolongs_what_the_online_key_signs(world):
    world.lose("root")
    before = world.catalog.expiries()
    version = world.catalog.refresh(world.keys, now=NOW + DAY).version
    assert version == world.catalog.version
    after = world.catalog.expiries()
    assert {role for role in after if after[role] > before[role]} == {"timestamp"}
    world.catalog.refresh(world.keys, now=NOW + 20 * DAY)
    later = world.catalog.expiries()
    assert {role for role in later if later[role] > before[role]} == {"timestamp", "snapshot", "placement-AtlasOffline"}
    assert world.open(now=NOW + 49 * DAY).releases() == [entry()]


def test_renew_prolongs_what_the_keys_here_sign(world):
    done = world.catalog.renew(["root", "line-AtlasOffline"], world.keys, now=NOW + 300 * DAY)
    assert done.committed == ("line-AtlasOffline", "root")
    expiries = world.catalog.expiries()
    assert expiries["root"] == expiries["line-AtlasOffline"] == NOW + 665 * DAY
    assert expiries["targets"] == NOW + 365 * DAY
    assert world.open(now=NOW + 301 * DAY).root_version == 2


def test_lifetimes_are_configurable(tmp_path):
    keys, storage = KeyRing(tmp_path / "keys"), MemoryStorage()
    catalog = create(storage, keys, now=NOW, expiry=Expiry(timestamp=2, snapshot=14))
    expiries = catalog.expiries()
    assert (expiries["timestamp"], expiries["snapshot"]) == (NOW + 2 * DAY, NOW + 14 * DAY)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_of_create_can_be_finished(tmp_path, after):
    for n in range(100):
        keys, storage = KeyRing(tmp_path / f"keys{n}"), MemoryStorage()
        hooked = HookedStorage(storage, n, crash, after=after)
        try:
            create(hooked, keys, now=NOW)
        except Crash:
            root = storage.files.get("catalog/1.root.json")
            if "catalog/timestamp.json" not in storage.files:
                catalog = create(storage, keys, now=NOW)
                assert root in (None, catalog.root_bytes)
            catalog = Catalog.open(storage)
            assert catalog.publish(entry(), keys, now=NOW).changed
            continue
        assert n == hooked.calls == 5
        return
    raise AssertionError


def test_the_remains_of_a_creation_with_other_keys_are_refused(tmp_path):
    storage = MemoryStorage()
    with pytest.raises(Crash):
        create(HookedStorage(storage, 1, crash), KeyRing(tmp_path / "a"), now=NOW)
    with pytest.raises(Refused, match="other keys"):
        create(storage, KeyRing(tmp_path / "b"), now=NOW)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", [OTHER, "Zebra-1-any"])
def test_a_crash_at_any_write_of_publish_leaves_the_old_or_the_new_catalog(tmp_path, name, after):
    root = tmp_path / "world"
    for n in range(100):
        world = World(root / str(n))
        hooked = HookedStorage(world.storage, n, crash, after=after)
        try:
            Catalog.open(hooked).publish(entry(name), world.keys, now=NOW)
        except Crash:
            seen = world.open().releases()
            assert seen in ([entry()], [entry(), entry(name)])
            world.publish(name)
            assert world.open().releases() == [entry(), entry(name)]
            world.publish("Last-1-any")
            assert len(world.open().releases()) == 3
            continue
        assert n == hooked.calls == (5 if name == OTHER else 6)
        return
    raise AssertionError


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "names", [(OTHER, "AtlasOffline-18-any"), (OTHER, "Zebra-1-any"), ("Zebra-1-any", "Zebra-2-any")]
)
def test_two_publishers_at_once_lose_nothing(tmp_path, names, after):
    mine, theirs = names
    for n in range(100):
        world = World(tmp_path / str(n))
        hooked = HookedStorage(world.storage, n, lambda world=world: world.publish(theirs), after=after)
        assert Catalog.open(hooked).publish(entry(mine), world.keys, now=NOW).changed
        if hooked.calls <= n:
            return
        found = {str(e.release) for e in world.open().releases()}
        assert found == {RELEASE, mine, theirs}
        # Readers saw versions grow only: nothing older may stay in the end.
        assert world.open().version == world.catalog.version
    raise AssertionError


def test_of_two_publishers_of_one_name_the_second_is_refused(tmp_path):
    for n in range(4):
        world = World(tmp_path / str(n))
        theirs = entry(OTHER, tree="theirs")
        hooked = HookedStorage(
            world.storage, n, lambda world=world, theirs=theirs: world.catalog.publish(theirs, world.keys, now=NOW)
        )
        with pytest.raises(Refused, match="bound for ever"):
            Catalog.open(hooked).publish(entry(OTHER, tree="mine"), world.keys, now=NOW)
        assert world.open().release(theirs.release) == theirs


def test_the_origin_does_not_sign_over_damage(world):
    for path in [path for path in world.storage.files if "line" in path or "placement" in path]:
        damaged = MemoryStorage()
        damaged.files = world.copy()
        damaged.files[path] = (
            damaged.files[path].replace(b'"files":1000', b'"files":1001').replace(b'"number":1', b'"number":2')
        )
        with pytest.raises(Corrupt) as caught:
            Catalog.open(damaged).publish(entry(OTHER), world.keys, now=NOW)
        assert caught.value.place == path


def test_a_storage_that_refuses_all_writes_says_so(world):
    class ReadOnly(HookedStorage):
        def create(self, kind, name, data):
            raise Refused("this store is read-only")

    with pytest.raises(Refused, match="read-only"):
        Catalog.open(ReadOnly(world.storage, -1, crash)).publish(entry(OTHER), world.keys, now=NOW)


def test_clients_follow_each_of_many_publications(world, tmp_path):
    for n in range(10):
        world.publish(f"AtlasOffline-18.{n}-any")
        catalog = open_catalog(
            MemorySource(world.storage.files), root=world.catalog.root_bytes, state_dir=tmp_path / "client", now=NOW
        )
        assert len(catalog.releases()) == n + 2
    assert f"{world.catalog.version}.timestamp.json" in set(world.storage.names(DocumentKind.CATALOG))


@pytest.mark.parametrize("after", [False, True])
def test_other_changes_at_once_lose_nothing_either(tmp_path, after):
    name = Release.parse(RELEASE)
    changes = {
        "refresh": lambda catalog, keys: catalog.refresh(keys, now=NOW + DAY),
        "replace": lambda catalog, keys: catalog.replace_placements({name: (document("second"), 2)}, keys, now=NOW),
    }
    for change, calls in (("refresh", 2), ("replace", 4)):
        for n in range(calls):
            world = World(tmp_path / f"{change}{n}")
            hooked = HookedStorage(world.storage, n, lambda world=world: world.publish(OTHER), after=after)
            assert changes[change](Catalog.open(hooked), world.keys)
            catalog = world.open()
            assert catalog.version == world.catalog.version
            assert len(catalog.releases()) == 2
            if change == "refresh":
                assert world.catalog.expiries()["timestamp"] >= NOW + 30 * DAY
            else:
                assert catalog.release(name).placement_number == 2

"""A copy of a catalog that is never wrong, never older, and whole at any moment, whatever the upstream or the power does."""

from __future__ import annotations

import copy
import itertools
import json

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable, Untrusted
from pacstore.trust.incoming import StoreFailed
from pacstore.trust.metadata import TIMESTAMP_NAME
from pacstore.trust.replica import Outcome, Replica, ReplicaLimits
from pacstore.trust.served import Verifier
from pacstore.trust.superseded import Superseded
from tests.store.signed_catalog import SignedCatalog, flipped
from tests.store.trust_world import MemorySource

NOW = 1_800_000_000.0
STAMP = "catalog/timestamp.json"
SECOND = "2.line-Alpha.json"


class Storage(MemoryStorage):
    """Notes what is written, and is interrupted before the write of that number."""

    def __init__(self, files=()):
        super().__init__()
        self.files = dict(files)
        self.written = []
        self.fails_at = None
        self.error = None

    def put(self, kind, name, data):
        if self.fails_at == len(self.written):
            raise self.error or KeyboardInterrupt
        self.written.append(name)
        super().put(kind, name, data)


@pytest.fixture
def catalog():
    return SignedCatalog("Alpha", "Beta", now=NOW)


def source_of(catalog, **changes):
    source = MemorySource({**catalog.files, **changes})
    source.name = "https://origin.example/store"
    return source


def replica_of(storage, *, pinned=None, **options):
    replica = Replica(storage, pinned=pinned, clock=lambda: NOW, **options)
    replica.load()
    return replica


def copied(catalog, storage=None):
    storage = storage or Storage()
    replica = replica_of(storage)
    assert replica.refresh(source_of(catalog)).outcome is Outcome.NEWER
    storage.written.clear()
    return storage, replica


def names(source):
    return [path.removeprefix("catalog/") for path in source.asked]


def test_everything_is_copied_unchanged_and_the_timestamp_comes_last(catalog):
    catalog.commit("line-Alpha")
    catalog.write_root()
    catalog.commit()
    storage = Storage()
    replica = replica_of(storage)
    assert replica.held is None
    source = source_of(catalog)
    look = replica.refresh(source)
    assert (look.outcome, look.version) == (Outcome.NEWER, catalog.version)
    assert replica.held.timestamp == catalog.stamp
    wanted = {f"catalog/{name}" for name in (*replica.named(), "1.root.json", "2.root.json", TIMESTAMP_NAME)}
    assert storage.files == {path: catalog.files[path] for path in wanted}
    assert storage.written[-5:] == ["1.targets.json", "3.snapshot.json", "1.root.json", "2.root.json", TIMESTAMP_NAME]
    assert {name.split(".")[1] for name in storage.written[:-5]} == set(catalog.signed) - {"targets", "snapshot"}
    # A server may serve what clients would accept.
    assert Verifier(storage).verify(storage.files[STAMP]) == replica.held


def test_only_what_changed_is_fetched_and_written(catalog):
    storage, replica = copied(catalog)
    source = source_of(catalog)
    assert replica.refresh(source).outcome is Outcome.SAME
    assert names(source) == [TIMESTAMP_NAME, "2.root.json"]
    catalog.commit("line-Alpha")
    source = source_of(catalog)
    assert replica.refresh(source).outcome is Outcome.NEWER
    assert names(source) == [TIMESTAMP_NAME, "2.root.json", "2.snapshot.json", SECOND]
    assert storage.written == [SECOND, "2.snapshot.json", TIMESTAMP_NAME]
    catalog.stamp_again()
    source = source_of(catalog)
    assert replica.refresh(source).outcome is Outcome.NEWER
    assert names(source) == [TIMESTAMP_NAME, "2.root.json"]


def test_after_a_restart_nothing_is_fetched_that_is_here(catalog):
    storage, _ = copied(catalog)
    replica = replica_of(storage)
    assert replica.held.timestamp == catalog.stamp
    source = source_of(catalog)
    assert replica.refresh(source).outcome is Outcome.SAME
    assert names(source) == [TIMESTAMP_NAME, "2.root.json"]
    assert storage.written == []


def test_an_expired_catalog_is_passed_on_since_clients_judge_that(catalog):
    catalog.now = 0.0
    catalog.commit("line-Alpha")
    _, replica = copied(catalog)
    assert replica.held.expires["timestamp"] < NOW


def test_a_withdrawal_is_passed_on_zot_3102(catalog):
    catalog.fill("Alpha", 2)
    catalog.commit("line-Alpha", "placement-Alpha")
    storage, replica = copied(catalog)
    path = next(
        path for path in catalog.signed["line-Alpha"].targets if path.endswith("Alpha-1-x86_64-slc6-gcc46-opt/manifest")
    )
    custom = catalog.signed["line-Alpha"].targets[path].unrecognized_fields["custom"]
    custom["withdrawn"] = {"at": "2026-01-02T00:00:00Z", "reason": "wrong results"}
    catalog.commit("line-Alpha")
    replica.refresh(source_of(catalog))
    assert b"wrong results" in storage.files[catalog.path("line-Alpha")]


# Killed and failing


def test_killed_at_any_write_the_old_state_stays_and_the_next_run_goes_on(catalog):
    old = catalog.copy()
    catalog.commit("line-Alpha", "line-Beta")
    catalog.write_root()
    catalog.commit("targets")
    for at in itertools.count():
        storage, _ = copied(old)
        storage.fails_at = at
        replica = replica_of(storage)
        first = source_of(catalog)
        try:
            replica.refresh(first)
        except KeyboardInterrupt:
            # What readers have until then is the old state, and it verifies.
            assert storage.files[STAMP] == old.stamp
            if "catalog/2.root.json" not in storage.files:
                assert Verifier(storage).verify(old.stamp)
        else:
            assert at == 6  # two lines, targets, the newest snapshot, a root, the timestamp
            break
        storage.fails_at = None
        again, second = replica_of(storage), source_of(catalog)
        before = set(storage.files)
        assert again.refresh(second).outcome is Outcome.NEWER
        assert storage.files[STAMP] == catalog.stamp
        assert {path for path in second.asked if path in before} <= {STAMP, "catalog/2.root.json"}


def test_a_full_disk_is_no_fault_of_the_source(catalog):
    storage, replica = copied(catalog)
    old = catalog.copy()
    catalog.commit("line-Alpha")
    storage.fails_at, storage.error = 0, Unavailable("no space left on device", place="catalog/2.line-Alpha.json")
    with pytest.raises(StoreFailed, match="no space"):
        replica.refresh(source_of(catalog))
    assert (storage.files[STAMP], replica.held.timestamp) == (old.stamp, old.stamp)
    storage.fails_at = None
    assert replica.refresh(source_of(catalog)).outcome is Outcome.NEWER


def test_an_unreachable_source_changes_nothing(catalog):
    storage, replica = copied(catalog)
    before = dict(storage.files)
    source = source_of(catalog)
    source.down = True
    with pytest.raises(Unavailable, match="network is down"):
        replica.refresh(source)
    assert (storage.files, replica.held.timestamp) == (before, catalog.stamp)


# Damage at home


@pytest.mark.parametrize("role", ["snapshot", "targets", "line-Alpha", "placement-Beta", "root", "timestamp"])
@pytest.mark.parametrize("damage", [flipped, None])
def test_damage_at_home_is_fetched_anew_cvmfs_3878(catalog, role, damage):
    storage, _ = copied(catalog)
    good = dict(storage.files)
    path = STAMP if role == "timestamp" else f"catalog/1.{role}.json"
    if damage:
        storage.files[path] = damage(storage.files[path])
    else:
        del storage.files[path]
    floors = (Verifier(_reading(good)).verify(catalog.stamp),)
    replica = replica_of(storage, floors=lambda: floors)
    assert replica.held is None
    source = source_of(catalog)
    assert replica.refresh(source).outcome is Outcome.NEWER
    assert storage.files == good
    assert set(source.asked) <= {STAMP, path, "catalog/2.root.json"}


def _reading(files):
    storage = MemoryStorage()
    storage.files = files
    return storage


def test_damage_while_it_runs_is_found_by_looking_at_the_whole(catalog):
    storage, replica = copied(catalog)
    good = dict(storage.files)
    path = "catalog/1.line-Beta.json"
    storage.files[path] = b"{}"
    assert replica.refresh(source_of(catalog)).outcome is Outcome.SAME
    assert storage.files[path] == b"{}"
    source = source_of(catalog)
    assert replica.refresh(source, whole=True).outcome is Outcome.SAME
    assert storage.files == good
    assert names(source) == [TIMESTAMP_NAME, "2.root.json", "1.line-Beta.json"]


def test_who_puts_an_older_timestamp_here_does_not_last(catalog):
    storage, replica = copied(catalog)
    old = catalog.stamp
    catalog.commit("line-Alpha")
    replica.refresh(source_of(catalog))
    storage.files[STAMP] = old
    replica.refresh(source_of(catalog))
    assert storage.files[STAMP] == catalog.stamp


def test_two_daemons_over_one_store_do_not_undo_each_other(catalog):
    storage, slow = copied(catalog)
    fast = replica_of(storage)
    catalog.commit("line-Alpha")
    early = catalog.copy()
    catalog.commit("line-Alpha")

    class Meanwhile(MemorySource):
        def read(self, path, *, limit):
            data = super().read(path, limit=limit)
            if path == early.path("line-Alpha"):
                fast.refresh(source_of(catalog))
            return data

    # The slow one begins again, and finds that its source is behind.
    assert slow.refresh(Meanwhile(early.files)).outcome is Outcome.OLDER
    assert storage.files[STAMP] == catalog.stamp


def test_a_store_that_others_change_all_the_time_is_left_to_them(catalog):
    storage, replica = copied(catalog)
    catalog.commit("line-Alpha")

    class Restless(MemorySource):
        def read(self, path, *, limit):
            storage.files[STAMP] += b" "
            return super().read(path, limit=limit)

    with pytest.raises(StoreFailed, match="all the time"):
        replica.refresh(Restless(catalog.files))


# Hostile upstreams


def rolled_back(catalog):
    catalog.commit("line-Alpha")
    early = catalog.copy()
    catalog.commit("line-Alpha")
    # The online key is stolen, and an old line gets a new timestamp.
    early.timestamp.version = 90
    early.stamp_again()
    return catalog, early.files


def mixed(catalog):
    catalog.commit("line-Alpha")
    early = catalog.copy()
    catalog.commit("line-Alpha")
    return early, {**catalog.files, catalog.path("line-Alpha"): early.files[early.path("line-Alpha")]}


def forged_line(catalog):
    early = catalog.copy()
    catalog.sign_with["line-Alpha"] = catalog.keys["online"]
    catalog.commit("line-Alpha")
    return early, catalog.files


def dropped_line(catalog):
    early = catalog.copy()
    del catalog.signed["targets"].delegations.roles["line-Beta"]
    del catalog.signed["snapshot"].meta["line-Beta.json"]
    catalog.commit("targets")
    return early, catalog.files


def same_version_other_bytes(catalog):
    early = catalog.copy()
    catalog.signed["line-Alpha"].version = 0
    catalog.expires["line-Alpha"] = 9
    catalog.commit("line-Alpha")
    return early, catalog.files


def other_catalog(catalog):
    return catalog, SignedCatalog("Alpha", "Beta", now=NOW).files


def other_root_in_the_chain(catalog):
    early = catalog.copy()
    stranger = SignedCatalog(now=NOW)
    catalog.write_root(stranger.key("root"))
    catalog.commit("line-Alpha")
    return early, catalog.files


def fast_forwarded(catalog):
    early = catalog.copy()
    catalog.timestamp.version = 1 << 63
    catalog.stamp_again()
    return early, catalog.files


def deep(catalog):
    return catalog, {**catalog.files, STAMP: b"[" * 16_000}


def bombed_role(catalog):
    early = catalog.copy()
    catalog.commit("line-Alpha")
    return early, {**catalog.files, catalog.path("line-Alpha"): b" " * (17 << 20)}


def missing_role(catalog):
    early = catalog.copy()
    catalog.commit("line-Alpha")
    files = dict(catalog.files)
    del files[catalog.path("line-Alpha")]
    return early, files


def strange_name(catalog):
    early = catalog.copy()
    catalog.signed["snapshot"].meta["../../x.json"] = catalog.signed["snapshot"].meta["line-Alpha.json"]
    roles = catalog.signed["targets"].delegations.roles
    roles["../../x"] = copy.copy(roles["line-Alpha"])
    roles["../../x"].name = "../../x"
    catalog.commit("targets")
    return early, catalog.files


ATTACKS = {
    rolled_back: (Untrusted, "went backward: line-Alpha is version 2, and version 3"),
    mixed: (Corrupt, "3.line-Alpha.json: does not verify"),
    forged_line: (Untrusted, "is not signed by the keys of its role"),
    dropped_line: (Untrusted, "went backward: line-Beta"),
    same_version_other_bytes: (Untrusted, "is not the same as was served before under this version"),
    other_catalog: (Untrusted, "is not signed by the keys of its role"),
    other_root_in_the_chain: (Untrusted, "2.root.json: does not verify"),
    fast_forwarded: (Corrupt, "higher than any that can be followed"),
    deep: (Corrupt, "timestamp.json"),
    bombed_role: (TooLarge, "too long"),
    missing_role: (Unavailable, "the catalog names this file, but it is missing there"),
    strange_name: (Corrupt, "is not a document name"),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_hostile_upstream_changes_nothing_and_is_named(catalog, attack):
    kind, words = ATTACKS[attack]
    honest, files = attack(catalog)
    storage, replica = copied(honest)
    before, held = dict(storage.files), replica.held
    source = source_of(catalog)
    source.files = files
    with pytest.raises(kind) as caught:
        replica.refresh(source)
    assert words in str(caught.value)
    if not isinstance(caught.value, TooLarge):
        assert source.name in caught.value.place
    assert (storage.files, storage.written, replica.held) == (before, [], held)
    # Another of the list has what is good.
    assert replica.refresh(source_of(honest)).outcome is Outcome.SAME


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "line-Alpha", "root"])
@pytest.mark.parametrize("wrong", [b"", b"{}", b"\xff\x00", b"[]", b'{"signed":{},"signatures":[]}', b"[" * 5000])
def test_nonsense_changes_nothing(catalog, role, wrong):
    storage = Storage()
    path = STAMP if role == "timestamp" else f"catalog/1.{role}.json"
    source = source_of(catalog)
    source.files[path] = wrong
    with pytest.raises((Corrupt, Untrusted, TooLarge)) as caught:
        replica_of(storage).refresh(source)
    assert source.name in caught.value.place
    # Delegated roles may have come that were verified already; nothing names them.
    assert STAMP not in storage.files


def test_an_upstream_that_is_behind_is_no_enemy(catalog):
    old = catalog.copy()
    catalog.commit("line-Alpha")
    storage, replica = copied(catalog)
    before = dict(storage.files)
    look = replica.refresh(source_of(old))
    assert (look.outcome, look.version) == (Outcome.OLDER, 1)
    assert storage.files == before


def test_what_was_served_before_is_a_floor_even_if_the_copy_is_gone(catalog):
    old = catalog.copy()
    catalog.commit("line-Alpha")
    floors = (Verifier(_reading(catalog.files)).verify(catalog.stamp),)
    storage = Storage()
    with pytest.raises(Untrusted, match="went backward"):
        replica_of(storage, floors=lambda: floors).refresh(source_of(old))
    assert storage.files == {}


def test_a_catalog_that_is_too_large_or_takes_too_long_ends(catalog):
    storage = Storage()
    with pytest.raises(TooLarge, match="larger than any"):
        replica_of(storage, limits=ReplicaLimits(catalog_bytes=2000)).refresh(source_of(catalog))
    ticks = itertools.count(NOW)
    slow = Replica(storage, pinned=None, clock=lambda: next(ticks), limits=ReplicaLimits(attempt_seconds=6))
    with pytest.raises(Unavailable, match="takes too long") as caught:
        slow.refresh(source_of(catalog))
    assert "origin.example" in caught.value.place
    # What has come counts: it gets there in the end.
    for _ in range(10):
        try:
            assert slow.refresh(source_of(catalog)).outcome is Outcome.NEWER
            break
        except Unavailable:
            continue
    assert storage.files[STAMP] == catalog.stamp


def test_no_catalog_at_all_is_said(catalog):
    source = source_of(catalog)
    del source.files[STAMP]
    with pytest.raises(NotFound, match="has no catalog"):
        replica_of(Storage()).refresh(source)


# Roots


def test_the_first_root_is_kept(catalog):
    storage, replica = copied(catalog)
    assert len(replica.root_fingerprint()) == 64
    other = SignedCatalog("Alpha", now=NOW)
    for remains in ({"catalog/1.root.json": storage.files["catalog/1.root.json"]}, dict(storage.files)):
        storage = Storage(remains)
        with pytest.raises(Untrusted):
            replica_of(storage).refresh(source_of(other))
        assert storage.files == remains


def test_a_pinned_root_of_any_version_is_demanded(catalog):
    catalog.write_root()
    catalog.commit()
    other = SignedCatalog("Alpha", now=NOW)
    for version in (1, 2):
        pinned = catalog.files[f"catalog/{version}.root.json"]
        storage = Storage()
        with pytest.raises(Untrusted, match=r"another root|has 1 roots"):
            replica_of(storage, pinned=pinned).refresh(source_of(other))
        assert STAMP not in storage.files
        assert replica_of(storage, pinned=pinned).refresh(source_of(catalog)).outcome is Outcome.NEWER


def test_a_store_with_another_root_than_the_pinned_one_is_refused(catalog):
    storage, _ = copied(catalog)
    other = SignedCatalog("Alpha", now=NOW)
    with pytest.raises(Refused, match="another root than the trusted one"):
        replica_of(storage, pinned=other.files["catalog/1.root.json"])
    with pytest.raises(Refused, match="is not a TUF root"):
        replica_of(storage, pinned=b"{}")


def test_new_online_keys_may_begin_anew_after_a_fast_forward(catalog):
    catalog.timestamp.version = 900
    catalog.stamp_again()
    storage, replica = copied(catalog)
    thief = catalog.keys["online"]
    catalog.keys["online"] = SignedCatalog().keys["online"]
    for role in ("timestamp", "snapshot"):
        catalog.root.revoke_key(thief.public_key.keyid, role)
        catalog.root.add_key(catalog.key(role).public_key, role)
    for project in ("Alpha", "Beta"):
        name = f"placement-{project}"
        catalog.signed["targets"].revoke_key(thief.public_key.keyid, name)
        catalog.signed["targets"].add_key(catalog.key(name).public_key, name)
    catalog.write_root()
    catalog.timestamp.version = 5
    catalog.commit("targets", "placement-Alpha", "placement-Beta")
    assert replica.refresh(source_of(catalog)).outcome is Outcome.NEWER
    assert replica.held.version == 6
    assert storage.files[STAMP] == catalog.stamp


# What is superseded


def test_superseded_versions_go_after_a_grace_time(catalog, tmp_path):
    storage, replica = copied(catalog)
    superseded = Superseded(storage, tmp_path / "superseded.json", grace_seconds=100)
    storage.files["catalog/notes.txt"] = storage.files["catalog/7.timestamp.json"] = b"not ours"
    assert superseded.sweep(replica.named(), now=NOW) == []
    catalog.commit("line-Alpha")
    replica.refresh(source_of(catalog))
    assert superseded.sweep(replica.named(), now=NOW + 10) == []
    # The time goes on across restarts, and does not begin anew when it is swept in between.
    superseded = Superseded(storage, tmp_path / "superseded.json", grace_seconds=100)
    assert superseded.sweep(replica.named(), now=NOW + 109) == []
    assert superseded.sweep(replica.named(), now=NOW + 110) == ["1.line-Alpha.json", "1.snapshot.json"]
    assert {"catalog/notes.txt", "catalog/7.timestamp.json", "catalog/1.root.json", STAMP} <= set(storage.files)
    assert Verifier(storage).verify(catalog.stamp) == replica.held
    assert json.loads((tmp_path / "superseded.json").read_bytes())["since"] == {}


def test_a_lost_record_or_a_clock_set_back_only_delays(catalog, tmp_path):
    storage, replica = copied(catalog)
    record = tmp_path / "superseded.json"
    storage.files["catalog/9.line-Alpha.json"] = b"{}"
    superseded = Superseded(storage, record, grace_seconds=100)
    superseded.sweep(replica.named(), now=NOW + 1e9)
    assert superseded.sweep(replica.named(), now=NOW) == []
    assert superseded.sweep(replica.named(), now=NOW + 99) == []
    for damage in (b"", b"[" * 5000, b'{"since":[1]}', b'{"since":{"9.line-Alpha.json":"x"}}'):
        record.write_bytes(damage)
        assert superseded.sweep(replica.named(), now=NOW + 1000) == []
    assert superseded.sweep(replica.named(), now=NOW + 1100) == ["9.line-Alpha.json"]


def test_every_error_is_one_of_ours(catalog):
    class Broken(MemorySource):
        def read(self, path, *, limit):
            raise RuntimeError("a library is broken")

    with pytest.raises(PacballError, match="could not be verified"):
        replica_of(Storage()).refresh(Broken({}))

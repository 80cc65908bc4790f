from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from pacstore.backup.record import read_record
from pacstore.errors import NewerFormat, NotFound, Refused, Unavailable
from pacstore.readback import Report
from pacstore.reindex import check_index
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.contract.faulty import Killed
from tests.store.backups import GONE, HOLDINGS, Pair, checked, failing, full, make_origin, public
from tests.store.releases import NAME, NEXT, NOW, Notes, Origin, flip, make_tree, overwrite, snapshot, write


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An origin that tests change copies of."""
    origin = make_origin(tmp_path_factory.mktemp("backup") / "origin")
    origin.store.close()
    return origin


@pytest.fixture
def pair(published, tmp_path):
    """An origin of one's own."""
    top = shutil.copytree(published.top, tmp_path / "origin", symlinks=True)
    store = Store.open(top / "store", writable=True)
    yield Pair(Origin(top, store, Catalog.open(store.storage, store.drafts), published.keys), tmp_path)
    store.close()


def test_everything_comes_back(pair):
    done = pair.back_up(packs=True)
    assert (done.damage, done.missing, done.recorded, done.releases) == ([], [], True, 3)
    assert (done.catalog_version, done.packs_left_out) == (pair.origin.catalog.version, 0)
    assert done.keys == pair.origin.store.keys_dir
    record = json.loads((pair.backup / "private/backup.json").read_bytes())
    assert (record["format"], record["complete"], record["packs"]) == (1, True, True)
    assert (record["catalog_version"], record["time"]) == (done.catalog_version, "2027-01-15T08:00:00Z")
    report = pair.restore()
    assert (report.made, report.damage, report.incomplete, report.packs_missing) == (True, [], [], 0)
    assert (report.releases, report.catalog_version, report.index) == (3, done.catalog_version, "restored")
    private = snapshot(pair.restored / "private")
    changes = {path: data for path, data in private.items() if path.startswith("catalog/")}
    assert changes == {f"catalog/{p.name}": p.read_bytes() for p in (pair.origin.store.private / "catalog").iterdir()}
    with Store.open(pair.restored, writable=False) as store:
        assert Catalog.open(store.storage, store.drafts).status().waiting
    with closing(sqlite3.connect(pair.restored / "private/sites.sqlite")) as database:
        assert database.execute("SELECT name FROM sites").fetchall() == [("CERN",)]
    pair.assert_restored()


def test_a_backup_can_be_read_as_a_store_and_not_be_published_to(pair, tmp_path):
    pair.back_up(packs=True)
    with Store.open(pair.backup, writable=False) as store:
        report = Report()
        check_index(store, (), report)
        assert report.damage == []
        assert store.index_path.parent == store.private
        assert Catalog.open(store.storage).version == pair.origin.catalog.version
    assert sorted(os.listdir(pair.backup / "public/holdings")) == [NAME, NEXT]
    assert list(pair.backup.rglob("*.sqlite-*")) == []
    before = snapshot(pair.backup)
    for make in (Store.create, lambda path: Store.open(path, writable=True)):
        with pytest.raises(Refused, match="no private part"):
            make(pair.backup)
    assert snapshot(pair.backup) == before


def test_without_packs_it_says_how_many_bytes_it_leaves_out(pair):
    done = pair.back_up()
    packs = {path: data for path, data in public(pair.origin.store.path).items() if path.startswith("packs/")}
    assert (done.packs_left_out, done.bytes_left_out) == (len(packs), sum(map(len, packs.values())))
    assert done.bytes_copied < 100_000
    kept = public(pair.backup)
    # A backup that somebody serves must not claim what it does not hold.
    assert not [path for path in kept if path.startswith(("packs/", "holdings/"))]
    expected = {
        p: d
        for p, d in public(pair.origin.store.path).items()
        if p.split("/")[0] not in ("packs", "holdings", "releases")
    }
    assert kept == expected


def test_no_key_gets_into_a_backup(pair):
    write(pair.origin.store.private / "online.pem", b"secret")
    write(pair.origin.store.private / "keys/online.pem", b"secret")
    pair.back_up(packs=True)
    secrets = [path.read_bytes() for path in pair.origin.keys.directory.glob("*.pem")] + [b"secret"]
    assert len(secrets) > 3
    for data in snapshot(pair.backup).values():
        assert not any(secret in data for secret in secrets)


def identities(top):
    """Which file each path is: it changes when the file is written again."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in top.rglob("*") if p.is_file()}


@pytest.mark.parametrize("verify", [False, True])
def test_nothing_is_copied_twice(pair, tmp_path, verify):
    first = pair.back_up(packs=True)
    before = identities(pair.backup)
    again = pair.back_up(packs=True, verify=verify)
    assert (again.copied, again.bytes_copied, again.kept) == (0, 0, first.copied)
    changed = {path for path, identity in identities(pair.backup).items() if before[path] != identity}
    assert {path.rpartition("/")[2] for path in changed} == {"backup.json"}
    pair.origin.publish(make_tree(tmp_path / "tree", version="3", kib=500), "Demo-1.2-x86_64")
    sizes = {path: len(data) for path, data in public(pair.origin.store.path).items()}
    before = public(pair.backup)
    third = pair.back_up(packs=True, verify=verify)
    fresh = [path for path in public(pair.backup) if path not in before and not path.startswith("holdings/")]
    assert third.copied == len(fresh) > 5
    assert third.bytes_copied == sum(sizes[path] for path in fresh)
    assert pair.restore().damage == []
    pair.assert_restored()


def test_verify_finds_damage_in_the_backup_and_repairs_it(pair):
    pair.back_up(packs=True)
    good = public(pair.backup)
    damaged = [p for p in good if p.split("/")[0] in ("packs", "manifests", "attributes", "provenance", "placements")]
    damaged += [p for p in good if p.startswith("catalog/") and p != "catalog/timestamp.json"]
    for path in damaged:
        flip(pair.backup / "public" / path, -20)
    assert pair.back_up(packs=True).copied == 0
    done = pair.back_up(packs=True, verify=True)
    assert (done.copied, done.damage) == (len(damaged), [])
    assert public(pair.backup) == good


# Damage in the store


def paths_of(origin):
    """A file of each kind that the store needs, by kind."""
    entry = origin.entry(NAME)
    catalog = [path for path in origin.public() if path.startswith("catalog/")]
    return {
        "manifest": object_path(ObjectKind.MANIFEST, entry.manifest.digest),
        "attributes": object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
        "provenance": object_path(ObjectKind.PROVENANCE, entry.provenance.digest),
        "placement": document_path(DocumentKind.PLACEMENT, f"{NAME}.1"),
        "pack": next(path for path in origin.public() if path.startswith("packs/")),
        "holdings": document_path(HOLDINGS, NAME),
        "timestamp": "catalog/timestamp.json",
        "snapshot": max(path for path in catalog if path.endswith(".snapshot.json")),
        "root": "catalog/1.root.json",
        "line": max(path for path in catalog if path.endswith(".line-Demo.json")),
    }


STATE = ("timestamp", "snapshot", "root", "line")
KINDS = ("manifest", "attributes", "provenance", "placement", "pack", "holdings", *STATE)


def damage(file, how):
    file.chmod(0o644)
    if how == "missing":
        file.unlink()
    elif how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    else:
        flip(file, file.stat().st_size // 2)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_store_is_named_and_the_rest_goes_on(pair, kind, how):
    path = paths_of(pair.origin)[kind]
    good = (pair.origin.store.public / path).read_bytes()
    damage(pair.origin.store.public / path, how)
    done = pair.back_up(packs=True)
    if (kind, how) == ("timestamp", "missing"):
        # Readers miss it, but what is committed can be seen without it.
        assert (done.damage, done.catalog_version) == ([], pair.origin.catalog.version)
        return
    assert [one.place for one in done.damage] == [path]
    assert done.recorded is (kind not in STATE)
    others = {p for p in public(pair.origin.store.path) if p.split("/")[0] in ("packs", "manifests", "placements")}
    assert others - {path} <= set(public(pair.backup))
    if kind in STATE:
        assert not read_record(pair.backup).has_state
        with pytest.raises(Refused, match="never finished"):
            pair.restore()
    else:
        record = read_record(pair.backup)
        assert record.complete is (kind == "holdings")
        assert set(record.damaged) == (set() if kind == "holdings" else {path})
    # What was repaired meanwhile is copied by the next one.
    overwrite(write(pair.origin.store.public / path, good), good)
    assert pair.back_up(packs=True).damage == []
    assert read_record(pair.backup).complete


def test_what_the_backup_has_from_earlier_is_not_missing(pair):
    """The store lost it, or has it damaged: that is said, and the backup remains complete."""
    pair.back_up(packs=True)
    good = public(pair.backup)
    paths = paths_of(pair.origin)
    for kind in ("manifest", "attributes", "provenance", "placement", "pack"):
        damage(pair.origin.store.public / paths[kind], "cut" if kind == "attributes" else "missing")
    done = pair.back_up(packs=True)
    named = {paths[kind] for kind in ("manifest", "attributes", "provenance", "pack")}
    # Placements that are here as they were recorded are not looked for; the check of the store is another command.
    assert {one.place for one in done.damage} == named - {paths["pack"]}
    assert (done.missing, done.recorded, read_record(pair.backup).complete) == ([], True, True)
    assert public(pair.backup) == good
    pair.restore()
    assert checked(pair.restored) == [NAME, NEXT]


def test_damage_in_the_private_part_is_named(pair):
    private = pair.origin.store.private
    change = next((private / "catalog").iterdir())
    pair.back_up()
    recorded = snapshot(pair.backup / "private")
    (private / "settings.json").write_bytes(b"{")
    (private / "sites.sqlite").write_bytes(b"garbage" * 1000)
    (private / "index.sqlite").write_bytes(b"garbage" * 1000)
    change.unlink()
    change.symlink_to("/proc/self/mem")
    write(private / "catalog/.hidden", b"what is this")
    done = pair.back_up()
    named = {"settings.json", "sites.sqlite", "index.sqlite", f"catalog/{change.name}", "catalog/.hidden"}
    assert {one.place for one in done.damage} == {f"private/{name}" for name in named}
    # What was there before stays recorded, but for what nobody ever had.
    assert done.missing == ["private/catalog/.hidden"]
    assert {**snapshot(pair.backup / "private"), "backup.json": b""} == {**recorded, "backup.json": b""}
    assert pair.restore(despite_damage=True).damage == []


def test_a_damaged_database_without_an_earlier_copy_is_missing_unless_it_can_be_made_anew(pair):
    private = pair.origin.store.private
    for name in ("sites.sqlite", "index.sqlite"):
        (private / name).write_bytes(b"garbage" * 1000)
    done = pair.back_up(packs=True)
    assert {one.place for one in done.damage} == {"private/sites.sqlite", "private/index.sqlite"}
    assert done.missing == ["private/sites.sqlite"]
    report = pair.restore()
    assert (report.made, report.index) == (True, "rebuilt")
    pair.assert_restored()


def test_databases_are_copied_while_others_write_to_them(pair):
    path = pair.origin.store.private / "sites.sqlite"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO sites VALUES ('DESY')")
        writer.commit()
        writer.execute("INSERT INTO sites VALUES ('not committed')")
        assert path.with_name("sites.sqlite-wal").stat().st_size > 0
        assert pair.back_up().damage == []
    copy = pair.backup / "private/sites.sqlite"
    # One closed file, which needs neither locks nor a log beside it.
    assert sorted(p.name for p in copy.parent.iterdir() if p.name.startswith("sites")) == ["sites.sqlite"]
    assert copy.read_bytes()[18:20] == b"\1\1"
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as database:
        assert database.execute("SELECT name FROM sites").fetchall() == [("CERN",), ("DESY",)]


def test_one_backup_at_a_time(pair):
    def again(step):
        if step == 1:
            with pytest.raises(Unavailable, match="another backup is at work here"):
                pair.back_up()

    notes = Notes(again)
    assert pair.back_up(progress=notes).damage == []
    assert notes.steps > 1


def test_a_store_whose_state_is_elsewhere(pair, tmp_path):
    with Store.create(tmp_path / "other", state_dir=tmp_path / "state") as store:
        store.remember_keys(tmp_path / "keys")
    with closing(sqlite3.connect(tmp_path / "state/sites.sqlite")) as database:
        database.execute("CREATE TABLE sites (name TEXT)")
    pair.origin.store.close()
    pair.origin.store = Store.open(tmp_path / "other", writable=True)
    pair.origin.store.index.counts()
    assert pair.back_up().damage == []
    # Whoever opens the backup, or the store made from it, must not use this store's databases.
    assert json.loads((pair.backup / "private/settings.json").read_bytes()) == {"keys_dir": str(tmp_path / "keys")}
    assert {p.name for p in (pair.backup / "private").glob("*.sqlite")} == {"index.sqlite", "sites.sqlite"}
    pair.restore(state_dir=tmp_path / "another/state")
    with Store.open(pair.restored, writable=True) as store:
        assert store.state_dir == tmp_path / "another/state"
        assert (store.state_dir / "sites.sqlite").exists()
        assert store.keys_dir == tmp_path / "keys"


def test_what_is_offered_no_longer_is_no_damage_and_is_not_offered_again(pair):
    entry = pair.origin.entry(GONE)
    for path in (
        object_path(ObjectKind.MANIFEST, entry.manifest.digest),
        object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
        document_path(DocumentKind.PLACEMENT, f"{GONE}.1"),
    ):
        (pair.origin.store.public / path).unlink()
    shutil.rmtree(pair.origin.store.public / "releases/Gone")
    done = pair.back_up(packs=True)
    assert (done.damage, done.missing, done.releases) == ([], [], 3)
    report = pair.restore()
    assert (report.damage, report.incomplete) == ([], [])
    assert checked(pair.restored) == [NAME, NEXT]


def test_an_empty_store(tmp_path):
    with Store.create(tmp_path / "store") as store:
        origin = Origin(tmp_path, store, None, None)
        pair = Pair(origin, tmp_path)
        done = pair.back_up(packs=True)
        assert (done.recorded, done.catalog_version, done.damage, done.keys) == (True, 0, [], None)
        report = pair.restore()
        assert (report.made, report.catalog_version, report.index) == (True, 0, "none")
        assert public(pair.restored) == public(store.path)
    Origin.make(pair.restored.parent / "other")


# Publishers meanwhile


def test_a_state_that_was_replaced_meanwhile_is_given_up_for_the_newer_one(pair, tmp_path):
    """A repacked release: what the old state names is gone before it is copied."""
    origin = pair.origin

    def repack(step):
        if step == 1:
            old = document_path(DocumentKind.PLACEMENT, f"{NEXT}.1")
            data = (origin.store.public / old).read_bytes()
            entry = origin.entry(NEXT)
            origin.store.storage.create(DocumentKind.PLACEMENT, f"{NEXT}.2", data)
            origin.catalog.replace_placements({entry.release: (entry.placement, 2)}, origin.keys, now=NOW)
            (origin.store.public / old).unlink()

    done = pair.back_up(progress=Notes(repack))
    assert (done.damage, done.missing) == ([], [])
    assert done.catalog_version == origin.catalog.version
    assert (pair.backup / "public/placements" / f"{NEXT}.2").exists()


def test_what_stays_missing_is_named_however_busy_the_store_is(pair, tmp_path):
    origin = pair.origin
    (origin.store.public / paths_of(origin)["manifest"]).unlink()
    notes = Notes(lambda _: origin.catalog.refresh(origin.keys, now=NOW))
    done = pair.back_up(progress=notes)
    assert done.missing == [paths_of_missing(done)]
    assert notes.phases == ["backing up"] * 5


def paths_of_missing(done):
    (one,) = done.damage
    return one.place


def test_a_commit_that_readers_do_not_see_yet_is_the_newest_state(pair):
    """Killed between its two steps, a publisher leaves a committed state that the next one shows."""
    origin = pair.origin
    shown = (origin.store.public / "catalog/timestamp.json").read_bytes()
    origin.catalog.refresh(origin.keys, now=NOW)
    newest = (origin.store.public / "catalog/timestamp.json").read_bytes()
    overwrite(origin.store.public / "catalog/timestamp.json", shown)
    assert pair.back_up().catalog_version == origin.catalog.version
    assert (pair.backup / "public/catalog/timestamp.json").read_bytes() == newest


def test_a_change_that_is_not_committed_yet_is_not_in_force_in_the_backup(pair):
    """Files of a commit that comes later may be copied, but neither its timestamp nor its root."""
    origin = pair.origin
    version = origin.catalog.version
    notes = Notes(lambda step: origin.catalog.refresh(origin.keys, now=NOW) if step == 1 else None)
    assert pair.back_up(progress=notes).catalog_version == version
    assert not (pair.backup / f"public/catalog/{version + 1}.timestamp.json").exists()
    assert Catalog.open(Store.open(pair.backup, writable=False).storage).version == version


# Interruptions


@pytest.mark.parametrize(
    ("before", "call"),
    [
        (False, "fsync"),
        pytest.param(False, "replace", marks=pytest.mark.slow),
        pytest.param(True, "fsync", marks=pytest.mark.slow),
        pytest.param(True, "replace", marks=pytest.mark.slow),
    ],
)
def test_interrupted_anywhere_it_continues_and_what_was_there_can_be_restored(
    pair, tmp_path, monkeypatch, before, call
):
    """A first backup, and one on top of an earlier one: of that the recorded state is whole at any moment."""
    origin = pair.origin
    if before:
        pair.back_up(packs=True)
        shutil.copytree(pair.backup, tmp_path / "first", symlinks=True)
    first_version = origin.catalog.version
    origin.publish(make_tree(tmp_path / "tree", version="3", kib=500), "Demo-1.2-x86_64")
    origin.store.remember_keys(tmp_path / "elsewhere")
    with failing(monkeypatch, 0, Killed(), call=call) as count:
        shutil.copytree(pair.backup, tmp_path / "whole", symlinks=True) if before else None
        pair.back_up(packs=True, to=tmp_path / "whole")
    step = (3 if before else 8) if call == "fsync" else (1 if before else 3)
    steps = [*range(1, count[0] + 1, step), count[0] + 1]
    done_at = 0
    for number in steps:
        shutil.rmtree(pair.backup, ignore_errors=True)
        if before:
            shutil.copytree(tmp_path / "first", pair.backup, symlinks=True)
        try:
            with failing(monkeypatch, number, Killed("here"), call=call):
                pair.back_up(packs=True)
        except Killed:
            pass
        else:
            done_at = number
            break
        if before:
            report = pair.restore()
            assert (report.made, report.damage) == (True, [])
            expected = [NAME, NEXT] if report.catalog_version == first_version else ["Demo-1.2-x86_64", NAME, NEXT]
            assert checked(pair.restored) == sorted(expected)
            assert report.begun in ((0, NOW) if report.catalog_version == first_version else (0,))
            shutil.rmtree(pair.restored)
        elif (pair.backup / "private/backup.json").exists() and number < count[0]:  # the last: all is in its place
            with pytest.raises(Refused, match="never finished"):
                pair.restore()
        assert pair.back_up(packs=True).damage == []
        assert list(pair.backup.rglob("*.previous")) == []
        assert pair.restore().damage == []
        assert checked(pair.restored) == sorted([NAME, NEXT, "Demo-1.2-x86_64"])
        shutil.rmtree(pair.restored)
    assert done_at == count[0] + 1


def test_a_full_disk_is_said_and_what_was_copied_stays(pair, monkeypatch):
    with failing(monkeypatch, 0, full()) as count:
        total = pair.back_up(packs=True).copied
    for number in range(2, count[0], count[0] // 8):
        shutil.rmtree(pair.backup)
        with failing(monkeypatch, number, full()), pytest.raises(Unavailable, match="no space") as caught:
            pair.back_up(packs=True)
        assert "run the same command again" in caught.value.hint
        have = len([p for p in public(pair.backup) if p.split("/")[0] in ("packs", "manifests", "attributes")])
        done = pair.back_up(packs=True)
        assert done.copied + done.kept == total
        assert done.kept >= have
        assert os.listdir(pair.backup / "private/incoming") == []


# Refusals


def test_other_directories_are_left_alone(pair, tmp_path):
    write(tmp_path / "home/file", b"mine")
    for place in ("home", "origin/store", "origin/store/private/backup", "origin"):
        before = snapshot(tmp_path)
        with pytest.raises(Refused, match=r"neither empty nor a backup|lies inside") as caught:
            pair.back_up(to=tmp_path / place)
        assert "another directory" in caught.value.hint or "an empty directory" in caught.value.hint
        assert snapshot(tmp_path) == before
    write(tmp_path / "file", b"")
    with pytest.raises((Refused, NotFound, Unavailable)):
        pair.back_up(to=tmp_path / "file")
    with Store.create(tmp_path / "another store"), pytest.raises(Refused, match="neither empty nor a backup"):
        pair.back_up(to=tmp_path / "another store")


def test_the_backup_of_another_store_or_of_a_later_state_is_not_overwritten(pair, tmp_path):
    pair.back_up(packs=True)
    earlier = shutil.copytree(pair.backup, tmp_path / "earlier")
    other = Pair(Origin.make(tmp_path / "other"), tmp_path)
    other.backup = pair.backup
    before = snapshot(pair.backup)
    with pytest.raises(Refused, match="is the backup of another store"):
        other.back_up()
    with Store.create(tmp_path / "no catalog") as store:
        other.origin.store = store
        with pytest.raises(Refused, match="is the backup of another store"):
            other.back_up()
    assert snapshot(pair.backup) == before
    pair.origin.catalog.refresh(pair.origin.keys, now=NOW)
    pair.back_up(packs=True)
    before = snapshot(pair.backup)
    # A store that was restored from an earlier backup, with the newer one at hand.
    back = Pair(pair.origin, tmp_path)
    back.backup = earlier
    back.restore()
    back.backup = pair.backup
    version = pair.origin.catalog.version
    with Store.open(pair.restored, writable=True) as store:
        back.origin = Origin(tmp_path, store, Catalog.open(store.storage, store.drafts), pair.origin.keys)
        with pytest.raises(
            Refused, match=f"has version {version} .* only version {version - 1}.*restore the store from"
        ):
            back.back_up()
        # It goes its own way, to the same version and beyond.
        for _ in range(2):
            back.origin.catalog.refresh(pair.origin.keys, now=NOW + 1)
            with pytest.raises(Refused, match=f"has another catalog/{version}.timestamp.json"):
                back.back_up()
    assert snapshot(pair.backup) == before


def test_a_record_of_a_newer_format_is_refused(pair):
    pair.back_up()
    path = pair.backup / "private/backup.json"
    record = json.loads(path.read_bytes())
    overwrite(path, json.dumps(record | {"format": 2}).encode())
    before = snapshot(pair.backup)
    for call in (pair.back_up, pair.restore):
        with pytest.raises(NewerFormat, match=r"version 2.*newer pacball"):
            call()
    assert snapshot(pair.backup) == before
    assert not pair.restored.exists()


def test_the_backup_of_a_docroot_alone(pair, tmp_path):
    shutil.copytree(pair.origin.store.public, tmp_path / "mirror/public")
    with Store.open(tmp_path / "mirror", writable=False) as store:
        pair.origin.store.close()
        pair.origin.store = store
        done = pair.back_up(packs=True)
    assert (done.damage, done.keys) == ([], None)
    assert pair.restore().index == "rebuilt"
    assert checked(pair.restored) == [NAME, NEXT]

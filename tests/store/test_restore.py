from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.backup.record import BackupRecord, Listed, read_record, write_record
from pacstore.digest import Digest
from pacstore.directory_source import DirectorySource
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Refused, Unavailable
from pacstore.release import Release
from pacstore.source import Traffic
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from pacstore.trust.targets import Withdrawal
from tests.contract.faulty import Killed
from tests.store.backups import GONE, Pair, checked, failing, full, make_origin, public
from tests.store.releases import NAME, NEXT, NOW, Notes, Origin, flip, make_tree, overwrite, snapshot, write


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory):
    """An origin and two backups of it, with and without packs; tests change copies."""
    top = tmp_path_factory.mktemp("restore")
    origin = make_origin(top / "origin")
    pair = Pair(origin, top)
    pair.back_up(packs=True, to=top / "whole")
    pair.back_up(to=top / "light")
    origin.store.close()
    return pair


@pytest.fixture
def whole(backed_up, tmp_path):
    """A backup with packs, of one's own."""
    shutil.copytree(backed_up.top / "whole", tmp_path / "backup")
    return Pair(backed_up.origin, tmp_path)


@pytest.fixture
def light(backed_up, tmp_path):
    """A backup without packs, of one's own."""
    shutil.copytree(backed_up.top / "light", tmp_path / "backup")
    return Pair(backed_up.origin, tmp_path)


@pytest.fixture
def mirror(backed_up):
    """Where all public files are, too."""
    return DirectorySource(backed_up.origin.store.path)


class Picky:
    """A source that gives something else, or an error, for some packs, and no documents unless `documents`."""

    def __init__(self, source, spoil, *, documents=True):
        self._source = source
        self._spoil = spoil
        self._documents = documents
        self.name = "picky"
        self.traffic = Traffic()
        self.asked = []

    def read(self, path, *, limit):
        self.asked.append(path)
        if not self._documents:
            raise NotFound("is not here", place=path)
        return self._source.read(path, limit=limit)

    def ranges(self, wanted):
        for piece in reversed(wanted):
            self.asked.append(str(piece.pack))
            for found, data in self._source.ranges([piece]):
                yield found, self._spoil(found, data)

    def close(self):
        pass


# Packs


def test_without_packs_nothing_is_claimed_and_they_come_later(light, mirror):
    packs = {p: d for p, d in public(light.origin.store.path).items() if p.startswith("packs/")}
    report = light.restore()
    assert (report.made, report.damage, report.index) == (True, [], "none")
    assert report.incomplete == [NAME, NEXT]
    wanted = needed(light.origin)
    assert (report.packs_missing, report.bytes_missing) == (len(wanted), sum(len(packs[p]) for p in wanted))
    assert list((light.restored / "public/holdings").iterdir()) == []
    again = light.restore(source=mirror)
    assert (again.made, again.incomplete, again.packs_missing, again.index) == (True, [], 0, "kept")
    assert again.bytes_fetched == report.bytes_missing
    assert checked(light.restored) == [NAME, NEXT]
    assert light.restore(source=mirror).bytes_fetched == 0


def needed(origin):
    """The paths of the packs that the releases on offer use."""
    found = set()
    for entry in Catalog.open(origin.store.storage).releases():
        if str(entry.release) != GONE:
            placement = read_placement(origin.store.storage, entry, read_manifest(origin.store.storage, entry))
            found |= {object_path(ObjectKind.PACK, placement.pack(n)) for n in range(len(placement.pack_ids))}
    return found


def test_packs_come_from_a_source_at_once(light, mirror):
    report = light.restore(source=mirror)
    assert (report.made, report.damage, report.incomplete, report.packs_missing) == (True, [], [], 0)
    # The snapshot of the index names packs that only the withdrawn release uses, and that nobody fetched.
    assert report.index in ("restored", "rebuilt")
    assert checked(light.restored) == [NAME, NEXT]


def test_packs_come_into_a_store_at_which_publishers_are_at_work_again(light, mirror, tmp_path):
    light.restore()
    with Store.open(light.restored, writable=True) as store:
        origin = Origin(tmp_path, store, Catalog.open(store.storage, store.drafts), light.origin.keys)
        origin.publish(make_tree(tmp_path / "tree", version="3", kib=500), "Demo-1.2-x86_64")
        version = origin.catalog.version
    report = light.restore(source=mirror)
    assert (report.catalog_version, report.incomplete) == (version, [])
    assert checked(light.restored) == [NAME, NEXT, "Demo-1.2-x86_64"]
    with Store.open(light.restored, writable=True) as store:
        assert {pack for pack, _ in store.index.packs()} == set(store.storage.digests(ObjectKind.PACK))


def test_what_was_withdrawn_meanwhile_is_not_offered_again(light, mirror):
    """Nor are its packs fetched, into a store that was restored before."""
    light.restore()
    with Store.open(light.restored, writable=True) as store:
        catalog = Catalog.open(store.storage, store.drafts)
        catalog.withdraw(Release.parse(NEXT), Withdrawal(int(NOW), "broken"), light.origin.keys, now=NOW)
    report = light.restore(source=mirror)
    assert (report.incomplete, report.packs_missing) == ([], 0)
    assert checked(light.restored) == [NAME]
    assert len([p for p in public(light.restored) if p.startswith("packs/")]) < len(needed(light.origin))


def test_a_release_is_offered_when_its_packs_are_all_there(light, mirror, backed_up):
    """A mirror that has only one of the releases."""
    origin = backed_up.origin
    entry = Catalog.open(origin.store.storage).release(Release.parse(NAME))
    placement = read_placement(origin.store.storage, entry, read_manifest(origin.store.storage, entry))
    there = {placement.pack(n) for n in range(len(placement.pack_ids))}

    def spoil(piece, data):
        if piece.pack not in there:
            raise NotFound("is not here", place=str(piece.pack))
        return data

    report = light.restore(source=Picky(mirror, spoil))
    assert (report.made, report.damage, report.incomplete) == (True, [], [NEXT])
    assert report.packs_missing == len(needed(origin)) - len(there) > 0
    assert sorted(os.listdir(light.restored / "public/holdings")) == [NAME]
    assert light.restore(source=mirror).incomplete == []
    assert checked(light.restored) == [NAME, NEXT]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda _, data: flipped(data, 0), "frame|last bytes|table"),
        (lambda _, data: flipped(data, len(data) // 2), "frame|last bytes|table"),
        (lambda _, data: flipped(data, len(data) - 1), "frame|last bytes|table"),
        (lambda _, data: bytes(len(data)), "last bytes"),
    ],
)
def test_wrong_bytes_of_a_source_are_never_kept(light, mirror, spoil, fault):
    report = light.restore(source=Picky(mirror, spoil))
    assert report.damage
    assert all(re.search(fault, one.fault) for one in report.damage)
    assert (report.made, report.incomplete) == (True, [NAME, NEXT])
    assert not [p for p in public(light.restored) if p.startswith("packs/")]
    assert os.listdir(light.restored / "private/staging") == []
    assert light.restore(source=mirror).damage == []
    assert checked(light.restored) == [NAME, NEXT]


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def test_a_source_that_goes_away_leaves_a_store_and_the_same_call_continues(light, mirror):
    got = []

    def spoil(piece, data):
        got.append(piece.pack)
        if len(set(got)) > 1:
            raise Unavailable("the network is down", place="picky")
        return data

    source = Picky(mirror, spoil)
    report = light.restore(source=source)
    assert (report.made, len(report.damage)) == (True, 1)
    assert "network is down" in report.damage[0].fault
    assert report.packs_missing == len(needed(light.origin)) - 1
    assert light.restore(source=mirror).packs_missing == 0
    assert checked(light.restored) == [NAME, NEXT]


def test_the_index_of_the_backup_is_used_only_if_it_fits(whole, backed_up):
    assert whole.restore().index == "restored"
    shutil.rmtree(whole.restored)
    # Without one of the packs, the snapshot would promise chunks that are not there.
    lost = next((whole.backup / "public/packs").rglob("*/*"))
    lost.unlink()
    assert whole.restore(despite_damage=True).index == "rebuilt"
    with Store.open(whole.restored, writable=True) as store:
        assert {pack for pack, _ in store.index.packs()} == set(store.storage.digests(ObjectKind.PACK))
    shutil.rmtree(whole.restored)
    overwrite(whole.backup / "private/index.sqlite", b"garbage")
    report = whole.restore()
    assert (report.made, report.index) == (True, "rebuilt")
    assert [one.place for one in report.damage] == ["private/index.sqlite"]


# Damage in the backup


def documents(pair):
    """Every file of a backup that belongs to its state and is needed, packs apart."""
    record = read_record(pair.backup)
    kinds = ("manifests", "attributes", "provenance")
    objects = {str(p.relative_to(pair.backup)) for k in kinds for p in (pair.backup / "public" / k).rglob("*/*")}
    return sorted({*record.files, *objects} - {f"public/{path}" for path in unnamed(pair.origin)})


@pytest.mark.parametrize("how", [pytest.param("flipped", marks=pytest.mark.slow), "missing"])
def test_every_damaged_file_is_named_and_nothing_is_acknowledged(whole, how):
    """All of them one by one, and all at once."""
    files = documents(whole)
    assert len(files) > 25
    for path in files:
        file = whole.backup / path
        good = file.read_bytes()
        spoil(file, how)
        report = whole.restore()
        if path.endswith(f"{report.catalog_version}.timestamp.json"):
            # timestamp.json has the same bytes.
            assert report.made
        else:
            assert [one.place for one in report.damage] == [path.removeprefix("public/")]
            assert report.made is (path == "private/index.sqlite")
        if not report.made:
            assert not (whole.restored / "public/store.json").exists()
            assert not (whole.restored / "public/catalog/timestamp.json").exists()
            with pytest.raises(Refused, match="neither empty nor a pacball store"):
                Store.create(whole.restored)
            # What was copied stays, and the same call continues when the file is there again.
            overwrite(write(file, good), good)
            again = whole.restore()
            # The settings and store.json are written each time.
            assert (again.made, again.copied <= 3) == (True, True)
            assert checked(whole.restored) == [NAME, NEXT]
        overwrite(write(file, good), good)
        shutil.rmtree(whole.restored)
    for path in files:
        spoil(whole.backup / path, how)
    report = whole.restore()
    assert not report.made
    named = {one.place for one in report.damage} | {f"catalog/{report.catalog_version}.timestamp.json"}
    # Manifests and the like are unknown where the catalog that names them is damaged, and missing, too.
    unseen = {p.removeprefix("public/") for p in files if p.split("/")[1] in ("manifests", "attributes", "provenance")}
    assert named >= {p.removeprefix("public/") for p in files} - (unseen if how == "missing" else set())


def spoil(file, how):
    file.chmod(0o644)
    if how == "missing":
        file.unlink()
    elif how == "flipped":
        flip(file, file.stat().st_size // 2)
    else:
        os.truncate(file, file.stat().st_size // 2 if how == "cut" else 0)


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_pack_is_named_and_nothing_is_acknowledged(whole, how, mirror):
    pack = max((whole.backup / "public/packs").rglob("*/*"), key=lambda path: path.stat().st_size)
    spoil(pack, how)
    report = whole.restore()
    assert (report.made, [one.place for one in report.damage]) == (False, [f"packs/{pack.parent.name}/{pack.name}"])
    # A mirror has it, too.
    report = whole.restore(source=mirror)
    assert (report.made, report.damage, report.incomplete) == (True, [], [])
    assert checked(whole.restored) == [NAME, NEXT]


def test_what_is_damaged_in_the_backup_comes_from_a_source(light, mirror):
    private = [path for path in documents(light) if path.startswith("private/")]
    for path in documents(light):
        if path not in (*private, "public/store.json"):
            spoil(light.backup / path, "missing")
    report = light.restore(source=mirror)
    assert (report.made, report.damage, report.incomplete) == (True, [], [])
    assert checked(light.restored) == [NAME, NEXT]
    expected = {p: d for p, d in public(light.origin.store.path).items() if p.split("/")[0] != "packs"}
    gone = {p for p in expected if GONE in p} | set(unnamed(light.origin))
    assert {p: d for p, d in public(light.restored).items() if p.split("/")[0] != "packs"}.items() >= {
        p: d for p, d in expected.items() if p not in gone
    }.items()


def unnamed(origin):
    """Manifests and attributes of what is offered no longer: they are not fetched."""
    entry = Catalog.open(origin.store.storage).release(Release.parse(GONE))
    yield object_path(ObjectKind.MANIFEST, entry.manifest.digest)
    yield object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)


def test_despite_damage_there_is_a_store_that_says_what_it_lacks(whole, mirror):
    entry = Catalog.open(whole.origin.store.storage).release(Release.parse(NEXT))
    manifest = object_path(ObjectKind.MANIFEST, entry.manifest.digest)
    (whole.backup / "public" / manifest).unlink()
    report = whole.restore(despite_damage=True)
    assert (report.made, report.incomplete) == (True, [NEXT])
    assert manifest in {one.place for one in report.damage}
    assert os.listdir(whole.restored / "public/holdings") == [NAME]
    # Later, from where it still is.
    again = whole.restore(source=mirror)
    assert (again.damage, again.incomplete) == ([], [])
    assert checked(whole.restored) == [NAME, NEXT]


def test_no_store_is_made_of_a_damaged_catalog(whole, mirror):
    name = max(path for path in documents(whole) if path.endswith("line-Demo.json"))
    flip(whole.backup / name, 100)
    report = whole.restore(despite_damage=True)
    assert (report.made, [one.place for one in report.damage]) == (False, [name.removeprefix("public/")])
    assert whole.restore(source=mirror).made
    assert checked(whole.restored) == [NAME, NEXT]


def test_what_the_store_could_not_give_has_to_come_from_elsewhere(backed_up, tmp_path, mirror):
    """The backup of a store that was damaged already."""
    shutil.copytree(backed_up.origin.top, tmp_path / "origin")
    store = Store.open(tmp_path / "origin/store", writable=True)
    pair = Pair(Origin(tmp_path, store, Catalog.open(store.storage), backed_up.origin.keys), tmp_path)
    entry = pair.origin.entry(NAME)
    lost = [object_path(ObjectKind.MANIFEST, entry.manifest.digest), document_path(DocumentKind.PLACEMENT, f"{NEXT}.1")]
    for path in lost:
        (store.public / path).unlink()
    assert sorted(pair.back_up().missing) == sorted(lost)
    report = pair.restore()
    assert (report.made, {one.place for one in report.damage}) == (False, set(lost))
    report = pair.restore(source=mirror)
    assert (report.made, report.damage, report.incomplete) == (True, [], [])
    assert checked(pair.restored) == [NAME, NEXT]


# Interruptions


@pytest.mark.parametrize("call", ["fsync", pytest.param("replace", marks=pytest.mark.slow)])
def test_interrupted_anywhere_it_is_no_store_and_continues(whole, monkeypatch, call):
    with failing(monkeypatch, 0, Killed(), call=call) as count:
        whole.restore()
    expected = public(whole.restored)
    made = 0
    for number in range(1, count[0] + 1, 5 if call == "fsync" else 2):
        shutil.rmtree(whole.restored, ignore_errors=True)
        with failing(monkeypatch, number, Killed("here"), call=call), pytest.raises(Killed):
            whole.restore()
        if (whole.restored / "public/store.json").exists():
            made += 1
            assert checked(whole.restored) == [NAME, NEXT]
        elif (whole.restored / "restore.json").exists():
            with pytest.raises(Refused, match="neither empty nor a pacball store"):
                Store.create(whole.restored)
        report = whole.restore()
        assert (report.made, report.damage, report.incomplete) == (True, [], [])
        assert public(whole.restored) == expected
        assert not (whole.restored / "restore.json").exists()
        assert checked(whole.restored) == [NAME, NEXT]
    assert made <= 2


def test_one_restore_at_a_time(whole):
    def again(step):
        if step == 1:
            with pytest.raises(Unavailable, match="another restore is at work here"):
                whole.restore()

    notes = Notes(again)
    assert whole.restore(progress=notes).made
    assert notes.steps > 1


def test_a_full_disk_is_said_and_what_was_copied_stays(whole, monkeypatch):
    with failing(monkeypatch, 0, full()) as count:
        whole.restore()
    for number in range(3, count[0] - 3, count[0] // 8):
        shutil.rmtree(whole.restored)
        with failing(monkeypatch, number, full()), pytest.raises(Unavailable, match="no space") as caught:
            whole.restore()
        assert "run the same command again" in caught.value.hint
        have = [
            p for p in public(whole.restored) if p.split("/")[0] in ("packs", "manifests", "attributes", "provenance")
        ]
        report = whole.restore()
        assert report.made
        assert report.kept >= len(have)
        assert os.listdir(whole.restored / "private/staging") == []


# Refusals


def test_only_a_new_or_empty_directory_becomes_a_store(whole, tmp_path, backed_up):
    write(tmp_path / "home/file", b"mine")
    Store.create(tmp_path / "other").close()
    write(tmp_path / "file", b"")
    for place, fault in {
        "home": "neither empty",
        "other": "is a store already",
        "backup": "lies inside",
        "backup/store": "lies inside",
        "file": "neither empty|not a directory|does not exist",
    }.items():
        before = snapshot(tmp_path)
        with pytest.raises(PacballError, match=fault):
            whole.restore(to=tmp_path / place)
        assert snapshot(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert whole.restore(to=tmp_path / "empty").made


def test_only_a_finished_backup_is_restored(whole, tmp_path):
    record = read_record(whole.backup)
    path = whole.backup / "private/backup.json"
    for broken, kind, fault in (
        (b"{", Corrupt, "not JSON.*run pacball store backup to it again"),
        (b"{}", Corrupt, "not the record of a backup"),
        (record.encode().replace(b'"format":1', b'"format":2'), NewerFormat, "newer pacball"),
        (BackupRecord(begun=int(NOW)).encode(), Refused, "never finished"),
    ):
        overwrite(path, broken)
        with pytest.raises(kind, match=fault):
            whole.restore()
    path.unlink()
    with pytest.raises(NotFound, match="is not a backup of a pacball store"):
        whole.restore()
    assert not whole.restored.exists()


def test_the_backup_of_a_newer_store_is_refused(whole):
    marker = whole.backup / "public/store.json"
    data = marker.read_bytes().replace(b'"format":1', b'"format":2')
    overwrite(marker, data)
    with pytest.raises(NewerFormat, match="newer pacball"):
        whole.restore()
    assert not whole.restored.exists()


def test_a_restore_that_was_begun_is_continued_with_the_same_only(whole, monkeypatch, tmp_path):
    with failing(monkeypatch, 60, Killed("here")), pytest.raises(Killed):
        whole.restore(state_dir=tmp_path / "state")
    with pytest.raises(Refused, match="begun from another backup, or with another --state-dir"):
        whole.restore()
    record = read_record(whole.backup)
    write_record(whole.backup, dataclasses.replace(record, time=record.time + 1))
    with pytest.raises(Refused, match="begun from another backup"):
        whole.restore(state_dir=tmp_path / "state")
    write_record(whole.backup, record)
    assert whole.restore(state_dir=tmp_path / "state").made
    assert (tmp_path / "state/index.sqlite").exists()
    with pytest.raises(Refused, match="keeps its databases in"):
        whole.restore(state_dir=tmp_path / "elsewhere")
    assert whole.restore(state_dir=tmp_path / "state").made
    assert whole.restore().made


def test_a_later_backup_is_not_restored_over_a_store_made_from_an_earlier_one(whole):
    whole.restore()
    record = read_record(whole.backup)
    write_record(whole.backup, dataclasses.replace(record, catalog_version=record.catalog_version + 1))
    before = snapshot(whole.restored)
    with pytest.raises(Refused, match=r"is a store with version . of the catalog, the backup has .*new or empty"):
        whole.restore()
    assert public(whole.restored) == {
        p.removeprefix("public/"): d for p, d in before.items() if p.startswith("public/")
    }


def test_the_databases_of_another_store_are_left_alone(whole, tmp_path):
    with Store.create(tmp_path / "other", state_dir=tmp_path / "state") as store:
        store.index.counts()
    before = snapshot(tmp_path)
    with pytest.raises(Refused, match="has the databases of another store"):
        whole.restore(state_dir=tmp_path / "state")
    assert snapshot(tmp_path) == before


# Records


def test_a_record_comes_back():
    digest = Digest.of(b"x")
    record = BackupRecord(
        complete=True, catalog_version=7, time=1_800_000_000, packs=True, catalog=digest, held=("A-1-x",),
        damaged=("packs/ab/x",), begun=1_800_000_001, files={"public/store.json": Listed(3, digest)},
    )  # fmt: skip
    assert BackupRecord.parse(record.encode(), place="here") == record
    assert BackupRecord.parse(BackupRecord().encode(), place="here") == BackupRecord()


@given(st.data())
def test_a_record_that_was_changed_gives_our_errors_or_a_record(data):
    digest = Digest.of(b"x")
    good = BackupRecord(time=5, held=("A-1-x",), files={"public/store.json": Listed(3, digest)}).encode()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :]
    with suppress(Corrupt, NewerFormat):
        record = BackupRecord.parse(changed, place="here")
        assert BackupRecord.parse(record.encode(), place="here") == record


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "public/../private/x", "private/backup.json", "private/catalog/../settings.json", "private/keys/x.pem",
     "public/packs/x", "public/holdings/A", "public/catalog/", "public/catalog/a/b", "private/catalog/.x", "restore.json",
     "public/store.json\n", "private/x.sqlite/y", "private/../x.sqlite"],
)  # fmt: skip
def test_a_record_lists_nothing_that_restoring_must_not_write(path):
    value = json.loads(BackupRecord().encode()) | {"files": {path: [1, "0" * 64]}}
    with pytest.raises(Corrupt, match="is no file of a store"):
        BackupRecord.parse(json.dumps(value).encode(), place="here")


@pytest.mark.parametrize(
    "changes",
    [{"complete": 1}, {"catalog_version": -1}, {"catalog_version": True}, {"time": 5}, {"time": "yesterday"}, {"packs": None},
     {"catalog": "xyz"}, {"damaged": "all"}, {"held": [1]}, {"files": []}, {"files": {"public/store.json": 5}},
     {"files": {"public/store.json": [-1, "0" * 64]}}, {"files": {"public/store.json": [1, "0"]}},
     {"files": {"public/store.json": [1, 0]}}, {"format": "1"}, {"format": 0}, {"kind": "pacball store"}],
)  # fmt: skip
def test_a_record_that_is_none_is_named(changes):
    value = json.loads(BackupRecord().encode()) | changes
    with pytest.raises(Corrupt) as caught:
        BackupRecord.parse(json.dumps(value).encode(), place="here")
    assert caught.value.place == "here"

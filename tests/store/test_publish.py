from __future__ import annotations

import dataclasses
import os
import shutil
import threading

import pytest

from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.holdings import Holdings
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.contract.faulty import FaultyStorage, Killed, disk_full, killed, unavailable
from tests.store.releases import (
    NAME,
    NEXT,
    NOW,
    OPTIONS,
    Notes,
    Origin,
    as_nobody,
    contents,
    leftovers,
    limit_file_size,
    make_tree,
    noise,
    originals,
    write,
)


def test_releases_come_back_and_the_store_is_sound(origin, trees):
    for version, directory in enumerate(trees):
        done = origin.publish(directory, f"Demo-1.{version}-x86_64")
        assert (done.existed, done.files) == (False, len(originals(directory)))
    assert origin.listed() == [f"Demo-1.{version}-x86_64" for version in range(3)]
    for version, directory in enumerate(trees):
        assert origin.assembled(f"Demo-1.{version}-x86_64") == originals(directory)
    assert origin.check().damage == []
    assert leftovers(origin.store) == []


def test_what_is_returned_is_what_the_catalog_and_the_holdings_say(origin, trees):
    done = origin.publish(trees[0])
    entry = origin.entry()
    assert (done.tree_digest, done.manifest_digest) == (entry.tree_digest, entry.manifest.digest)
    assert (done.bytes_total, done.files) == (entry.total_bytes, entry.files)
    assert done.bytes_stored == sum(
        origin.store.storage.size(ObjectKind.PACK, p) for p, _ in origin.store.index.packs()
    )
    held = Holdings.parse(origin.store.storage.get(DocumentKind.HOLDINGS, NAME, limit=10_000), place="")
    assert held.placement_digest == entry.placement.digest
    assert done.created_keys == ("line-Demo",)
    assert origin.publish(trees[1], NEXT).created_keys == ()


def test_the_same_tree_again_is_a_quiet_success(origin, trees, tmp_path):
    first = origin.publish(trees[0])
    copy = shutil.copytree(trees[0], tmp_path / "copy", symlinks=True)
    os.utime(copy / "version", (1, 1))
    before = origin.public()
    notes = Notes()
    again = origin.publish(copy, progress=notes)
    assert again == dataclasses.replace(
        first, existed=True, bytes_new=0, bytes_rewritten=0, bytes_stored=0, created_keys=()
    )
    assert origin.public() == before
    assert notes.phases == ["comparing"]


def test_another_tree_under_the_same_name_is_refused(origin, trees):
    first = origin.publish(trees[0])
    before = origin.public()
    with pytest.raises(Refused, match=f"bound for ever to the tree {first.tree_digest}.*new version") as caught:
        origin.publish(trees[1])
    assert caught.value.place == NAME
    assert origin.public() == before


@pytest.mark.parametrize("name", ["demo-1.0-x86_64", "Demo-1.0-X86_64"])
def test_names_that_differ_in_case_only_are_refused_before_anything_is_read(origin, trees, name):
    origin.publish(trees[0])
    before = origin.public()
    notes = Notes()
    with pytest.raises(Refused, match="case"):
        origin.publish(trees[1], name, progress=notes)
    assert (origin.public(), notes.phases) == (before, [])


def test_directories_that_cannot_be_published(origin, tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "file", b"")
    inner = origin.store.path / "tree"
    write(inner / "file", b"")
    (tmp_path / "link").symlink_to(inner)
    for directory, fault in (
        (tmp_path / "empty", "is empty"),
        (tmp_path / "file", "is no archive"),
        (tmp_path / "missing", "is neither a directory nor a file"),
        (tmp_path, "inside one another"),
        (inner, "inside one another"),
        (origin.store.path, "inside one another"),
        (tmp_path / "link", "inside one another"),
    ):
        with pytest.raises(Refused, match=fault):
            origin.publish(directory)
    assert origin.listed() == []


def test_a_file_that_no_release_may_have_costs_no_reading(origin, tmp_path):
    write(tmp_path / "tree/a", noise("a", 2_000_000))
    os.mkfifo(tmp_path / "tree/z")
    before = origin.public()
    notes = Notes()
    with pytest.raises(Refused, match="tree/z: is a FIFO"):
        origin.publish(tmp_path / "tree", progress=notes)
    assert (origin.public(), notes.bytes) == (before, 0)


def test_warnings_are_given_once(origin, tmp_path):
    write(tmp_path / "tree/key", b"secret").chmod(0o600)
    notes = Notes()
    origin.publish(tmp_path / "tree", progress=notes)
    origin.publish(tmp_path / "tree", progress=notes)
    assert len(notes.warnings) == 2


def test_a_missing_key_is_known_before_anything_is_read(origin, trees):
    origin.publish(trees[0])
    (origin.keys.directory / "line-Demo.pem").unlink()
    notes = Notes()
    with pytest.raises(NotFound, match="no key of this line is here"):
        origin.publish(trees[1], NEXT, progress=notes)
    assert notes.phases == []


def test_no_directory_that_is_published_leaves_a_file_open(origin, trees):
    origin.publish(trees[0])
    before = len(os.listdir("/proc/self/fd"))
    for version in (1, 2):
        origin.publish(trees[version], f"Demo-1.{version}-x")
    with pytest.raises(Refused):
        origin.publish(trees[2], NAME)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert not [t for t in threading.enumerate() if t.name.startswith(("compress", "finish", "reader"))]


def with_faults(origin, at, fail, only=()):
    faulty = FaultyStorage(origin.store.storage, at, fail, only)
    origin.store.storage = faulty
    catalog = Catalog(faulty)
    return Origin(origin.top, origin.store, catalog, origin.keys), faulty


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two trees of few packs."""
    top = tmp_path_factory.mktemp("small")
    return [make_tree(top / version, version=version, kib=400) for version in ("1", "2")]


def count_calls(top, small):
    origin = Origin.make(top)
    origin.publish(small[0])
    origin, faulty = with_faults(origin.again(), 0, unavailable)
    origin.publish(small[1], NEXT)
    origin.store.close()
    return len(faulty.calls)


@pytest.mark.parametrize("step", [9, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fail", [unavailable, disk_full, killed])
def test_an_error_at_any_call_loses_nothing(tmp_path, small, fail, step):
    """The store opens, lists what was acknowledged, is sound, and the next attempt uses the packs that were finished."""
    calls = count_calls(tmp_path / "count", small)
    assert calls > 30
    first = Origin.make(tmp_path / "first")
    first.publish(small[0])
    first.store.close()
    expected = originals(small[1])
    for at in range(1, calls + 1, step):
        shutil.copytree(first.top, tmp_path / "copy")
        origin = Origin(
            tmp_path / "copy", Store.open(tmp_path / "copy/store", writable=True), first.catalog, first.keys
        )
        faulty, _ = with_faults(origin, at, fail)
        acknowledged = attempt(faulty, small[1])
        again = faulty.again()
        assert leftovers(again.store) == []
        assert NAME in again.listed()
        assert not acknowledged or NEXT in again.listed()
        assert again.check().damage == []
        packs = set(again.store.storage.digests(ObjectKind.PACK))
        done = again.publish(small[1], NEXT)
        assert packs <= set(again.store.storage.digests(ObjectKind.PACK))
        assert done.existed or len(packs) < 3 or done.bytes_new < done.bytes_total
        assert again.assembled(NEXT) == expected
        assert again.check().damage == []
        again.store.close()
        shutil.rmtree(tmp_path / "copy")


def attempt(origin, directory):
    try:
        origin.publish(directory, NEXT)
    except (Unavailable, Killed):
        return False
    return True


def test_a_disk_that_is_really_full(shared_path, small):
    """Files may not grow beyond the size of a small pack: the index, too, is stopped by this somewhere."""
    origin = Origin.make(shared_path / "origin")
    shutil.copytree(small[0], shared_path / "tree", symlinks=True)
    before = origin.public()
    origin.store.close()

    def work():
        again = origin.again()
        limit_file_size(300_000)
        with pytest.raises(Unavailable) as caught:
            again.publish(shared_path / "tree")
        return str(caught.value)

    message = as_nobody(work, owner_of=shared_path)
    assert "file too large" in message
    again = origin.again()
    assert {name: data for name, data in again.public().items() if name in before} == before
    assert again.listed() == []
    assert leftovers(again.store) == []
    again.publish(small[0])
    assert again.check().damage == []
    again.store.close()


def test_a_read_only_store(shared_path, small):
    expected = originals(small[0])
    origin = Origin.make(shared_path / "origin")
    origin.publish(small[0])
    origin.store.close()
    shutil.copytree(small[1], shared_path / "tree", symlinks=True)
    for directory, _, _ in os.walk(origin.store.path):
        os.chmod(directory, 0o500)

    def work():
        with Store.open(origin.store.path, writable=False) as store:
            entries = Catalog.open(store.storage).releases()
            assert contents(store, entries[0]) == expected
        assert origin.check().damage == []
        with pytest.raises(Unavailable, match=r"cannot be written.*check permissions"):
            Store.create(origin.store.path)

    as_nobody(work, owner_of=shared_path)


class Racing:
    """Progress that lets something else happen when the ingest begins."""

    def __init__(self, act):
        self._act = act

    def begin(self, phase, total_bytes):
        if phase == "publishing":
            self._act()

    def advance(self, count_bytes):
        """Not needed."""

    def warn(self, message):
        """Not needed."""


def race(origin, directory, act):
    other = origin.again()
    try:
        return publish(directory, Release.parse(NAME), other.store, other.catalog, keys=other.keys, options=OPTIONS,
                       progress=Racing(act), now=lambda: NOW)  # fmt: skip
    finally:
        other.store.close()


def test_of_two_publishers_of_one_name_the_second_changes_nothing(origin, trees):
    """It looked for the name before the first had it."""
    snapshots = []

    def first():
        origin.publish(trees[0])
        snapshots.append(origin.store.storage.get(DocumentKind.HOLDINGS, NAME, limit=10_000))

    with pytest.raises(Refused, match="bound for ever"):
        race(origin, trees[1], first)
    assert origin.store.storage.get(DocumentKind.HOLDINGS, NAME, limit=10_000) == snapshots[0]
    assert origin.assembled() == originals(trees[0])
    assert origin.check().damage == []


def test_of_two_publishers_of_one_tree_both_succeed(origin, trees):
    done = race(origin, trees[0], lambda: origin.publish(trees[0]))
    assert done.existed
    assert done.tree_digest == origin.entry().tree_digest
    assert origin.check().damage == []


STALE = {
    "a pack that is missing": "",
    "other offsets": "UPDATE chunks SET offset = offset + 1",
    "other frames": "UPDATE chunks SET frame = frame % 3 + 1",
    "frames elsewhere": "UPDATE frames SET offset = offset + 1",
    "frames of other lengths": "UPDATE frames SET length = length - 1",
    "frames of another pack": "UPDATE frames SET pack = pack % 3 + 1",
    "packs of other lengths": "UPDATE packs SET length = length + 1",
    "no frames": "DELETE FROM frames",
}


@pytest.mark.parametrize("stale", STALE)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_a_stale_index_says_is_never_published(origin, trees, stale, share):
    origin.publish(trees[0])
    statement = STALE[stale]
    if statement:
        with origin.store.index._database.writing() as connection:
            connection.exec_driver_sql(statement)
    else:
        storage = origin.store.storage
        storage.delete(
            ObjectKind.PACK, max(storage.digests(ObjectKind.PACK), key=lambda d: storage.size(ObjectKind.PACK, d))
        )
    options = dataclasses.replace(OPTIONS, sizes=dataclasses.replace(OPTIONS.sizes, rewrite_share=share))
    with pytest.raises(Corrupt, match=r"index|old frame") as caught:
        origin.publish(trees[1], NEXT, options=options)
    assert "store reindex" in caught.value.hint
    assert origin.listed() == [NAME]
    assert list(origin.store.storage.names(DocumentKind.HOLDINGS)) == [NAME]


def test_a_placement_that_an_interrupted_publish_left_is_not_overwritten(origin, trees):
    origin.store.storage.put(DocumentKind.PLACEMENT, f"{NAME}.1", b"left over")
    origin.publish(trees[0])
    assert origin.entry().placement_number == 2
    assert origin.store.storage.get(DocumentKind.PLACEMENT, f"{NAME}.1", limit=100) == b"left over"
    assert origin.check().damage == []


def test_releases_without_a_byte(origin, tmp_path):
    (tmp_path / "tree/dir").mkdir(parents=True)
    origin.publish(tmp_path / "tree")
    assert origin.assembled() == {}
    write(tmp_path / "other/empty", b"")
    origin.publish(tmp_path / "other", NEXT)
    assert origin.assembled(NEXT) == {"empty": b""}
    assert origin.check().damage == []


def test_modes_of_what_is_published(origin, trees):
    old = os.umask(0o077)
    try:
        origin.publish(trees[0])
    finally:
        os.umask(old)
    modes = {}
    for path in origin.store.public.rglob("*"):
        top = path.relative_to(origin.store.public).parts[0]
        modes.setdefault((top, path.is_dir()), set()).add(oct(path.stat().st_mode & 0o777))
    for kind in (ObjectKind.PACK, ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES):
        assert modes[kind.value, False] == {"0o444"}
    # Links are the documents themselves.
    assert modes["releases", False] == {"0o444", "0o644"}
    assert {mode for (_, is_dir), found in modes.items() if is_dir for mode in found} == {"0o755"}
    assert modes["holdings", False] == modes["catalog", False] == modes["store.json", False] == {"0o644"}
    assert origin.store.private.stat().st_mode & 0o777 == 0o700

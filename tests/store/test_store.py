from __future__ import annotations

import json
import os
import stat
import threading
import time

import pytest

from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Refused, Unavailable
from pacstore.index import ChunkIndex
from pacstore.marker import MARKER
from pacstore.store import Store, check_local
from tests.store.releases import Origin, as_nobody, snapshot, write


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_store(tmp_path):
    with Store.create(tmp_path / "deep/er/store") as store:
        assert store.public.joinpath("store.json").read_bytes() == b'{"format":1,"kind":"pacball store"}\n' == MARKER
        assert sorted(os.listdir(store.path)) == ["private", "public"]
        expected = [
            "attributes",
            "bundles",
            "catalog",
            "holdings",
            "manifests",
            "packs",
            "placements",
            "provenance",
            "store.json",
        ]
        assert sorted(os.listdir(store.public)) == expected
        assert {mode(store.public / name) for name in expected[:-1]} == {0o755}
        assert (mode(store.private), mode(store.staging)) == (0o700, 0o700)
        assert store.index.counts() == (0, 0, 0)
        assert store.index_path == store.private / "index.sqlite"
    before = snapshot(tmp_path)
    Store.create(tmp_path / "deep/er/store").close()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_docroot_can_be_read_whatever_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        store = Store.create(tmp_path / "store")
    finally:
        os.umask(old)
    assert {mode(path) for path in store.public.rglob("*") if path.is_dir()} == {0o755}
    assert mode(store.public / "store.json") == 0o644
    assert mode(store.private) == 0o700


def test_other_directories_are_left_alone(tmp_path):
    write(tmp_path / "home/file", b"mine")
    with pytest.raises(Refused, match="neither empty nor a pacball store"):
        Store.create(tmp_path / "home")
    write(tmp_path / "file", b"")
    with pytest.raises(PacballError, match=r"not a directory|does not exist"):
        Store.create(tmp_path / "file/store")
    assert snapshot(tmp_path) == {"home/file": b"mine", "file": b""}
    with pytest.raises(NotFound, match=r"is not a pacball store.*publish to it first"):
        Store.open(tmp_path / "home", writable=False)


def test_a_store_whose_making_was_interrupted_is_finished(tmp_path):
    store = Store.create(tmp_path / "store")
    (store.public / "store.json").unlink()
    (store.public / "packs").rmdir()
    Store.create(tmp_path / "store").close()
    assert (store.public / "packs").is_dir()


def test_stores_made_at_once_are_one(tmp_path):
    barrier, errors = threading.Barrier(6), []

    def work():
        barrier.wait()
        try:
            with Store.create(tmp_path / "store") as store:
                store.index.counts()
        except Exception as error:  # noqa: BLE001 - compared below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize(
    ("marker", "kind", "fault"),
    [
        (b'{"format":2,"kind":"pacball store"}', NewerFormat, "version 2.*newer pacball"),
        (b'{"format":0,"kind":"pacball store"}', Corrupt, "format"),
        (b'{"format":1,"kind":"other"}', Corrupt, "not the marker"),
        (b"<html>", Corrupt, "not JSON"),
        (b"", Corrupt, "not JSON"),
        (b" " * 5000, PacballError, "4096"),
    ],
)
def test_what_the_marker_says(tmp_path, marker, kind, fault):
    store = Store.create(tmp_path / "store")
    (store.public / "store.json").write_bytes(marker)
    for writable in (False, True):
        with pytest.raises(kind, match=fault):
            Store.open(tmp_path / "store", writable=writable)
    with pytest.raises(kind, match=fault):
        Store.create(tmp_path / "store")


def test_later_keys_of_the_marker_are_ignored(tmp_path):
    store = Store.create(tmp_path / "store")
    (store.public / "store.json").write_text(json.dumps({"format": 1, "kind": "pacball store", "later": [1]}))
    Store.open(tmp_path / "store", writable=True).close()


def test_a_docroot_alone_cannot_be_published_to(tmp_path):
    store = Store.create(tmp_path / "store")
    store.staging.rmdir()
    store.private.rmdir()
    Store.open(tmp_path / "store", writable=False).close()
    with pytest.raises(Refused, match="no private part"):
        Store.open(tmp_path / "store", writable=True)


def test_a_store_that_may_not_be_written(shared_path):
    Store.create(shared_path / "store").close()
    (shared_path / "store/private/staging").chmod(0o500)

    def attempt():
        Store.open(shared_path / "store", writable=False).close()
        with pytest.raises(Unavailable, match=r"cannot be written.*permissions"):
            Store.open(shared_path / "store", writable=True)

    as_nobody(attempt, owner_of=shared_path)


def test_a_store_behind_links(tmp_path, trees):
    origin = Origin.make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real/store")
    with Store.create(tmp_path / "link") as store:
        origin.store.close()
        through = Origin(tmp_path, store, origin.catalog, origin.keys)
        through.publish(trees[0])
        with pytest.raises(Refused, match="lie inside one another"):
            through.publish(tmp_path / "real")
    assert origin.check().damage == []


def test_the_state_lives_where_it_was_told_to(tmp_path):
    with Store.create(tmp_path / "store", state_dir=tmp_path / "state/deep") as store:
        assert store.index_path == tmp_path / "state/deep/index.sqlite"
        assert store.index.counts() == (0, 0, 0)
    assert mode(tmp_path / "state/deep") == 0o700
    assert not (tmp_path / "store/private/index.sqlite").exists()
    for same in (None, tmp_path / "state/../state/deep"):
        with Store.create(tmp_path / "store", state_dir=same) as store:
            assert store.index_path.exists()
    with pytest.raises(Refused, match=r"keeps its databases in .*state/deep.*leave out --state-dir"):
        Store.create(tmp_path / "store", state_dir=tmp_path / "elsewhere")


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
fs /srv/with\\040space lustre rw 0 0
fs /srv/with ext4 rw 0 0
fs /srv/grüße cephfs rw 0 0
fs /srv/größe ceph rw 0 0
fs /srv/\udcff nfs rw 0 0
auto /auto autofs rw 0 0
server:/auto /auto nfs rw 0 0
broken
ssh /mnt/ssh fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/data/store", ""),
        ("/home/user/store", "nfs4"),
        ("/home", "nfs4"),
        ("/homestead", ""),
        ("/home/local/store", ""),
        ("/srv/with space/store", "lustre"),
        ("/srv/with/store", ""),
        ("/srv/größe/x", "ceph"),
        ("/srv/\udcff/x", "nfs"),
        ("/auto/x", "nfs"),
        ("/mnt/ssh", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_refused(directory, kind, tmp_path):
    if not kind:
        check_local(tmp_path.joinpath(directory), MOUNTS)
        return
    with pytest.raises(Refused, match=rf"network file system \({kind}\).*--state-dir"):
        check_local(tmp_path.joinpath(directory), MOUNTS)


def test_a_link_to_a_network_file_system_is_one(tmp_path):
    (tmp_path / "link").symlink_to("/home/user")
    with pytest.raises(Refused, match="nfs4"):
        check_local(tmp_path / "link/store", MOUNTS)
    check_local(tmp_path, "")


def test_a_missing_index_beside_packs_is_named(origin, trees):
    origin.publish(trees[0])
    origin = origin.again()
    origin.store.index_path.unlink()
    with pytest.raises(Corrupt, match=r"the index is damaged: it is missing.*store reindex"):
        _ = origin.store.index
    assert not origin.store.index_path.exists()
    assert origin.store.empty_index().counts() == (0, 0, 0)
    origin.store.close()


def test_an_index_beside_no_packs_is_made(origin):
    origin.store.close()
    origin.store.index_path.unlink(missing_ok=True)
    with origin.again().store as store:
        assert store.index.counts() == (0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, "newer"])
def test_a_damaged_index_is_put_aside(origin, trees, content):
    origin.publish(trees[0])
    origin = origin.again()
    path = origin.store.index_path
    if content == "newer":
        with origin.store.index._database.writing() as connection:
            connection.exec_driver_sql("PRAGMA user_version = 99")
        origin = origin.again()
    else:
        path.write_bytes(content)
    with pytest.raises((Corrupt, NewerFormat)):
        _ = origin.store.index
    assert origin.store.empty_index().counts() == (0, 0, 0)
    assert path.with_name("index.sqlite.damaged").exists()
    origin.store.close()
    ChunkIndex(path, make=False).close()


def test_settings_that_are_damaged_are_named(tmp_path):
    store = Store.create(tmp_path / "store")
    store.remember_keys(tmp_path / "keys")
    assert store.keys_dir == tmp_path / "keys"
    assert mode(store.private / "settings.json") == 0o600
    (store.private / "settings.json").write_bytes(b"{")
    with pytest.raises(Corrupt, match="not JSON") as caught:
        _ = Store.open(tmp_path / "store", writable=True).keys_dir
    assert caught.value.place.endswith("settings.json")


def test_stale_staging_is_dropped_and_fresh_is_kept(tmp_path):
    store = Store.create(tmp_path / "store")
    now = time.time()
    for name, age in (("old", 25 * 3600), ("new", 3600)):
        write(store.staging / name, b"")
        os.utime(store.staging / name, (now - age, now - age))
    store.drop_stale_staging(now)
    assert os.listdir(store.staging) == ["new"]


def test_the_catalog_lock_excludes_and_is_let_go(tmp_path):
    store, other = Store.create(tmp_path / "store"), Store.create(tmp_path / "store")
    order = []

    def work():
        with other.catalog_lock():
            order.append("other")

    with store.catalog_lock():
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]

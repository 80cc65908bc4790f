from __future__ import annotations

import errno
import os
import stat
from contextlib import closing

import pytest

from pacstore import durable
from pacstore.backends.directory import DirectoryStorage
from pacstore.digest import Digest
from pacstore.durable import make_directory, staged_file, unavailable
from pacstore.errors import NotFound, Unavailable
from pacstore.storage import DocumentKind, ObjectKind, object_path
from tests.contract.storage import (
    DATA,
    DIGEST,
    LINKED,
    SHA,
    TARGET,
    StorageContract,
    read_link,
    read_object,
    store_object,
    stored_links,
)
from tests.store.releases import as_nobody, limit_file_size


def make_storage(top):
    for kind in (*ObjectKind, *DocumentKind):
        (top / "public" / kind.value).mkdir(parents=True)
    (top / "staging").mkdir()
    return DirectoryStorage(top / "public", top / "staging")


@pytest.fixture
def storage(tmp_path):
    return make_storage(tmp_path)


class TestDirectoryStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path):
        return make_storage(tmp_path)


def test_unknown_is_neither_present_nor_absent(storage):
    path = storage.public / object_path(ObjectKind.PACK, DIGEST)
    path.parent.symlink_to(path.parent.name)
    for call in (storage.open, storage.size, storage.delete):
        with pytest.raises(Unavailable, match="symbolic links"):
            call(ObjectKind.PACK, DIGEST)
    (storage.public / "holdings/name").symlink_to("name")
    with pytest.raises(Unavailable, match="symbolic links"):
        storage.get(DocumentKind.HOLDINGS, "name", limit=1)


def test_an_unreadable_object_is_unavailable(shared_path):
    storage = make_storage(shared_path)
    store_object(storage)
    path = storage.public / object_path(ObjectKind.PACK, DIGEST)
    path.chmod(0)

    def attempt():
        with pytest.raises(Unavailable, match=r"permission denied.*run as the owner"):
            storage.open(ObjectKind.PACK, DIGEST)

    as_nobody(attempt, owner_of=shared_path)


def test_staging_is_empty_afterwards_and_never_public(storage):
    with storage.stage(ObjectKind.PACK) as staged:
        staged.write(DATA)
        assert len(os.listdir(storage.public.parent / "staging")) == 1
        assert [file for _, _, files in os.walk(storage.public) for file in files] == []
    store_object(storage)
    storage.put(DocumentKind.HOLDINGS, "a", b"x")
    storage.create(DocumentKind.HOLDINGS, "b", b"x")
    assert os.listdir(storage.public.parent / "staging") == []


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(storage, mask):
    old = os.umask(mask)
    try:
        store_object(storage)
        storage.put(DocumentKind.HOLDINGS, "name", b"x")
        make_directory(storage.public / "secret", mode=0o700)
    finally:
        os.umask(old)
    path = storage.public / object_path(ObjectKind.PACK, DIGEST)
    found = [path, path.parent, storage.public / "holdings/name", storage.public / "secret"]
    assert [stat.S_IMODE(p.stat().st_mode) for p in found] == [0o444, 0o755, 0o644, 0o700]


def test_what_is_no_object_is_not_listed_as_one(storage):
    store_object(storage)
    (storage.public / "packs/.directory").write_bytes(b"")
    (storage.public / "packs/ab").mkdir(exist_ok=True)
    (storage.public / "packs/ab/README").write_bytes(b"")
    (storage.public / "packs/zz").mkdir()
    (storage.public / f"packs/zz/{DIGEST}").write_bytes(b"misplaced")
    assert list(storage.digests(ObjectKind.PACK)) == [DIGEST]
    assert sorted(storage.strays()) == ["packs/.directory", "packs/ab/README", f"packs/zz/{DIGEST}"]


def test_no_descriptor_stays_open(storage):
    before = len(os.listdir("/proc/self/fd"))
    store_object(storage)
    with storage.stage(ObjectKind.PACK) as staged:
        staged.write(DATA)
    with closing(storage.open(ObjectKind.PACK, DIGEST)):
        pass
    with pytest.raises(NotFound):
        storage.get(DocumentKind.HOLDINGS, "none", limit=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_may_not_grow_is_a_clear_error(shared_path):
    storage = make_storage(shared_path)

    def attempt():
        limit_file_size(10_000)
        with pytest.raises(Unavailable, match="file too large"):
            store_object(storage)

    as_nobody(attempt, owner_of=shared_path)
    assert list(storage.digests(ObjectKind.PACK)) == []
    assert os.listdir(shared_path / "staging") == []


def test_a_directory_that_another_process_made_is_synced_too(tmp_path):
    (tmp_path / "there").mkdir(mode=0o750)
    make_directory(tmp_path / "there")
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o750
    with pytest.raises(FileNotFoundError):
        make_directory(tmp_path / "missing" / "there")


def test_a_staged_file_that_was_renamed_stays(tmp_path):
    with staged_file(tmp_path, mode=0o600) as (descriptor, path):
        durable.write_all(descriptor, b"x" * 100_000)
        os.replace(path, tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"x" * 100_000
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.ENOENT, NotFound, ""),
        (errno.ENOTDIR, NotFound, ""),
        (errno.ENOSPC, Unavailable, "free some space"),
        (errno.EDQUOT, Unavailable, "quota"),
        (errno.EROFS, Unavailable, "read-only"),
        (errno.EIO, Unavailable, "check it"),
        (errno.EMFILE, Unavailable, "ulimit"),
        (errno.ESTALE, Unavailable, ""),
        (errno.EACCES, Unavailable, "permissions"),
    ],
)
def test_errors_of_the_system_become_ours(number, kind, hint):
    error = unavailable(OSError(number, os.strerror(number), "/some/place"))
    assert type(error) is kind
    assert error.place == "/some/place"
    assert hint in error.hint


def test_reading_after_replacing_a_damaged_object(storage):
    store_object(storage)
    path = storage.public / object_path(ObjectKind.PACK, DIGEST)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    store_object(storage)
    assert read_object(storage, DIGEST) == DATA


def test_a_link_is_the_very_file(storage):
    """So it takes no room, and its mode is that of the file."""
    for link in stored_links(storage):
        storage.link([link])
        assert os.path.samefile(storage.public / link.path, storage.public / link.file)
    assert os.listdir(storage.public.parent / "staging") == []


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_directories_of_links_can_be_read_by_a_web_server(storage, mask):
    old = os.umask(mask)
    try:
        storage.link(stored_links(storage))
    finally:
        os.umask(old)
    modes = [(storage.public / path).stat().st_mode for path in ("releases", "releases/Demo", TARGET)]
    assert [stat.S_IMODE(mode) for mode in modes] == [0o755] * 3


def test_a_link_to_a_damaged_copy_is_made_anew(storage):
    """As it is after a copy of the store that does not know hard links."""
    links = stored_links(storage)
    storage.link(links)
    for link in links:
        path = storage.public / link.path
        path.unlink()
        path.write_bytes(b"damaged")
    storage.link(links)
    assert [read_link(storage, link.path) for link in links] == [kind.encode() for kind in LINKED]


def test_what_is_no_link_is_not_listed_as_one(storage):
    storage.link(stored_links(storage))
    paths = [
        "releases/.nfs1",
        "releases/Demo/README",
        f"{TARGET}/manifest",
        f"releases/Other/Demo-1.0-x/{SHA}.manifest",
    ]
    for path in paths:
        (storage.public / path).parent.mkdir(parents=True, exist_ok=True)
        (storage.public / path).write_bytes(b"")
    (storage.public / TARGET / "link").symlink_to("manifest")
    (storage.public / "releases/empty").mkdir()
    assert len(list(storage.links())) == 4
    assert sorted(storage.strays()) == sorted([*paths, f"{TARGET}/link"])


def test_a_store_of_before_provenance_and_links(storage):
    """It has no directories for either: that is no error, and they are made when they are needed."""
    (storage.public / "provenance").rmdir()
    assert list(storage.digests(ObjectKind.PROVENANCE)) == []
    assert (list(storage.strays()), list(storage.links())) == ([], [])
    links = stored_links(storage)
    storage.link(links)
    assert read_object(storage, Digest.of(b"provenance"), ObjectKind.PROVENANCE) == b"provenance"
    assert len(list(storage.links())) == 4


def test_a_docroot_that_is_not_there_is_not_empty(storage):
    (storage.public).rename(storage.public.parent / "elsewhere")
    for call in (storage.links, storage.strays, lambda: storage.digests(ObjectKind.PROVENANCE)):
        with pytest.raises(NotFound):
            list(call())

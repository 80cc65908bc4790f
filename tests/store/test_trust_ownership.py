"""Which store directories may say themselves which root to trust."""

import os

import pytest

from pacstore.errors import NotFound
from pacstore.trust.ownership import stranger

ME = os.geteuid()
ROOT_FS = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"


@pytest.fixture
def store(tmp_path):
    top = tmp_path / "store"
    (top / "public/catalog").mkdir(parents=True)
    (top / "public/catalog/1.root.json").write_bytes(b"{}")
    for path in (top, top / "public", top / "public/catalog"):
        path.chmod(0o755)
    (top / "public/catalog/1.root.json").chmod(0o644)
    return top


@pytest.fixture
def mounts(tmp_path):
    path = tmp_path / "mountinfo"
    path.write_text(ROOT_FS)
    return path


def test_a_store_of_ones_own_is_no_stranger(store, mounts):
    for path in (store, store / "public", store / "public/catalog"):
        assert stranger(path, uid=ME, mounts=mounts) == ""
    link = store.parent / "link"
    link.symlink_to(store)
    assert stranger(link, uid=ME, mounts=mounts) == ""


def test_one_that_everybody_may_change_is(store, mounts):
    for path in (store, store / "public", store / "public/catalog", store / "public/catalog/1.root.json"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert stranger(store, uid=ME, mounts=mounts) == f"everybody may write to {path}"
        path.chmod(mode)
    assert stranger(store, uid=ME, mounts=mounts) == ""


def test_one_of_somebody_else_is(store, mounts):
    # Seen as another user: what is mine is then somebody else's, unless I am root, whom everybody trusts.
    found = stranger(store, uid=ME + 1, mounts=mounts)
    assert found == ("" if ME == 0 else f"{store} belongs to the user {ME}")
    if ME == 0:
        for path in (store, store / "public", store / "public/catalog", store / "public/catalog/1.root.json"):
            os.chown(path, 12345, 12345)
            assert stranger(store, uid=0, mounts=mounts) == f"{path} belongs to the user 12345"
            assert stranger(store, uid=12345, mounts=mounts) == ""
            os.chown(path, 0, 0)


def test_a_group_may_write_only_if_it_is_the_users_own(store, mounts):
    public = store / "public"
    public.chmod(0o775)
    group = public.stat().st_gid
    expected = "" if group in (0, ME) else f"the group {group} may write to {public}"
    assert stranger(store, uid=ME, mounts=mounts) == expected
    if ME == 0:
        os.chown(public, 0, 4)
        assert stranger(store, uid=ME, mounts=mounts) == f"the group 4 may write to {public}"


@pytest.mark.parametrize(
    ("point", "kind", "trusted"),
    [
        ("", "ext4", True),
        ("", "nfs4", True),
        ("", "vfat", False),
        ("", "iso9660", False),
        ("", "cifs", False),
        ("/public/catalog", "vfat", True),
    ],
)
def test_media_without_owners_are(store, mounts, point, kind, trusted):
    mounts.write_text(f"{ROOT_FS}30 29 8:1 / {store}{point} rw - {kind} /dev/sdb1 rw\n")
    found = stranger(store, uid=ME, mounts=mounts)
    assert found == ("" if trusted else f"{store} is of the kind {kind}, which does not know to whom files belong")


def test_the_last_and_deepest_mount_counts(store, mounts):
    lines = [f"30 29 8:1 / {store} rw - {kind} /dev/sdb1 rw\n" for kind in ("vfat", "ext4")]
    mounts.write_text("".join([ROOT_FS, *lines]))
    assert stranger(store, uid=ME, mounts=mounts) == ""
    mounts.write_text("".join([*reversed(lines), ROOT_FS]))
    assert "vfat" in stranger(store, uid=ME, mounts=mounts)
    # A mount beside it, whose name begins alike.
    mounts.write_text(f"{ROOT_FS}30 29 8:1 / {str(store)[:-1]} rw - vfat /dev/sdb1 rw\n")
    assert stranger(store, uid=ME, mounts=mounts) == ""


def test_names_of_mounts_are_escaped(store, mounts):
    spaced = store.rename(store.parent / "my store")
    escaped = str(spaced).replace(" ", "\\040")
    mounts.write_text(f"{ROOT_FS}30 29 8:1 / {escaped} rw - vfat /dev/sdb1 rw\n")
    assert "vfat" in stranger(spaced, uid=ME, mounts=mounts)


def test_without_a_list_of_mounts_owners_alone_count(store, tmp_path):
    assert stranger(store, uid=ME, mounts=tmp_path / "missing") == ""
    (tmp_path / "odd").write_bytes(b"\xff\n\nnonsense\n")
    assert stranger(store, uid=ME, mounts=tmp_path / "odd") == ""


def test_what_is_not_there(tmp_path, mounts):
    with pytest.raises(NotFound):
        stranger(tmp_path / "missing", uid=ME, mounts=mounts)

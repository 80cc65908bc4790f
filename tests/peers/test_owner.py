"""Files that an installation as root gives to another user."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal

import pytest

from tests.e2e import trees
from tests.e2e.site import Site, wait_until
from tests.e2e.slow import slowed
from tests.peers.conftest import NEW, OLD
from tests.store.releases import shared_directory

pytestmark = pytest.mark.root

USER = pwd.getpwnam("nobody")
OTHER = 4_711


def owners(top):
    """The owners of everything in a tree, the top included."""
    found = {(top.lstat().st_uid, top.lstat().st_gid)}
    return found | {(path.lstat().st_uid, path.lstat().st_gid) for path in top.rglob("*")}


@pytest.fixture
def command(origin, root):
    return ("--from", origin.store, "--root-keys", origin.root_keys, "--root", root)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nobody", (USER.pw_uid, USER.pw_gid)),
        (f"{USER.pw_uid}:{grp.getgrnam('daemon').gr_name}", (USER.pw_uid, grp.getgrnam("daemon").gr_gid)),
        (f"{OTHER}:{OTHER}", (OTHER, OTHER)),
    ],
)
def test_everything_belongs_to_the_owner(origin, site, root, command, words, expected):
    site.ok("install", OLD, *command)
    site.ok("install", NEW, *command, "--owner", words)
    assert owners(root / "releases" / NEW) == {expected}
    assert owners(root / "releases" / OLD) == {(0, 0)}
    assert owners(root / ".pacball") == {(0, 0)}
    trees.assert_same(root / "releases" / NEW, origin.new)
    assert site.ok("verify", NEW, "--root", root)["intact"] is True


def test_what_an_interrupted_installation_left_gets_the_owner_too(origin, site, root, command):
    with origin.site.serving(origin.store) as url, slowed(url, bytes_per_second=8 * trees.MIB) as slow:
        process = site.start("install", OLD, "--from", slow, *command[2:])
        wait_until(lambda: any(path.is_file() for path in (root / ".pacball/staging").rglob("data/*/*")))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert site.ok("install", OLD, *command, "--owner", "nobody")["bytes_reused"] > 0
    assert owners(root / "releases" / OLD) == {(USER.pw_uid, USER.pw_gid)}
    trees.assert_same(root / "releases" / OLD, origin.old)


@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_a_repair_gives_nothing_away_that_is_closed(origin, site, root, command, mode):
    """What somebody else's directory or file came to stand in a tree that its owner may rearrange stays as closed as it was."""
    site.ok("install", OLD, *command, "--owner", "nobody")
    top = root / "releases" / OLD
    first, second = sorted(path for path in top.rglob("*") if path.is_file() and not path.is_symlink())[:2]
    directory = next(
        path for path in top.iterdir() if path.is_dir() and any(path.iterdir()) and path not in first.parents
    )
    shutil.rmtree(directory)
    directory.mkdir()
    directory.chmod(mode)
    (directory / "secret").write_text("secret")
    content = first.read_bytes()
    first.unlink()
    first.write_bytes(content)
    first.chmod(0o600)
    os.chmod(second, 0o600)
    with open(first, "rb") as held:
        site.ok("verify", OLD, "--repair", *command)
        assert (os.fstat(held.fileno()).st_uid, os.fstat(held.fileno()).st_mode & 0o777) == (0, 0o600)
    assert owners(top) == {(USER.pw_uid, USER.pw_gid)}
    trees.assert_same(top, origin.old)
    [aside] = (root / ".pacball/aside").iterdir()
    assert (aside.stat().st_uid, aside.stat().st_mode & 0o777) == (0, mode)
    assert (aside / "secret").stat().st_uid == 0


def test_only_root_gives_files_away(origin, site):
    before = ("setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups", "--")
    with shared_directory() as shared:
        os.chown(shared, USER.pw_uid, USER.pw_gid)
        root, theirs = shared / "root", Site(shared / "home")
        os.chown(theirs.home, USER.pw_uid, USER.pw_gid)
        words = ("install", OLD, "--from", trees.copy(origin.store / "public", shared / "docroot"), "--root", root)
        done = theirs.fails(7, *words, "--insecure", "--owner", "root", before=before)
        assert "run it as root" in done.err
        assert not (root / "releases" / OLD).exists()
        theirs.ok(*words, "--insecure", "--owner", USER.pw_name, before=before)
        assert owners(root / "releases" / OLD) == {(USER.pw_uid, USER.pw_gid)}


@pytest.mark.parametrize("words", ["no-such-user", "root:no-such-group", "4294967295", "-1:0", f"{OTHER}", ""])
def test_an_owner_that_is_not_known(site, root, command, words):
    done = site.fails(3, "install", OLD, *command, "--owner", words)
    assert done.json["place"] == "--owner"
    assert not root.exists()

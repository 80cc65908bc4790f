"""The n-th call of a kind fails, as on a dying disk: a clear error, nothing acknowledged is lost, and again it works."""

from __future__ import annotations

import pytest

from tests.e2e import trees
from tests.peers.conftest import OLD
from tests.peers.injection import injecting

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

PUBLISHING = {
    "fsync:error=EIO": (1, 2, 4, 7, 11),
    "fdatasync:error=EIO": (1, 2, 3),
    "rename:error=EIO": (1, 2, 4),
    "link:error=ENOSPC": (1, 3),
    "pwrite64:error=ENOSPC": (1, 2, 6),
    "pwrite64:error=EIO": (3,),
}
INSTALLING = {
    "fsync:error=EIO": (1, 2, 4),
    "syncfs:error=EIO": (1,),
    "rename,renameat,renameat2:error=EIO": (1, 2, 3),
    "mkdir,mkdirat:error=ENOSPC": (2, 9),
    "pwrite64:error=EIO": (1, 20),
}


def run_failing(site, words, calls, number):
    """Whether the command succeeded all the same; if not, it says so clearly."""
    done = site.run(*words, before=injecting(*calls.split(":"), number))
    assert done.code in (0, 6), (calls, number, done.err)
    if done.code == 6:
        # SQLite calls everything that it does not expect a disk I/O error.
        reasons = ("no space left", "disk i/o error") if "ENOSPC" in calls else ("i/o error", "input/output error")
        assert any(reason in done.err.lower() for reason in reasons), done.err
    return done.code == 0


@pytest.mark.parametrize("calls", PUBLISHING)
def test_publishing(site, tmp_path, calls):
    store = tmp_path / "store"
    tree = trees.fill(tmp_path / "tree", seed=1, files=10, file_bytes=100_000)
    site.publish(tree, "Stack-0-any", store)
    acknowledged, failures = ["Stack-0-any"], 0
    for number in PUBLISHING[calls]:
        name = f"Stack-{number}-any"
        trees.change(tree, seed=number, share=0.8)
        words = ("publish", tree, name, "--to", store)
        if run_failing(site, words, calls, number):
            acknowledged.append(name)
        else:
            failures += 1
            listed = {one["release"] for one in site.ok("list", "--from", store)["releases"]}
            assert set(acknowledged) <= listed <= {*acknowledged, name}
            site.ok(*words)
            acknowledged.append(name)
    assert failures
    report = site.ok("store", "check", "--store", store)
    assert (report["intact"], report["releases_checked"]) == (True, len(acknowledged))


@pytest.mark.parametrize("calls", INSTALLING)
def test_installing(site, tmp_path, origin, calls):
    failures = 0
    for number in INSTALLING[calls]:
        root = tmp_path / f"root{number}"
        words = ("install", OLD, "--from", origin.store, "--root", root)
        if not run_failing(site, words, calls, number):
            failures += 1
            if (root / "releases" / OLD).exists():
                trees.assert_same(root / "releases" / OLD, origin.old)
            site.ok(*words)
        trees.assert_same(root / "releases" / OLD, origin.old)
    assert failures

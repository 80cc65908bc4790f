"""Root works where another user swaps directories with links to elsewhere: nothing ever arrives, changes or vanishes there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.site import Site
from tests.peers.injection import injecting
from tests.peers.programs import require_root
from tests.peers.racer import OTHER, racing

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

OLD, NEW = "Small-1.0-any", "Small-1.1-any"
ROOTS = 2
LEAST_SWAPS = 1_000
WAYS = {"openat2": (), "without openat2": injecting("openat2", "error=ENOSYS", "1+")}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two small releases of many directories."""
    home = tmp_path_factory.mktemp("store")
    site = Site(home / "home")
    for number, release in enumerate((OLD, NEW)):
        tree = trees.one_of_each(home / release)
        for file in range(60):
            path = tree / f"d{file % 7}/e{file % 5}/f{file % 3}/{file}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(trees.content(file + 1000 * number * (file % 2), 20_000))
        site.publish(tree, release, home / "store")
    return home / "store"


@pytest.fixture
def public():
    """A directory that everybody may enter."""
    require_root()
    top = Path(tempfile.mkdtemp(prefix="pacball-races-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)


@pytest.fixture
def outside(public):
    """A directory of root's that looks like an install root, which only root may write to."""
    top = public / "outside"
    for name in ("releases", "current/Small", ".pacball/manifests", ".pacball/staging/tree/data", "tree/data"):
        (top / name).mkdir(parents=True)
    (top / "file").write_text("precious")
    (top / ".pacball").chmod(0o700)
    return top


def seen(top):
    """All that could show that somebody was at `top`."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_ino, status.st_ctime_ns, status.st_nlink)
    return found


def give(*paths):
    """Let the other user own directories, made if they are missing."""
    for path in paths:
        path.mkdir(exist_ok=True)
        os.chown(path, OTHER.pw_uid, OTHER.pw_gid)


def own_top(root):
    """The other user owns the install root, but root made what is in it."""
    give(root)


def own_all(root):
    """The other user owns every directory that the installer would make."""
    give(root, *(root / name for name in ("releases", "current", "current/Small", ".pacball")))
    give(*(root / ".pacball" / name for name in ("manifests", "staging")))


def own_parent(root):
    """Everybody may write where the install root stands."""
    root.parent.mkdir(exist_ok=True)
    root.parent.chmod(0o777)


PLACES = {
    own_top: ("*/root/releases", "*/root/current", "*/root/.pacball"),
    own_all: ("*/root/*", "*/root/current/*", "*/root/.pacball/*", "*/root/.pacball/staging/*", "*/root/releases/*"),
    own_parent: ("*/root",),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own", PLACES, ids=lambda own: own.__name__)
def test_install_and_update(public, outside, store, tmp_path, own, way):
    site = Site(tmp_path / "home")
    site.ok("list", "--from", store)
    before, ends = seen(outside), Counter()
    roots = [public / str(number) / "root" for number in range(ROOTS)]
    for root in roots:
        root.parent.mkdir()
        own(root)
    with racing(outside, *(str(public / pattern) for pattern in PLACES[own])) as swaps:
        for root in roots:
            for release in (OLD, NEW):
                done = site.run("install", release, "--from", store, "--root", root, before=WAYS[way])
                # 2: the parser of the command line looks whether --root can be read.
                assert done.code in (0, 2, 3, 4, 6, 7), done.err
                ends[done.code] += 1
                assert seen(outside) == before
    assert swaps.count > LEAST_SWAPS, ends
    assert seen(outside) == before


INSIDE = ("*/root/*", "*/root/releases/*", "*/root/.pacball/*", "*/root/.pacball/*/*")
DEEP = tuple(
    f"*/root/{top}/*{'/*' * depth}" for top in ("releases", ".pacball/staging", ".pacball/trash") for depth in (1, 2, 3)
)


@pytest.fixture
def owned(public, store, tmp_path):
    """Roots with two releases in which the other user owns everything, and the site that made them."""
    site = Site(tmp_path / "home")
    roots = [public / str(number) / "root" for number in range(ROOTS)]
    for root in roots:
        root.parent.mkdir()
        for release in (OLD, NEW):
            site.ok("install", release, "--from", store, "--root", root, "--owner", OTHER.pw_name)
        own_all(root)
    return site, roots


def run_racing(site, public, outside, commands):
    """Run commands while the other user swaps what they work on; outside nothing happens."""
    before, ends = seen(outside), Counter()
    with racing(outside, *(str(public / pattern) for pattern in (*INSIDE, *DEEP))) as swaps:
        for words, strace in commands:
            done = site.run(*words, before=strace)
            assert done.code in (0, 1, 2, 3, 4, 6, 7), done.err
            ends[done.code] += 1
            assert seen(outside) == before
    assert swaps.count > LEAST_SWAPS, ends
    assert seen(outside) == before


@pytest.mark.parametrize("way", WAYS)
def test_remove(public, outside, owned, way):
    site, roots = owned
    run_racing(site, public, outside, [(("remove", OLD, "--grace", "0", "--root", root), WAYS[way]) for root in roots])


@pytest.mark.parametrize("way", WAYS)
def test_repair(public, outside, owned, store, way):
    site, roots = owned
    for root in roots:
        for path in sorted((root / "releases" / OLD).rglob("*"))[::3]:
            if path.is_file() and not path.is_symlink():
                path.write_bytes(b"damaged")
        shutil.rmtree(root / "releases" / OLD / "d3")
    words = [("verify", OLD, "--repair", "--from", store, "--root", root) for root in roots]
    run_racing(site, public, outside, [(one, WAYS[way]) for one in words])


@pytest.mark.parametrize("way", WAYS)
def test_install_for_the_other_user(public, outside, store, tmp_path, way):
    site = Site(tmp_path / "home")
    roots = [public / str(number) / "root" for number in range(ROOTS)]
    for root in roots:
        root.parent.mkdir()
        own_all(root)
    words = [("install", OLD, "--from", store, "--root", root, "--owner", OTHER.pw_name) for root in roots]
    run_racing(site, public, outside, [(one, WAYS[way]) for one in words])

"""Several sources with the real command: bad ones cost time and are named; the catalog comes from one that has a good one."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import signing, trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.signing import DAY_S
from tests.e2e.site import Outcome, Site, free_port, wait_until
from tests.mirror import mischief
from tests.mirror.mischief import of_packs, serving

CONFIG = "[limits]\nattempts = 2\nconnect_seconds = 1\nstall_seconds = 1\n"


@dataclass(frozen=True)
class Mirrors:
    """An origin's store; a copy of it as it was before the new release; the tree of that."""

    site: Site
    store: Path
    older: Path
    tree: Path

    @property
    def trusted(self) -> tuple[object, ...]:
        return ("--root-keys", self.site.root_keys(self.store))


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory):
    home = tmp_path_factory.mktemp("mirrors")
    site = Site(home / "home")
    old = trees.fill(home / "old", seed=1, files=2, file_bytes=1000)
    new = trees.fill(home / "new", seed=2, files=30, file_bytes=200 * trees.KIB, bits=8)
    site.publish(old, OLD, home / "store")
    shutil.copytree(home / "store", home / "older")
    site.publish(new, NEW, home / "store")
    return Mirrors(site, home / "store", home / "older", new)


@pytest.fixture
def site(site):
    (site.home / "config/pacball").mkdir(parents=True)
    (site.home / "config/pacball/config.toml").write_text(CONFIG)
    return site


def public(store):
    top = store / "public"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def states(done):
    return {state["name"]: state for state in done["sources"]}


def everywhere(fault):
    return lambda _: fault


BAD = {
    "flips a bit": (mischief.flip, "wrong", 4),
    "redirects": (mischief.redirect, "refused", 7),
    "gives a web page": (mischief.page, "wrong", 4),
    "fails": (mischief.saying(500), "failing", 6),
    "truncates": (mischief.truncate, "failing", 6),
    "stalls": (mischief.stall_at(0.5), "failing", 6),
    "ignores ranges": (mischief.whole, "wrong", 4),
    "gives another range": (mischief.other_range, "wrong", 4),
    "is busy": (mischief.busy, "failing", 6),
    "denies": (mischief.saying(403), "refused", 7),
    "announces less": (mischief.shorter, "wrong", 4),
    "sends without end": (mischief.endless, "wrong", 5),
}
FEW = [pytest.param(name, marks=() if n < 1 else pytest.mark.slow) for n, name in enumerate(BAD)]


@pytest.mark.parametrize("name", FEW)
def test_a_bad_source_beside_a_good_one(mirrors, site, root, name):
    fault, state, _ = BAD[name]
    with serving(public(mirrors.store), of_packs(fault)) as bad, serving(public(mirrors.store)) as good:
        done = site.run("install", NEW, "--from", f"{bad.url},{good.url}", *mirrors.trusted, "--root", root)
    assert done.code == 0, done.err
    trees.assert_same(root / "releases" / NEW, mirrors.tree)
    told = states(done.json)
    assert told[good.url]["state"] == "good"
    if name in ("truncates", "stalls"):
        # What breaks off is continued, and what stalls is had from the other one before it counts as a failure.
        return
    assert told[bad.url]["state"] == state
    assert told[good.url]["bytes_downloaded"] > trees.MIB
    last = done.err.rstrip().rpartition("\n")[2]
    words = {"wrong": "gave what is wrong", "refused": "could not be used", "failing": "failed"}[state]
    assert last.startswith(f"pacball: warning: {bad.url} {words}")


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_bad_source_alone(mirrors, site, root, name):
    fault, _, code = BAD[name]
    with serving(public(mirrors.store), of_packs(fault)) as bad:
        done = site.fails(code, "install", NEW, "--from", bad.url, *mirrors.trusted, "--root", root)
    assert bad.url in done.err
    assert os.listdir(root / "releases") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_source_that_is_bad_in_everything(mirrors, site, root, name):
    fault, _, _ = BAD[name]
    with serving(public(mirrors.store), everywhere(fault)) as bad, serving(public(mirrors.store)) as good:
        done = site.ok("install", NEW, "--from", bad.url, "--from", good.url, *mirrors.trusted, "--root", root)
    trees.assert_same(root / "releases" / NEW, mirrors.tree)
    assert not states(done)[good.url]["failures"]


def test_sources_that_are_all_gone(mirrors, site, root):
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    done = site.fails(6, "install", NEW, "--from", ",".join(urls), *mirrors.trusted, "--root", root)
    assert all(url in done.err for url in urls)
    assert "none of 3 sources" in done.err
    assert not root.exists()


def test_urls_and_directories_together(mirrors, site, root, tmp_path):
    gone = tmp_path / "not mounted"
    with mirrors.site.serving(mirrors.store) as url:
        names = f"http://127.0.0.1:{free_port()}, {url}/,{mirrors.store}"
        done = site.ok("install", NEW, "--from", names, "--from", gone, *mirrors.trusted, "--root", root)
    trees.assert_same(root / "releases" / NEW, mirrors.tree)
    assert [state["state"] for state in done["sources"]] == ["failing", "good", "good", "refused"]
    assert "is not a pacball store" in done["sources"][3]["error"]


@pytest.mark.slow
def test_a_directory_with_a_comma_in_its_name(mirrors, site, root, tmp_path):
    (tmp_path / "a,b").symlink_to(mirrors.store)
    site.ok("install", NEW, "--from", tmp_path / "a,b", *mirrors.trusted, "--root", root)


def test_a_source_with_another_root_is_named_and_not_used(mirrors, site, root, tmp_path):
    stranger = Site(tmp_path / "stranger")
    stranger.publish(trees.fill(tmp_path / "evil", seed=9, files=1, file_bytes=1000), NEW, tmp_path / "evil store")
    with serving(public(tmp_path / "evil store")) as other, serving(public(mirrors.store)) as good:
        command = ("install", NEW, "--from", f"{other.url},{good.url}", "--root", root)
        done = site.run(*command, *mirrors.trusted)
        assert done.code == 0, done.err
        assert states(done.json)[other.url]["state"] == "refused"
        assert "another root" in states(done.json)[other.url]["error"]
        assert not other.packs_asked()
        assert not any("manifests" in request.path for request in other.requests)
        # Whoever comes first does not decide: what is pinned for any of them does.
        site.ok("list", "--from", good.url, "--trust-on-first-use")
        again = site.ok("install", OLD, "--from", f"{other.url},{good.url}", "--root", root, "--trust-on-first-use")
        assert again["trust"]["mode"] == "first-use"
        assert states(again)[other.url]["state"] == "refused"


@pytest.mark.slow
def test_trust_on_first_use_is_for_all_that_show_the_same_root(mirrors, site, root):
    with serving(public(mirrors.store)) as one, serving(public(mirrors.store)) as two:
        site.ok("install", NEW, "--from", f"{one.url},{two.url}", "--root", root, "--trust-on-first-use")
        site.ok("list", "--from", two.url)
        site.ok("list", "--from", one.url)


@pytest.mark.parametrize("first", ["older", pytest.param("store", marks=pytest.mark.slow)])
def test_a_source_that_lacks_the_release(mirrors, site, root, first):
    stores = (mirrors.older, mirrors.store) if first == "older" else (mirrors.store, mirrors.older)
    with serving(public(stores[0])) as one, serving(public(stores[1])) as two:
        done = site.run("install", NEW, "--from", f"{one.url},{two.url}", *mirrors.trusted, "--root", root)
        assert done.code == 0, done.err
        assert ("is not in the catalog" in done.err) is (first == "older")
        # A source that is behind what was seen is no reason to fail either.
        site.ok("install", OLD, "--from", f"{one.url},{two.url}", *mirrors.trusted, "--root", root)
        behind = one if first == "older" else two
        assert "rolled back" in site.fails(8, "list", "--from", behind.url, *mirrors.trusted).err
    trees.assert_same(root / "releases" / NEW, mirrors.tree)


@pytest.mark.slow
def test_a_release_that_none_has(mirrors, site, root):
    with serving(public(mirrors.older)) as one, serving(public(mirrors.older)) as two:
        done = site.fails(3, "install", NEW, "--from", f"{one.url},{two.url}", *mirrors.trusted, "--root", root)
    assert f"nearest: {OLD}" in done.err


@pytest.mark.slow
def test_a_fresh_catalog_goes_before_an_expired_one(mirrors, site, root, tmp_path):
    stale, fresh = tmp_path / "stale", tmp_path / "fresh"
    for store in (stale, fresh):
        shutil.copytree(mirrors.store, store)
    signing.refresh(stale, when=time.time() - 2 * DAY_S, days=1)
    for _ in range(2):
        signing.refresh(fresh, when=time.time())
    with serving(public(stale)) as one, serving(public(fresh)) as two:
        both = f"{one.url},{two.url}"
        done = site.run("install", NEW, "--from", both, *mirrors.trusted, "--root", root)
        assert done.code == 0, done.err
        assert done.json["trust"]["stale"] is False
        assert one.url in done.err
        assert "expired" in done.err
        assert site.fails(8, "install", OLD, "--from", one.url, *mirrors.trusted, "--root", root)


@pytest.mark.slow
def test_a_catalog_that_ends_in_the_middle(mirrors, site, root):
    def half(request):
        return mischief.saying(500) if request.path.endswith(("snapshot.json", "targets.json")) else None

    with serving(public(mirrors.store), half) as one, serving(public(mirrors.store)) as two:
        done = site.ok("install", NEW, "--from", f"{one.url},{two.url}", *mirrors.trusted, "--root", root)
    assert states(done)[one.url]["failures"]
    trees.assert_same(root / "releases" / NEW, mirrors.tree)


@pytest.mark.slow
def test_a_listing_comes_from_another_one_too(mirrors, site):
    """What is asked of a catalog is read when it is needed: of a source that may be gone by then."""

    def no_line(request):
        return mischief.die if "line-" in request.path else None

    with serving(public(mirrors.store), no_line) as one, serving(public(mirrors.store)) as two:
        listed = site.ok("list", "--from", f"{one.url},{two.url}", *mirrors.trusted)
        assert sum("line-" in request.path for request in one.requests) > 0
    assert [entry["release"] for entry in listed["releases"]] == [OLD, NEW]


@pytest.mark.slow
def test_what_was_repacked_meanwhile(mirrors, site, root, tmp_path):
    """The packs of the first catalog are gone; that of the second knows where everything is now."""
    old, new = mirrors.store, tmp_path / "new"
    shutil.copytree(old, new)
    with serving(public(old), of_packs(mischief.missing)) as one, serving(public(new)) as two:
        done = site.ok("install", NEW, "--from", f"{one.url},{two.url}", *mirrors.trusted, "--root", root)
    assert not states(done)[one.url]["failures"]
    trees.assert_same(root / "releases" / NEW, mirrors.tree)


@pytest.mark.slow
def test_rates(mirrors, site, root):
    with mirrors.site.serving(mirrors.store) as url:
        command = ("install", NEW, "--from", url, *mirrors.trusted, "--root", root)
        for wrong in ("fast", "100"):
            assert "--limit-rate" in site.fails(7, *command, "--limit-rate", wrong).err
        began = time.monotonic()
        done = site.ok(*command, "--limit-rate", "4M")
        assert time.monotonic() - began > done["bytes_downloaded"] / 4e6 - 0.3
        assert not done["sources"][0]["failures"]


@pytest.mark.slow
def test_a_slow_line_that_is_killed_every_few_seconds_makes_progress(mirrors, site, root):
    with serving(public(mirrors.store), bytes_per_second=800_000) as mirror:
        command = ("install", NEW, "--from", mirror.url, *mirrors.trusted, "--root", root)
        for _ in range(12):
            before = mirror.bytes_sent
            process = site.start(*command)
            wait_until(
                lambda process=process, before=before: (
                    process.poll() is not None or mirror.bytes_sent > before + 1.7 * trees.MIB
                ),
                seconds=60,
            )
            if process.poll() is not None:
                assert Outcome.of(process, timeout=20).code == 0
                break
            process.kill()
            process.communicate()
        else:
            pytest.fail("it never got to its end")
        assert mirror.bytes_sent < 3 * sum(path.stat().st_size for path in mirrors.tree.rglob("*.bin"))
    trees.assert_same(root / "releases" / NEW, mirrors.tree)

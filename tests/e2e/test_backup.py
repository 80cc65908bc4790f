"""Backups with the real command: while publishers publish and the daemon serves, killed at any moment, and the origin lost."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time

import pytest

from pacstore.errors import NotFound, Refused
from pacstore.store import Store
from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import PACBALL, Outcome, Site
from tests.fault.test_publishers import publisher
from tests.seeds import seeded
from tests.store.backups import checked
from tests.store.releases import make_tree

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

THIRD = "Demo-1.2-x86_64-linux"


class Keeper(Site):
    """Who keeps a store."""

    def damaged(self, *words):
        """The result of a command that names damage."""
        done = self.run(*words)
        assert done.code == 1, (words, done.code, done.err, done.json)
        return done.json


@pytest.fixture
def keeper(tmp_path):
    return Keeper(tmp_path / "keeper")


@pytest.fixture
def own(origin, tmp_path):
    """The origin's store and its publisher, to be changed and lost."""
    shutil.copytree(origin.site.home, tmp_path / "origin")
    shutil.copytree(origin.store, tmp_path / "store")
    return Site(tmp_path / "origin"), tmp_path / "store"


# While publishers publish


class Publishers:
    """Processes that publish one release after the other until they are told to stop; `acknowledged` grows."""

    def __init__(self, top):
        self.top = top
        self.acknowledged = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(line,)) for line in ("Alpha", "Beta")]

    def _work(self, line):
        with publisher(self.top) as process:
            number = 0
            while not self._stop.is_set():
                number += 1
                name = f"{line}-{number}-any"
                tree = make_tree(self.top / "trees" / name, version=name, kib=300)
                assert process.publish(tree, name) == ([name], 0)
                self.acknowledged.add(name)
                # Else backups would have no processor left.
                self._stop.wait(0.4)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_backups_while_publishers_publish_and_the_daemon_serves(keeper, tmp_path):
    store = tmp_path / "store"
    with publisher(tmp_path) as process:
        first = make_tree(tmp_path / "trees/first", version="first", kib=300)
        assert process.publish(first, "First-1-any") == (["First-1-any"], 0)
    versions, counts = [], []
    with keeper.serving(store) as url, Publishers(tmp_path) as publishers:
        for number in range(5):
            before = {"First-1-any", *publishers.acknowledged}
            # Two of them one on top of the other, and with the rest the other way round.
            backup, restored = tmp_path / f"backup{number % 2}", tmp_path / f"restored{number}"
            done = keeper.ok("store", "backup", "--store", store, "--to", backup, "--packs")
            assert (done["damage"], done["missing"], done["recorded"]) == ([], [], True)
            made = keeper.ok("store", "restore", backup, "--to", restored)
            assert (made["made"], made["incomplete"], made["catalog_version"]) == (True, [], done["catalog_version"])
            listed = set(checked(restored))
            assert before <= listed
            newest = max(listed - {"First-1-any"}, default="First-1-any")
            keeper.ok("install", newest, "--from", restored, "--root", tmp_path / "root")
            tree = tmp_path / "trees" / (newest if newest != "First-1-any" else "first")
            trees.assert_same(tmp_path / "root/releases" / newest, tree)
            versions.append(done["catalog_version"])
            counts.append(len(listed))
            shutil.rmtree(restored)
        root_keys = store / "public/catalog/1.root.json"
        keeper.ok("install", "First-1-any", "--from", url, "--root-keys", root_keys, "--root", tmp_path / "root")
    # They were at work all the time.
    assert versions == sorted(set(versions))
    assert counts[-1] > counts[0]
    assert keeper.ok("store", "check", "--store", store)["intact"] is True


# The origin is lost


def test_the_origin_is_lost_and_comes_back(own, keeper, tmp_path):
    """The backup is older than what sites have seen; the mirrors have the packs, and the later catalog."""
    publisher_site, store = own
    site, root, backup, mirror = Site(tmp_path / "site"), tmp_path / "root", tmp_path / "backup", tmp_path / "mirror"
    root_keys = tmp_path / "root.json"
    shutil.copy(publisher_site.root_keys(store), root_keys)
    keys = publisher_site.root_keys(store).parent
    done = keeper.ok("store", "backup", "--store", store, "--to", backup)
    assert done["packs_left_out"] == len(list((store / "public/packs").rglob("??*/*")))
    assert done["bytes_left_out"] > 10 * done["bytes_copied"]

    third = trees.one_of_each(tmp_path / "third")
    publisher_site.ok("publish", third, THIRD, "--to", store, "--keys", keys)
    shutil.copytree(store, mirror)
    trusted = ("--root-keys", root_keys)
    with keeper.serving(mirror) as url:
        site.ok("install", OLD, "--from", url, *trusted, "--root", root)
        shutil.rmtree(store)

        made = keeper.ok("store", "restore", backup, "--to", store)
        assert made["incomplete"] == [OLD, NEW]
        assert made["packs_missing"] > 0
        assert [path.name for path in (store / "public/holdings").iterdir()] == []
        fetch, ask, republish = made["next"]
        assert fetch.startswith(f"pacball store restore {backup} --to {store}")
        assert (ask, republish) == (
            "pacball trust status --from MIRROR",
            f"pacball trust republish --store {store} --above-version N",
        )
        again = keeper.ok("store", "restore", backup, "--to", store, "--packs-from", url)
        assert (again["incomplete"], again["packs_missing"]) == ([], 0)
        assert again["bytes_fetched"] == made["bytes_missing"]
        assert keeper.ok("store", "check", "--store", store)["intact"] is True

        # A site that has seen the later catalog does not go back, until the origin has gone beyond it.
        with keeper.serving(store) as origin_url:
            behind = site.fails(8, "install", NEW, "--from", origin_url, *trusted, "--root", root)
            assert "rolled back" in behind.err
        seen = site.ok("trust", "status", "--from", url, *trusted)["version"]
        assert seen > again["catalog_version"]
        publisher_site.ok("trust", "republish", "--store", store, "--above-version", seen, "--keys", keys)
        publisher_site.ok("publish", third, THIRD, "--to", store, "--keys", keys)
    with keeper.serving(store) as url:
        for release in (NEW, THIRD):
            site.ok("install", release, "--from", url, *trusted, "--root", root)
            assert site.ok("verify", release, "--root", root)["intact"] is True
        trees.assert_same(root / "releases" / THIRD, third)
    assert keeper.ok("store", "check", "--store", store)["intact"] is True
    assert keeper.ok("store", "backup", "--store", store, "--to", tmp_path / "next", "--packs")["damage"] == []


def test_damage_has_an_exit_code_and_a_name(own, keeper, tmp_path):
    _, store = own
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    manifest = next((store / "public/manifests").rglob("??*/*"))
    data = manifest.read_bytes()
    manifest.unlink()
    done = keeper.damaged("store", "backup", "--store", store, "--to", backup)
    path = f"manifests/{manifest.parent.name}/{manifest.name}"
    assert [one["place"] for one in done["damage"]] == done["missing"] == [path]
    made = keeper.damaged("store", "restore", backup, "--to", restored)
    assert (made["made"], [one["place"] for one in made["damage"]]) == (False, [path])
    keeper.fails(3, "list", "--from", restored)
    manifest.write_bytes(data)
    assert keeper.ok("store", "restore", backup, "--to", restored, "--packs-from", store)["incomplete"] == []
    assert keeper.ok("store", "check", "--store", restored)["intact"] is True


def test_what_is_refused(own, keeper, tmp_path):
    _, store = own
    backup = tmp_path / "backup"
    keeper.fails(3, "store", "backup", "--store", tmp_path / "none", "--to", backup)
    keeper.fails(7, "store", "backup", "--store", store, "--to", store / "backup")
    keeper.fails(3, "store", "restore", tmp_path / "none", "--to", tmp_path / "restored")
    keeper.fails(3, "store", "restore", store, "--to", tmp_path / "restored")
    keeper.ok("store", "backup", "--store", store, "--to", backup)
    keeper.fails(7, "store", "restore", backup, "--to", store)
    keeper.fails(3, "store", "restore", backup, "--to", tmp_path / "restored", "--packs-from", tmp_path / "nothing")
    keeper.fails(7, "store", "restore", backup, "--to", tmp_path / "restored", "--packs-from", "ftp://x/")
    assert not (tmp_path / "restored").exists()


def test_what_people_read(own, keeper, tmp_path):
    """Where the keys are, what is left out, and what to do next."""
    _, store = own
    backup, restored = tmp_path / "backup", tmp_path / "re stored"

    def said(*words):
        argv = [PACBALL, *map(str, words)]
        return subprocess.run(argv, env=keeper.environment, capture_output=True, text=True, check=True).stdout

    text = said("store", "backup", "--store", store, "--to", backup)
    assert "the catalog's keys are not in it: they are in " in text
    assert "are not in it: mirrors have them, or give --packs" in text
    text = said("store", "restore", backup, "--to", restored)
    assert f"pacball store restore {backup} --to '{restored}' --packs-from SOURCE" in text
    assert f"pacball trust republish --store '{restored}' --above-version N" in text
    assert "pacball trust status --from MIRROR" in text


# Killed at any moment


class Killer:
    """Runs a command and kills it at a random moment, often about when it would end: as long as this machine needs now."""

    def __init__(self, keeper, words, name):
        self.kills = 0
        self._keeper = keeper
        self._words = words
        self._moments = seeded(name)
        started = time.monotonic()
        keeper.ok(*words)
        self._seconds = time.monotonic() - started

    def run(self):
        process = self._keeper.start(*self._words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._moments.uniform(0.4, 1.0) * self._seconds)
        process.send_signal(signal.SIGKILL)
        killed = Outcome.of(process, timeout=30).code == -signal.SIGKILL
        self.kills += killed
        self._seconds *= 1.1 if killed else 0.8


def is_no_store(path):
    """Whether a directory is not taken for a store, neither by readers nor by a publisher who would begin one in it."""
    for attempt in (lambda: Store.open(path, writable=False), lambda: Store.create(path)):
        with pytest.raises((NotFound, Refused)):
            attempt()
    return True


@pytest.fixture
def big(tmp_path):
    """A store that takes a moment to copy."""
    site = Site(tmp_path / "big home")
    tree = trees.fill(tmp_path / "big", seed=3, files=60, file_bytes=500 * trees.KIB)
    for number in range(3):
        trees.change(tree, seed=number, share=0.4)
        site.publish(tree, f"Big-{number}-any", tmp_path / "store")
    return tmp_path / "store"


def test_a_backup_that_is_killed_at_any_moment_continues(big, keeper, tmp_path):
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    words = ("store", "backup", "--store", big, "--to", backup, "--packs")
    killer = Killer(keeper, words, "backup")
    kept = 0
    while killer.kills < 8 or not kept:
        shutil.rmtree(backup, ignore_errors=True)
        for _ in range(4):
            killer.run()
        done = keeper.ok(*words)
        assert done["damage"] == []
        kept += done["kept"]
        assert keeper.ok("store", "restore", backup, "--to", restored)["damage"] == []
        assert len(checked(restored)) == 3
        shutil.rmtree(restored)


def test_a_restore_that_is_killed_at_any_moment_continues(big, keeper, tmp_path):
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    keeper.ok("store", "backup", "--store", big, "--to", backup)
    with keeper.serving(big) as url:
        words = ("store", "restore", backup, "--to", restored, "--packs-from", url)
        killer = Killer(keeper, words, "restore")
        kept = 0
        while killer.kills < 8 or not kept:
            shutil.rmtree(restored, ignore_errors=True)
            for _ in range(4):
                killer.run()
            if (restored / "restore.json").exists() and not (restored / "public/store.json").exists():
                assert is_no_store(restored)
            done = keeper.ok(*words)
            assert (done["made"], done["damage"], done["incomplete"]) == (True, [], [])
            kept += done["kept"]
            assert len(checked(restored)) == 3
            assert not (restored / "restore.json").exists()

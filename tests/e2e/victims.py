"""A small catalog at two times, and installers that are attacked: what must hold whatever a mirror does to them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from tests.e2e import signing, trees
from tests.e2e.attacker import Mirror, mirroring
from tests.e2e.site import PACBALL, Outcome, Site

OLD = "Demo-1.0-any"
NEW = "Demo-1.1-any"
OTHER = "Other-1.0-any"
PEAK_MIB = 256
_MEASURE = """
import pathlib, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


class World:
    """A publisher with the lines Demo and Other. `first` and `second` are its public files at two times, not to be changed.

    In between, root and targets were signed anew, and NEW was published. `at_first` and `at_second` are the homes of
    installers that have seen these, and installed OLD, and then NEW.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.publisher = Site(home / "publisher")
        self.store = home / "store"
        self.trees = {
            name: trees.fill(home / name, seed=seed, files=2, file_bytes=20_000) for seed, name in enumerate((OLD, NEW))
        }
        self.publisher.publish(self.trees[OLD], OLD, self.store)
        self.publisher.publish(self.trees[OLD], OTHER, self.store)
        self.first = copied(self.store / "public", home / "first")
        signing.renew(self.store, "root", "targets", when=time.time())
        self.publisher.publish(self.trees[NEW], NEW, self.store)
        self.second = copied(self.store / "public", home / "second")
        self.root_keys = self.publisher.root_keys(self.store)
        with Store.open(self.store, writable=False) as opened:
            assert opened.keys_dir is not None
            self.keys = KeyRing(opened.keys_dir)
        self.at_first, self.at_second = home / "at first", home / "at second"
        with mirroring(self.first) as mirror:
            Victim(self, self.at_first).installs(mirror, OLD)
            shutil.copytree(self.at_first, self.at_second, symlinks=True)
            mirror.public = self.second
            Victim(self, self.at_second).installs(mirror, NEW)

    def fresh(self, home: Path) -> Victim:
        """An installer that has seen nothing."""
        return Victim(self, home)

    def early(self, home: Path) -> Victim:
        """An installer that has seen `first` and installed OLD."""
        shutil.copytree(self.at_first, home, symlinks=True)
        return Victim(self, home)

    def late(self, home: Path) -> Victim:
        """An installer that has seen `second` too, and installed NEW."""
        shutil.copytree(self.at_second, home, symlinks=True)
        return Victim(self, home)


@functools.cache
def world_below(directory: Path) -> World:
    """The one world of a test process."""
    return World(directory / "world")


class Victim:
    """An installer with all that it has, state and install root, below `home`."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        self.home = home
        self.site = Site(home / "home")
        self.root = home / "root"

    @property
    def state(self) -> Path:
        """What this client remembers of the catalog."""
        (found,) = (self.home / "home/state/pacball/trust").iterdir()
        return found

    def source(self, mirror: Mirror) -> tuple[object, ...]:
        """The options that say where releases come from, and whom to believe."""
        return ("--from", mirror.url, "--root-keys", self.world.root_keys)

    def words(self, mirror: Mirror, release: str = NEW) -> tuple[object, ...]:
        """The command that installs a release from this mirror."""
        return ("install", release, *self.source(mirror), "--root", self.root)

    def refuses(self, mirror: Mirror, code: int, *said: str, release: str = NEW) -> Outcome:
        """Installing must end with `code` and one sentence that has all of `said`, in little memory; nothing changes."""
        before, peak = self.installed(), self.home / "peak"
        measured = (sys.executable, "-I", "-c", _MEASURE, peak)
        done = self.site.fails(code, *self.words(mirror, release), before=measured)
        assert self.installed() == before
        assert int(peak.read_text()) < PEAK_MIB << 10
        check_sentence(done)
        for words in said:
            assert words in done.err, (words, done.err)
        return done

    def installs(self, mirror: Mirror, release: str = NEW, *, note: str = "") -> None:
        """It must succeed, and say nothing but `note`."""
        done = self.site.run(*self.words(mirror, release))
        assert done.code == 0, done.err
        assert note in done.err
        assert note or done.err == "", done.err
        if release in self.world.trees:
            trees.assert_same(self.root / "releases" / release, self.world.trees[release])
        assert self.installed()[release.partition("-")[0]] == release

    def installed(self) -> dict[str, str]:
        """The installed releases, and what `current` leads to, by project."""
        releases, current = self.root / "releases", self.root / "current"
        found = dict.fromkeys(os.listdir(releases), "installed") if releases.exists() else {}
        links = list(current.glob("*/*")) if current.exists() else []
        return found | {link.parent.name: os.readlink(link).rpartition("/")[2] for link in links}

    def prints(self, *words: object) -> str:
        """What a command prints for people, which cannot steer their terminal, whether it succeeds or not."""
        argv = [str(PACBALL), *map(str, words)]
        done = subprocess.run(argv, env=self.site.environment, capture_output=True, text=True, timeout=90, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        check_printable(done.stdout + done.stderr)
        return done.stdout + done.stderr


def path_of(public: Path, role: str) -> str:
    """The path below `public` of the newest metadata of a role."""
    if role == "timestamp":
        return "catalog/timestamp.json"
    if role == "root":
        version = max(int(path.name.partition(".")[0]) for path in public.glob("catalog/*.root.json"))
        return f"catalog/{version}.root.json"
    snapshot = _version(public / "catalog/timestamp.json", "snapshot")
    version = snapshot if role == "snapshot" else _version(public / f"catalog/{snapshot}.snapshot.json", role)
    return f"catalog/{version}.{role}.json"


def _version(path: Path, role: str) -> int:
    return int(json.loads(path.read_bytes())["signed"]["meta"][f"{role}.json"]["version"])


def check_sentence(done: Outcome) -> None:
    """An error says what, where, and what to do next, and cannot steer a terminal."""
    for part in ("message", "place", "hint"):
        assert done.json[part], (part, done.json)
    check_printable(done.out + done.err)


def check_printable(text: str) -> None:
    """Nothing but lines of characters that can be seen."""
    assert all(line.isprintable() for line in text.split("\n")), text


def copied(tree: Path, where: Path) -> Path:
    """A copy of a directory whose files may be changed."""
    shutil.copytree(tree, where)
    for path in where.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return where

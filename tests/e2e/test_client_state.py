"""What a client remembers of a catalog: damaged, shared by many, killed while it is written; never does it go back.

Damage is what power cuts, editors and copies do. Alone it is repaired, or named with what to do; together with a mirror that
has gone back to an older state, it never makes that one believed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter

import pytest

from pacmirror.source import HttpSource
from pacstore.errors import PacballError
from pacstore.trust.client import open_catalog
from tests.e2e.attacker import mirroring
from tests.e2e.forger import Forger
from tests.e2e.site import Outcome
from tests.e2e.victims import NEW, OLD, copied, world_below
from tests.seeds import seeded

pytestmark = pytest.mark.slow

INSTALLERS = 8
KILLS = 20


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return world_below(tmp_path_factory.getbasetemp())


@pytest.fixture
def mirror(world):
    with mirroring(world.second) as made:
        yield made


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def empty(path):
    """As after a power cut, where nobody synced."""
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def other_kind(path):
    """A directory in the place of a file, a file in that of a directory."""
    was_directory = path.is_dir()
    remove(path)
    if was_directory:
        path.write_bytes(b"")
    else:
        path.mkdir()


def loop(path):
    remove(path)
    path.symlink_to(path.name)


def swell(path):
    os.truncate(path, 20 << 20)


DAMAGES = (empty, flip, swell, other_kind, loop, remove)


def files_of(state):
    """Every file of a client's state; links are what they lead to."""
    return [path.relative_to(state) for path in sorted(state.rglob("*")) if path.is_file() and not path.is_symlink()]


def damages(state):
    """Every damage of every file and directory of a client's state."""
    for path in sorted(state.rglob("*")):
        for damage in DAMAGES:
            whole = path.is_dir() or not path.stat().st_size
            if not path.is_symlink() and not (whole and damage in (empty, flip, swell)):
                yield path.relative_to(state), damage


def test_no_damage_makes_an_older_catalog_believed(world, mirror, tmp_path):
    victim = world.late(tmp_path / "victim")
    whole, root = tmp_path / "whole", world.root_keys.read_bytes()
    shutil.copytree(victim.state, whole, symlinks=True)
    state = victim.state
    results = Counter()
    with HttpSource(mirror.url) as source:

        def look(public):
            """Why the catalog of `public` is not believed, or None."""
            mirror.public = public
            try:
                catalog = open_catalog(source, root=root, state_dir=state.parent, now=time.time())
                assert [str(entry.release) for entry in catalog.releases("Demo")] == [OLD, NEW]
            except PacballError as error:
                return error

        for path, damage in damages(whole):
            for public in (world.first, world.second):
                shutil.rmtree(state)
                shutil.copytree(whole, state, symlinks=True)
                damage(state / path)
                refused = look(public)
                results[public, refused is not None] += 1
                if refused is not None:
                    assert refused.hint, (damage, path, refused)
                if refused is not None and public == world.second:
                    # Named, with what to do; and that helps.
                    assert str(state / path) in refused.place, (damage, path, refused)
                    remove(state / path)
                    assert look(public) is None
    assert results[world.first, False] == 0
    assert results[world.second, False] > 20
    assert results[world.second, True] > 10


def test_no_emptied_file_makes_the_command_go_back(world, mirror, tmp_path):
    victim = world.late(tmp_path / "victim")
    whole = tmp_path / "whole"
    shutil.copytree(victim.state, whole, symlinks=True)
    state = victim.state
    for path in files_of(whole):
        shutil.rmtree(state)
        shutil.copytree(whole, state, symlinks=True)
        empty(state / path)
        mirror.public = world.first
        done = victim.site.run(*victim.words(mirror, OLD))
        assert done.code in (4, 8), (path, done.err)
        mirror.public = world.second
        done = victim.site.run(*victim.words(mirror, NEW))
        if done.code:
            assert str(state / path) in done.err
            assert "remove this file" in done.json["hint"]
            (state / path).unlink()
            victim.installs(mirror)
    assert victim.installed()["Demo"] == NEW


def test_a_damaged_pin_is_named(world, mirror, tmp_path):
    victim = world.fresh(tmp_path / "victim")
    command = ("list", "--from", mirror.url)
    victim.site.ok(*command, "--trust-on-first-use")
    (pin,) = (victim.home / "home/state/pacball/pins").iterdir()
    for damage, code in ((flip, 7), (empty, 7), (other_kind, 6), (remove, 8)):
        damage(pin)
        done = victim.site.fails(code, *command)
        assert code == 8 or str(pin) in done.err
        assert done.json["hint"]


def test_many_installers_share_what_they_know(world, mirror, tmp_path):
    victim = world.early(tmp_path / "victim")
    roots = [tmp_path / f"root{number}" for number in range(INSTALLERS)]
    running = [victim.site.start("install", NEW, *victim.source(mirror), "--root", root) for root in roots]
    done = [Outcome.of(process, timeout=90) for process in running]
    assert [(one.code, one.err) for one in done] == [(0, "")] * INSTALLERS
    mirror.public = world.first
    victim.refuses(mirror, 8, "rolled back: timestamp is version 3, and version 5 was seen", release=OLD)
    shutil.rmtree(victim.state / "metadata")
    victim.refuses(mirror, 8, "rolled back: root is version 1, and version 2 was seen", release=OLD)


def test_killed_again_and_again_it_never_goes_back(world, mirror, tmp_path):
    victim = world.late(tmp_path / "victim")
    mirror.public = copied(world.second, tmp_path / "public")
    operator = Forger(mirror.public, world.keys.signer("online"))
    began = time.monotonic()
    victim.site.ok("list", *victim.source(mirror))
    seconds = time.monotonic() - began
    moments = seeded("refresh")
    killed = 0
    for number in range(KILLS):
        # A new catalog each time, so that there is something to remember; sometimes without python-tuf's own files.
        operator.snapshot(lambda _: None)
        if number % 4 == 3:
            shutil.rmtree(victim.state / "metadata", ignore_errors=True)
        process = victim.site.start("list", *victim.source(mirror))
        time.sleep(moments.uniform(0.6, 1.1) * seconds)
        process.kill()
        process.communicate()
        killed += process.returncode != 0
    assert killed
    newest, mirror.public = mirror.public, world.first
    shutil.rmtree(victim.state / "metadata", ignore_errors=True)
    victim.refuses(mirror, 8, "rolled back: root is version 1, and version 2 was seen", release=OLD)
    mirror.public = newest
    victim.installs(mirror)
    mirror.public = world.second
    victim.refuses(mirror, 8, "rolled back: timestamp is version 5, and version 25 was seen", release=OLD)

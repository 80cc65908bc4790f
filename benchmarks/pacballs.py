"""Figures of pacballs: one made of a directory, beside tar and sha256sum; and one that installs itself, beside tar."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import COSTS, Bench, Tally
from benchmarks.measure import Command, run_untimed
from benchmarks.ours import PROGRAM
from benchmarks.report import Outcome

TREE = "A1"
BUILD, TAR = "pacball build", "tar + sha256sum"
INSTALL, UNPACK = "pacball (sh FILE)", "sha256sum + tar -x"
BUILD_SPEED = 0.7


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("pacballs", dict(COSTS))
    tally = Tally(bench, outcome)
    if bench.wanted([BUILD]):
        with bench.fresh(need_bytes=4 * bench.room(TREE)) as path:
            _measure_build(bench, tally, path)
            _measure_install(bench, tally, path)
    tally.finish([BUILD, TAR, INSTALL, UNPACK])
    outcome.aim("build, wall, against tar and sha256sum", "wall", ours=BUILD, peers=[TAR], limit=1 / BUILD_SPEED)
    return outcome


def _measure_build(bench: Bench, tally: Tally, path: Path) -> None:
    tree, target = bench.tree(TREE), path / "built"
    commands = {
        BUILD: _build(path, tree, target),
        TAR: _shell(f"tar -cf built/a.tar -C {tree} . && sha256sum built/a.tar", path),
    }

    def once(name: str, _: int) -> None:
        target.mkdir()
        cost, _output = bench.measure(commands[name], synced=path, warm=[tree], what=name)
        tally.add(name, cost)
        shutil.rmtree(target)

    tally.rounds([BUILD, TAR], once)


def _measure_install(bench: Bench, tally: Tally, path: Path) -> None:
    tree, made, target = bench.tree(TREE), path / "made", path / "installed"
    made.mkdir()
    run_untimed(_build(path, tree, made / "a.sh"))
    run_untimed(_shell(f"tar -cf made/a.tar -C {tree} .", path))
    unpack = "mkdir installed && sha256sum made/a.tar >/dev/null && tar -xof made/a.tar -C installed"
    commands = {INSTALL: _shell("sh made/a.sh --prefix installed", path), UNPACK: _shell(unpack, path)}

    def once(name: str, _: int) -> None:
        cost, _output = bench.measure(commands[name], synced=path, warm=[made], what=name)
        tally.add(name, cost)
        shutil.rmtree(target)

    tally.rounds([INSTALL, UNPACK], once)


def _build(path: Path, tree: Path, output: Path) -> Command:
    argv = [PROGRAM, "build", str(tree), ours.release(TREE), "-o", str(output), "-q"]
    return Command(argv, ours.environment(path / "home"))


def _shell(line: str, path: Path) -> Command:
    return Command(["sh", "-c", line], cwd=path)

"""Figures of pacballs: made of a directory, beside tar and sha256sum; installing itself, beside tar; put together by the daemon
while it is sent, beside zstd, which decompresses the same file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import COSTS, Bench, Tally
from benchmarks.measure import Command, CommandFailedError, run_untimed, tree_cpu_s
from benchmarks.ours import PROGRAM, Pacball
from benchmarks.report import Outcome, Target

TREE = "A1"
BUILD, TAR = "pacball build", "tar + sha256sum"
INSTALL, UNPACK = "pacball (sh FILE)", "sha256sum + tar -x"
SERVE, ZSTD = "pacball serve", "zstd -dc"
RATE, FIRST_BYTE = "rate", "first byte"
BUILD_SPEED = 0.7
OF_ZSTD = 0.7
FIRST_BYTE_MS = 50.0
RANGES = 40


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("pacballs", {**COSTS, RATE: "GB/CPU-s", FIRST_BYTE: "ms"})
    tally = Tally(bench, outcome)
    if bench.wanted([BUILD]):
        with bench.fresh(need_bytes=4 * bench.room(TREE)) as path:
            _measure_build(bench, tally, path)
            _measure_install(bench, tally, path)
            try:
                _measure_served(bench, tally, path)
            except CommandFailedError as problem:
                tally.fail(SERVE, problem)
    tally.finish([BUILD, TAR, INSTALL, UNPACK, SERVE, ZSTD])
    own, peer = outcome.value(SERVE, RATE), outcome.value(ZSTD, RATE)
    figure = "a pacball put together over HTTP, bytes per CPU second of the server"
    outcome.targets.append(Target(figure, "GB/CPU-s", own, peer, ZSTD, OF_ZSTD, at_least=True))
    first = outcome.value(SERVE, FIRST_BYTE)
    outcome.targets.append(Target("first byte of a range of it, the slowest", "ms", first, None, "", FIRST_BYTE_MS))
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


def _measure_served(bench: Bench, tally: Tally, path: Path) -> None:
    """CPU of the server alone; its peer has the same bytes in one zstd file, and writes them to nowhere."""
    home, file = path / "served", path / "made/a.sh"
    archiver = Pacball("--pacball")
    archiver.prepare(home)
    told = ours.last_object(run_untimed(archiver.ingest(home, bench.tree(TREE), TREE)))
    run_untimed(_shell("zstd -q -3 -o served/a.zst made/a.sh", path))
    size = file.stat().st_size
    with ours.served(home) as daemon:
        url = f"{daemon.url}/pacballs/{told['pacball']}"
        run_untimed(_shell(f"curl -sSf {url} | cmp - made/a.sh", path))

        def once(name: str, _: int) -> None:
            if name == SERVE:
                before = tree_cpu_s(daemon.pid)
                command = _shell(f"curl -sSf -o /dev/null {url}", path)
                cost, _output = bench.measure(command, synced=path, warm=[home / "store"], what=name)
                spent = tree_cpu_s(daemon.pid) - before
                tally.add(name, cost, **{RATE: size / 1e9 / spent, FIRST_BYTE: _first_byte_ms(url, size, path)})
            else:
                command = _shell("zstd -dc served/a.zst > /dev/null", path)
                cost, _output = bench.measure(command, synced=path, warm=[home], what=name)
                tally.add(name, cost, **{RATE: size / 1e9 / cost.cpu_s})

        tally.rounds([SERVE, ZSTD], once)


def _first_byte_ms(url: str, size: int, path: Path) -> float:
    """The slowest first byte of ranges all over the pacball."""
    took = []
    for number in range(RANGES):
        begin = size * (number * 7 % RANGES) // RANGES
        line = f"curl -sSf -o /dev/null -r {begin}-{begin + 999_999} -w '%{{time_starttransfer}}' {url}"
        took.append(float(run_untimed(_shell(line, path)).strip()))
    return 1000 * max(took)


def _build(path: Path, tree: Path, output: Path) -> Command:
    argv = [PROGRAM, "build", str(tree), ours.release(TREE), "-o", str(output), "-q"]
    return Command(argv, ours.environment(path / "home"))


def _shell(line: str, path: Path) -> Command:
    return Command(["sh", "-c", line], cwd=path)

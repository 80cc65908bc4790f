"""Figures of pacballs: made of a directory, beside tar and sha256sum; installing itself, beside tar; put together by the daemon
while it is sent, beside zstd, which decompresses the same file; what it costs to take in a tar, or a pacball, of a tree that
a store has already; and publishing over HTTP.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import ours, trees, uploads
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.measure import Command, CommandFailedError, run_untimed, tree_cpu_s
from benchmarks.ours import PROGRAM, Pacball
from benchmarks.report import Outcome, Target

TREE = "A1"
BUILD, TAR = "pacball build", "tar + sha256sum"
INSTALL, UNPACK = "pacball (sh FILE)", "sha256sum + tar -x"
TAKE_IN = {
    "pacball (publish FILE.tar)": "a.tar",
    "pacball (publish FILE.sh)": "a.sh",
    "pacball (publish FILE.tar.gz)": "a.tar.gz",
}
SERVE, ZSTD = "pacball serve", "zstd -dc"
RATE, FIRST_BYTE = "rate", "first byte"
BUILD_SPEED = 0.7
OF_ZSTD = 0.7
FIRST_BYTE_MS = 50.0
RANGES = 40
MOST_ADDED_PERCENT = 1.0


def measure(bench: Bench) -> Outcome:
    columns = {**COSTS, RATE: "GB/CPU-s", FIRST_BYTE: "ms", "added": "MB", "of the tar": "%", **uploads.COLUMNS}
    outcome = Outcome("pacballs", columns)
    tally = Tally(bench, outcome)
    if bench.wanted([BUILD]):
        with bench.fresh(need_bytes=4 * bench.room(TREE)) as path:
            _measure_build(bench, tally, path)
            _measure_install(bench, tally, path)
            try:
                _measure_served(bench, tally, path)
            except CommandFailedError as problem:
                tally.fail(SERVE, problem)
            _measure_taking_in(bench, tally, path)
    tally.finish([BUILD, TAR, INSTALL, UNPACK, SERVE, ZSTD, *TAKE_IN])
    uploads.measure(bench, outcome)
    own, peer = outcome.value(SERVE, RATE), outcome.value(ZSTD, RATE)
    figure = "a pacball put together over HTTP, bytes per CPU second of the server"
    outcome.targets.append(Target(figure, "GB/CPU-s", own, peer, ZSTD, OF_ZSTD, at_least=True))
    first = outcome.value(SERVE, FIRST_BYTE)
    outcome.targets.append(Target("first byte of a range of it, the slowest", "ms", first, None, "", FIRST_BYTE_MS))
    for name in TAKE_IN:
        added = outcome.value(name, "of the tar")
        outcome.targets.append(Target(f"{name}, added", "%", added, None, "", MOST_ADDED_PERCENT))
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


def _measure_taking_in(bench: Bench, tally: Tally, path: Path) -> None:
    """What a store grows by, packs and documents, beside the tree that it has under another name."""
    tree, made, home = bench.tree(TREE), path / "made", path / "home"
    run_untimed(_shell(f"tar -cf {made}/a.tar -C {tree} . && gzip -k -n {made}/a.tar", path))
    tar_bytes = (made / "a.tar").stat().st_size

    def once(name: str, _: int) -> None:
        store = path / "store"
        run_untimed(_publish(home, tree, store, "first"))
        before = trees.stored_bytes(store / "public")
        cost, _output = bench.measure(
            _publish(home, made / TAKE_IN[name], store, "second"), synced=path, warm=[made], what=name
        )
        added = trees.stored_bytes(store / "public") - before
        tally.add(name, cost, **{"added": added / MB, "of the tar": 100 * added / tar_bytes})
        shutil.rmtree(store)

    tally.rounds(list(TAKE_IN), once)


def _publish(home: Path, what: Path, store: Path, label: str) -> Command:
    argv = [PROGRAM, "publish", str(what), ours.release(label), "--to", str(store), "--keys", str(home / "keys"), "-q"]
    return Command(argv, ours.environment(home))


def _build(path: Path, tree: Path, output: Path) -> Command:
    argv = [PROGRAM, "build", str(tree), ours.release(TREE), "-o", str(output), "-q"]
    return Command(argv, ours.environment(path / "home"))


def _shell(line: str, path: Path) -> Command:
    return Command(["sh", "-c", line], cwd=path)

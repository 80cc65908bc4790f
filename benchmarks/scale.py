"""Figures: memory of an installer for a release of 50 GB, 300,000 files and 600,000 chunks; all of it is really written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ours, scratch, synthetic
from benchmarks.bench import Bench
from benchmarks.daemons import nginx
from benchmarks.measure import Command, CommandFailedError
from benchmarks.memory import LIMIT_MIB
from benchmarks.report import MIB, Outcome, Target
from pacstore.release import Release

OLD, NEW = "S1", "S2"
FILES = 300_000
CHANGED_EVERY = 4
NEED_BYTES = 12 << 30
VERBS = ("plan", "install", "verify", "plan of an update", "update", "install again")


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"scale: a release of {FILES:,} files", {"peak": "MiB", "wall": "s", "CPU": "s"})
    if bench.wanted(["pacball"]):
        try:
            with _compressing(bench) as path:
                _measure(bench, outcome, path)
        except CommandFailedError as problem:
            outcome.failures.append(str(problem))
            bench.say(f"FAILED: {problem}")
    for verb in VERBS:
        peak = outcome.value(verb, "peak")
        outcome.targets.append(Target(f"peak memory, {verb}, 50 GB", "MiB", peak, None, "", LIMIT_MIB))
    outcome.notes.append("every chunk is its own, but compresses to nothing; the root is btrfs with compress=zstd:1")
    return outcome


@contextmanager
def _compressing(bench: Bench) -> Iterator[Path]:
    with scratch.compressing(bench.work / "scratch", need_bytes=NEED_BYTES) as made:
        bench.kinds.add(made.kind)
        yield made.path


def _measure(bench: Bench, outcome: Outcome, path: Path) -> None:
    home, root = path / "pacball", path / "root"
    home.mkdir()
    for label, changed in ((OLD, 0), (NEW, CHANGED_EVERY)):
        bench.say(f"making {label}")
        synthetic.make(home, Release.parse(ours.release(label)), files=FILES, changed_every=changed)
    with nginx(home / "store/public", path / "nginx") as web:

        def once(verb: str, command: Command, *more: str) -> None:
            command = Command([*command.argv, *more], command.env)
            cost, _ = bench.measure(command, synced=path, warm=[], what=verb)
            outcome.rows[verb] = {"peak": cost.peak_bytes / MIB, "wall": cost.wall_s, "CPU": cost.cpu_s}

        install = {label: ours.install(web.url, label, root, home=path / "site") for label in (OLD, NEW)}
        once("plan", install[OLD], "--plan")
        once("install", install[OLD])
        once("verify", ours.verify(OLD, root, home=path / "site"))
        once("plan of an update", install[NEW], "--plan")
        once("update", install[NEW])
        once("install again", install[NEW])

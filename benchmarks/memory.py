"""Figures: the most memory that publish, serve and install take, on small and on large files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import Bench
from benchmarks.measure import CommandFailedError, Watch
from benchmarks.ours import Pacball
from benchmarks.report import MIB, Outcome, Target
from benchmarks.trees import TreeDiffersError

LIMIT_MIB = 256
SERIES = (("A1", "A2"), ("B",))


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("peak memory", {"peak": "MiB", "wall": "s", "CPU": "s"})
    for labels in SERIES if bench.wanted([Pacball.name]) else ():
        try:
            with bench.fresh(need_bytes=2 * bench.room(*labels)) as scratch:
                _publish(bench, outcome, labels, scratch)
                _install(bench, outcome, labels, scratch)
        except (CommandFailedError, TreeDiffersError) as problem:
            outcome.failures.append(f"{' '.join(labels)}: {problem}")
            bench.say(f"FAILED: {problem}")
    for verb in ("publish", "serve", "install"):
        for series in SERIES:
            label = series[-1]
            peak = outcome.value(f"{verb} {label}", "peak")
            outcome.targets.append(Target(f"peak memory, {verb} {label}", "MiB", peak, None, "", LIMIT_MIB))
    outcome.notes.append(
        "peak: sampled from /proc every 20 ms over the process tree, the larger of VmHWM and sum of VmRSS"
    )
    return outcome


def _publish(bench: Bench, outcome: Outcome, labels: Sequence[str], scratch: Path) -> None:
    archiver, home = Pacball(), scratch / Pacball.name
    archiver.prepare(home)
    for label in labels:
        tree = bench.tree(label)
        command = archiver.ingest(home, tree, label)
        cost, _ = bench.measure(command, synced=scratch, warm=[tree], what=f"publish {label}")
        outcome.rows[f"publish {label}"] = {"peak": cost.peak_bytes / MIB, "wall": cost.wall_s, "CPU": cost.cpu_s}


def _install(bench: Bench, outcome: Outcome, labels: Sequence[str], scratch: Path) -> None:
    root, home = scratch / "root", scratch / "installer"
    with ours.served(scratch / Pacball.name) as daemon:
        for label in labels:
            command = ours.install(daemon.url, label, root, home=home)
            with Watch(daemon.pid) as watch:
                cost, _ = bench.measure(command, synced=scratch, warm=[], what=f"install {label}")
            trees.require_same(ours.installed(root, label), bench.tree(label))
            outcome.rows[f"serve {label}"] = {"peak": watch.peak_bytes / MIB}
            outcome.rows[f"install {label}"] = {"peak": cost.peak_bytes / MIB, "wall": cost.wall_s, "CPU": cost.cpu_s}

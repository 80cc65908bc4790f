"""Figures: putting the first tree into an empty store, then its next version."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.measure import run_untimed
from benchmarks.ours import Pacball
from benchmarks.peers import Archiver, Borg, Casync, Restic
from benchmarks.report import Outcome

LABELS = ("A1", "A2")
ARCHIVERS: dict[str, Archiver] = {each.name: each for each in (Casync(), Borg(), Restic(), Pacball())}
LIMITS = {"A1": {"CPU": 0.55, "wall": 0.40, "stored": 1.0}, "A2": {"CPU": 0.5, "wall": 0.5, "stored": 0.97}}
WORDS = {"A1": "first ingest", "A2": "second ingest"}


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("ingest: A1 into an empty store, then A2 (stored: both)", {**COSTS, "stored": "MB"})
    tally = Tally(bench, outcome)
    tally.rounds(list(ARCHIVERS), lambda name, number: _ingest(bench, tally, ARCHIVERS[name], number))
    tally.finish([f"{name}: {label}" for label in LABELS for name in ARCHIVERS])
    for label, limits in LIMITS.items():
        peers = [f"{name}: {label}" for name in ARCHIVERS if name != Pacball.name]
        for column, limit in limits.items():
            figure = f"{WORDS[label]}, {column}"
            outcome.aim(figure, column, ours=f"{Pacball.name}: {label}", peers=peers, limit=limit)
    outcome.notes.append("stored leaves out indexes that can be rebuilt, for every tool")
    return outcome


def _ingest(bench: Bench, tally: Tally, archiver: Archiver, number: int) -> None:
    with bench.fresh(need_bytes=2 * bench.room(*LABELS)) as scratch:
        home = scratch / archiver.name
        archiver.prepare(home)
        for label in LABELS:
            tree = bench.tree(label)
            command = archiver.ingest(home, tree, label)
            cost, _ = bench.measure(command, synced=scratch, warm=[tree], what=f"{archiver.name}: ingest {label}")
            tally.add(f"{archiver.name}: {label}", cost, stored=archiver.stored(home) / MB)
        if number == bench.repeat - 1:
            for label in LABELS:
                _require_back(bench, archiver, home, label, scratch)


def _require_back(bench: Bench, archiver: Archiver, home: Path, label: str, scratch: Path) -> None:
    """What was stored comes out again as it went in."""
    target = scratch / f"back-{label}"
    target.mkdir()
    if isinstance(archiver, Pacball):
        with ours.served(home) as daemon:
            run_untimed(ours.install(daemon.url, label, target, home=scratch / "installer"))
        target = ours.installed(target, label)
    else:
        run_untimed(archiver.restore(home, label, target))
    trees.require_same(target, bench.tree(label))
    bench.say(f"{archiver.name}: {label} restored and compared")

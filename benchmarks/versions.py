"""Figures: what ten successive versions do to a store, and to a cold install of the newest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import MB, Bench
from benchmarks.daemons import nginx
from benchmarks.measure import CommandFailedError
from benchmarks.ours import Pacball
from benchmarks.pins import HISTORY
from benchmarks.report import Outcome, Target
from benchmarks.trees import TreeDiffersError

LABELS = tuple(stack.name for stack in HISTORY)
NEWEST = LABELS[-1]
TEN, ALONE, PLAIN = "pacball: ten versions", "pacball: the newest alone", "pacball: ten, no rewriting"
COLUMNS = {"publish wall": "s", "publish CPU": "s", "stored": "MB", "moved": "MB", "requests": "", "per request": "MB"}


@dataclass(frozen=True, slots=True)
class Store:
    """One way to fill a store."""

    row: str
    labels: Sequence[str]
    options: tuple[str, ...] = ()


STORES = (Store(TEN, LABELS), Store(ALONE, LABELS[-1:]), Store(PLAIN, LABELS, ("--rewrite-share", "0")))


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"ten successive versions; cold install of {NEWEST} through nginx", COLUMNS)
    for store in STORES if bench.wanted([Pacball.name]) else ():
        try:
            with bench.fresh(need_bytes=2 * bench.room(*LABELS[:2])) as scratch:
                outcome.rows[store.row] = _fill(bench, store, scratch) | _install(bench, store, scratch)
        except (CommandFailedError, TreeDiffersError) as problem:
            outcome.failures.append(f"{store.row}: {problem}")
            bench.say(f"{store.row} FAILED: {problem}")
    moved, requests, stored = "moved", "per request", "stored"
    outcome.aim("cold install after ten versions, bytes", moved, ours=TEN, peers=[ALONE], limit=1.08)
    mean = outcome.value(TEN, requests)
    outcome.targets.append(Target("the same, MB a request", "MB", mean, None, "", 2.0, at_least=True))
    outcome.aim("stored, ten versions, rewriting", stored, ours=TEN, peers=[PLAIN], limit=1.05)
    outcome.notes.append("moved and requests are counted by nginx: catalog, manifest and all else included")
    return outcome


def _fill(bench: Bench, store: Store, scratch: Path) -> dict[str, float]:
    archiver, home = Pacball(*store.options), scratch / Pacball.name
    archiver.prepare(home)
    wall_s = cpu_s = 0.0
    for label in store.labels:
        tree = bench.tree(label)
        command = archiver.ingest(home, tree, label)
        cost, _ = bench.measure(command, synced=scratch, warm=[tree], what=f"{store.row}: publish {label}")
        wall_s, cpu_s = wall_s + cost.wall_s, cpu_s + cost.cpu_s
    return {"publish wall": wall_s, "publish CPU": cpu_s, "stored": archiver.stored(home) / MB}


def _install(bench: Bench, store: Store, scratch: Path) -> dict[str, float]:
    root, home = scratch / "root", scratch / "installer"
    with nginx(scratch / Pacball.name / "store" / "public", scratch / "nginx") as web:
        command = ours.install(web.url, NEWEST, root, home=home)
        bench.measure(command, synced=scratch, warm=[], what=f"{store.row}: install {NEWEST}")
        sent = web.traffic()
    trees.require_same(ours.installed(root, NEWEST), bench.tree(NEWEST))
    moved = sent.sent_bytes / MB
    return {"moved": moved, "requests": float(sent.requests), "per request": moved / sent.requests}

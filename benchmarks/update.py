"""Figures: from the installed first tree to its next version, over HTTP on loopback."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.daemons import Nginx, nginx, rsyncd
from benchmarks.measure import CommandFailedError, Cost, run_untimed
from benchmarks.ours import Pacball
from benchmarks.peers import Archiver, Casync, rsync_az, rsync_bytes
from benchmarks.report import Outcome

OLD, NEW = "A1", "A2"
OURS, OURS_NGINX = "pacball install", "pacball install (nginx)"
CASYNC, RSYNC = "casync extract --seed", "rsync -az -c"
NAMES = (OURS, OURS_NGINX, CASYNC, RSYNC)


@dataclass(frozen=True, slots=True)
class Stage:
    path: Path
    web: Nginx


@dataclass(frozen=True, slots=True)
class Update:
    """One update: what it cost, what it moved, and the tree that it made."""

    cost: Cost
    moved_bytes: int
    requests: int | None
    result: Path

    @property
    def figures(self) -> dict[str, float]:
        requests = {} if self.requests is None else {"requests": float(self.requests)}
        return {"moved": self.moved_bytes / MB, **requests}


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"update: {OLD} -> {NEW}", {**COSTS, "moved": "MB", "requests": ""})
    tally = Tally(bench, outcome)
    with ExitStack() as stack:
        path = stack.enter_context(bench.fresh(need_bytes=3 * bench.room(OLD, NEW)))
        stage = Stage(path, stack.enter_context(nginx(path, path / "nginx")))
        archivers: tuple[Archiver, ...] = (Casync(), Pacball())
        for archiver in archivers:
            try:
                _prepare(bench, stage, archiver)
            except CommandFailedError as problem:
                for name in (name for name in NAMES if name.startswith(archiver.name)):
                    tally.fail(name, problem)
        tally.rounds(NAMES, lambda name, _: _update(bench, tally, stage, name))
    tally.finish(NAMES)
    _aim(outcome)
    return outcome


def _aim(outcome: Outcome) -> None:
    outcome.aim("update, bytes on the wire", "moved", ours=OURS_NGINX, peers=[CASYNC], limit=0.72)
    outcome.aim("update, requests", "requests", ours=OURS_NGINX, peers=[CASYNC], limit=0.02)
    outcome.aim("update, wall, against casync", "wall", ours=OURS, peers=[CASYNC], limit=0.3)
    outcome.aim("update, wall, against rsync", "wall", ours=OURS, peers=[RSYNC], limit=1.0)
    told, counted = outcome.value(OURS, "moved"), outcome.value(OURS_NGINX, "moved")
    if told is not None and counted is not None:
        outcome.notes.append(f"pacball install tells {told:.2f} MB; nginx sent {counted:.2f} MB, headers and all")
    outcome.notes.append("moved: of rsync both directions, of pacball install what it tells, else what nginx sent")


def _prepare(bench: Bench, stage: Stage, archiver: Archiver) -> None:
    if archiver.name not in bench.wanted([archiver.name]):
        return
    bench.say(f"preparing what {archiver.name} updates from")
    archiver.prepare(stage.path / archiver.name)
    for label in (OLD, NEW):
        run_untimed(archiver.ingest(stage.path / archiver.name, bench.tree(label), label))


def _update(bench: Bench, tally: Tally, stage: Stage, name: str) -> None:
    ways = {OURS: _ours, OURS_NGINX: _ours_nginx, CASYNC: _casync, RSYNC: _rsync}
    with bench.fresh(need_bytes=2 * bench.room(OLD, NEW)) as scratch:
        (scratch / "home").mkdir()
        done = ways[name](bench, stage, scratch)
        trees.require_same(done.result, bench.tree(NEW))
        tally.add(name, done.cost, **done.figures)


def _ours(bench: Bench, stage: Stage, scratch: Path) -> Update:
    root, home = scratch / "root", scratch / "home"
    with ours.served(stage.path / Pacball.name) as daemon:
        run_untimed(ours.install(daemon.url, OLD, root, home=home))
        command = ours.install(daemon.url, NEW, root, home=home)
        cost, output = bench.measure(command, synced=scratch, warm=[stage.path / Pacball.name, root], what=OURS)
    moved = ours.Moved.parse(output)
    return Update(cost, moved.downloaded_bytes, moved.requests, ours.installed(root, NEW))


def _ours_nginx(bench: Bench, stage: Stage, scratch: Path) -> Update:
    root, home, store = scratch / "root", scratch / "home", stage.path / Pacball.name / "store"
    with nginx(store / "public", stage.path / "nginx-public") as web:
        run_untimed(ours.install(web.url, OLD, root, home=home))
        command, mark = ours.install(web.url, NEW, root, home=home), web.mark()
        cost, _ = bench.measure(command, synced=scratch, warm=[store, root], what=OURS_NGINX)
        sent = web.traffic(after=mark)
    return Update(cost, sent.sent_bytes, sent.requests, ours.installed(root, NEW))


def _casync(bench: Bench, stage: Stage, scratch: Path) -> Update:
    seed, target, home, casync = scratch / OLD, scratch / NEW, stage.path / "casync", Casync()
    seed.mkdir()
    run_untimed(casync.restore(home, OLD, seed))
    source, mark = f"{stage.web.url}/casync/public", stage.web.mark()
    command = casync.extract(source, NEW, target, home=scratch / "home", seed=seed)
    cost, _ = bench.measure(command, synced=scratch, warm=[home, seed], what=CASYNC)
    sent = stage.web.traffic(after=mark)
    return Update(cost, sent.sent_bytes, sent.requests, target)


def _rsync(bench: Bench, _stage: Stage, scratch: Path) -> Update:
    target, source = scratch / "tree", bench.tree(NEW)
    shutil.copytree(bench.tree(OLD), target, symlinks=True)
    with rsyncd(source, scratch / "rsyncd") as daemon:
        command = rsync_az(daemon.port, target)
        cost, output = bench.measure(command, synced=scratch, warm=[source, target], what=RSYNC)
    return Update(cost, rsync_bytes(output), None, target)

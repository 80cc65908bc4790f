"""Figures: one tree from a server on loopback into an empty directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.daemons import Daemon, nginx
from benchmarks.measure import Command, CommandFailedError, run_untimed
from benchmarks.ours import Pacball
from benchmarks.peers import Archiver, Casync, Restic, curl_tar, tar_zst
from benchmarks.report import Outcome

LABEL = "A1"
OURS, CURL, RESTIC = "pacball install", "curl | zstd -d | tar x", "restic restore (local)"
CASYNC, CASYNC_HTTP = "casync extract (local)", "casync extract (http)"
ARCHIVERS: dict[str, Archiver] = {each.name: each for each in (Casync(), Restic(), Pacball())}
NAMES = (OURS, CURL, RESTIC, CASYNC, CASYNC_HTTP)


@dataclass(slots=True)
class Stage:
    """Where the tree is installed from: a file system of its own, with servers over it."""

    path: Path
    web: Daemon
    ours: Daemon | None = None
    ready: set[str] = field(default_factory=set)


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"install: {LABEL} into an empty directory", {**COSTS, "moved": "MB"})
    tally = Tally(bench, outcome)
    with ExitStack() as stack:
        path = stack.enter_context(bench.fresh(need_bytes=3 * bench.room(LABEL)))
        stage = Stage(path, stack.enter_context(nginx(path, path / "nginx")))
        for name in bench.wanted(NAMES):
            try:
                _prepare(bench, stage, stack, name)
            except CommandFailedError as problem:
                tally.fail(name, problem)
        tally.rounds(NAMES, lambda name, _: _install(bench, tally, stage, name))
    tally.finish(NAMES)
    for peer, limit in ((CURL, 1.0), (RESTIC, 0.8), (CASYNC, 0.8), (CASYNC_HTTP, 0.8)):
        outcome.aim(f"install, wall, against {peer}", "wall", ours=OURS, peers=[peer], limit=limit)
    return outcome


def _prepare(bench: Bench, stage: Stage, stack: ExitStack, name: str) -> None:
    tool = name.split(maxsplit=1)[0]
    if tool not in stage.ready:
        bench.say(f"preparing what {name} installs from")
        tree = bench.tree(LABEL)
        if tool == "curl":
            tar_zst(tree, stage.path / f"{LABEL}.tar.zst")
        else:
            archiver = ARCHIVERS[tool]
            archiver.prepare(stage.path / tool)
            run_untimed(archiver.ingest(stage.path / tool, tree, LABEL))
        if tool == "pacball":
            stage.ours = stack.enter_context(ours.served(stage.path / tool))
        stage.ready.add(tool)


def _install(bench: Bench, tally: Tally, stage: Stage, name: str) -> None:
    with bench.fresh(need_bytes=bench.room(LABEL)) as scratch:
        target = scratch / "target"
        target.mkdir()
        command = _command(stage, name, target, scratch / "home")
        cost, output = bench.measure(command, synced=scratch, warm=[stage.path], what=name)
        more = {}
        if name == OURS:
            target = ours.installed(target, LABEL)
            more["moved"] = ours.Moved.parse(output).downloaded_bytes / MB
        elif name == CURL:
            more["moved"] = (stage.path / f"{LABEL}.tar.zst").stat().st_size / MB
        trees.require_same(target, bench.tree(LABEL))
        tally.add(name, cost, **more)


def _command(stage: Stage, name: str, target: Path, home: Path) -> Command:
    home.mkdir()
    commands: dict[str, Callable[[], Command]] = {
        OURS: lambda: ours.install(_url(stage), LABEL, target, home=home),
        CURL: lambda: curl_tar(f"{stage.web.url}/{LABEL}.tar.zst", target),
        RESTIC: lambda: Restic().restore(stage.path / "restic", LABEL, target),
        CASYNC: lambda: Casync().restore(stage.path / "casync", LABEL, target),
        CASYNC_HTTP: lambda: Casync().extract(f"{stage.web.url}/casync/public", LABEL, target, home=home),
    }
    return commands[name]()


def _url(stage: Stage) -> str:
    if stage.ours is None:
        raise CommandFailedError("pacball serve is not running")
    return stage.ours.url

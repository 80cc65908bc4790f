"""Figures: what serving warm 16 MiB ranges costs the daemon, beside nginx."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import MB, Bench, Tally
from benchmarks.daemons import Daemon, nginx
from benchmarks.measure import Command, CommandFailedError, run_untimed, tree_cpu_s
from benchmarks.ours import Pacball
from benchmarks.report import Outcome, Target

OURS, NGINX = "pacball serve", "nginx"
TOTAL_BYTES = 4 << 30
PACKS = 8
RATE = "rate"
OF_NGINX = 0.9
DIGESTS_S = 300.0


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("serving 16 MiB ranges of packs, warm", {"wall": "s", "server CPU": "s", RATE: "GB/CPU-s"})
    tally = Tally(bench, outcome)
    if not bench.wanted([OURS]):
        return outcome
    with ExitStack() as stack:
        stage = stack.enter_context(bench.fresh(need_bytes=bench.room("A1")))
        try:
            servers = _servers(bench, stack, stage)
        except CommandFailedError as problem:
            tally.fail(OURS, problem)
            return outcome
        packs = _largest(stage / Pacball.name / "store" / "public")
        tally.rounds([OURS, NGINX], lambda name, _: _fetch(bench, tally, name, servers[name], packs, stage))
    tally.finish([OURS, NGINX])
    for row in outcome.rows.values():
        row[RATE] = TOTAL_BYTES / 1e9 / row["server CPU"]
    own, peer = outcome.value(OURS, RATE), outcome.value(NGINX, RATE)
    outcome.targets.append(
        Target("warm serving, bytes per CPU second", "GB/CPU-s", own, peer, NGINX, OF_NGINX, at_least=True)
    )
    return outcome


def _servers(bench: Bench, stack: ExitStack, stage: Path) -> dict[str, Daemon]:
    home = stage / Pacball.name
    archiver = Pacball()
    archiver.prepare(home)
    run_untimed(archiver.ingest(home, bench.tree("A1"), "A1"))
    web = stack.enter_context(nginx(home / "store" / "public", stage / "nginx"))
    daemon = stack.enter_context(ours.served(home))
    _wait_for_digests(daemon)
    return {OURS: daemon, NGINX: web}


def _wait_for_digests(daemon: Daemon) -> None:
    """What the daemon does once for each release, it has done: it is warm."""
    deadline = time.monotonic() + DIGESTS_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/v1/status") as answer:
            if json.load(answer)["pacballs"]["digests_taken"]:
                return
        time.sleep(0.2)
    raise CommandFailedError("the daemon has taken no digests")


def _largest(public: Path) -> list[str]:
    """URL paths and sizes of the largest packs, as `benchmarks.ranges` takes them."""
    files = sorted(
        (path for path in (public / "packs").rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size
    )
    return [f"/{path.relative_to(public)}={path.stat().st_size}" for path in files[:PACKS]]


def _fetch(bench: Bench, tally: Tally, name: str, server: Daemon, packs: list[str], stage: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks.ranges", str(server.port), str(TOTAL_BYTES), *packs]
    before = tree_cpu_s(server.pid)
    command = Command(argv, cwd=Path(__file__).resolve().parent.parent)
    cost, _ = bench.measure(command, synced=stage, warm=[stage / Pacball.name], what=f"{name}: {TOTAL_BYTES // MB} MB")
    spent = tree_cpu_s(server.pid) - before
    tally.add(name, cost, **{"server CPU": spent})

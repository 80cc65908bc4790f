"""Figures: a release delivered to a site by the agent of its RSE, beside the same release mirrored from the same origin."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ours
from benchmarks.daemons import free_port, healthy
from benchmarks.measure import Command, run_untimed
from benchmarks.mirrors import HERE, LARGE, LARGE_BYTES, SYNC, published
from benchmarks.ours import PROGRAM
from tests.peers.rucio.rses import SCOPE, add_rse

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Tally
    from benchmarks.daemons import Daemon

AGENT = "pacball rucio agent"
SPEED = 0.8
_ORIGIN = "BENCH-AGENT"


def measure(bench: Bench, tally: Tally, client: Any, environment: Mapping[str, str]) -> None:
    """Both rows, in turns. `client`: of a running Rucio, which `environment` names."""
    if not bench.wanted([AGENT]):
        return
    with bench.fresh(need_bytes=4 * LARGE_BYTES) as path:
        public = published(path, LARGE, LARGE_BYTES)
        port = free_port()
        serve = Command([PROGRAM, "serve", "--store", str(public.parent), "--listen", f"127.0.0.1:{port}"],
                        ours.environment(path))  # fmt: skip
        with healthy(serve, port=port, log=path / "serve.out") as origin:
            add_rse(client, _ORIGIN, origin.url)
            names = {**ours.environment(path), **environment}
            words = [
                "rucio",
                "register",
                ours.release(LARGE),
                "--rse",
                _ORIGIN,
                "--store",
                str(public.parent),
                "--create-scope",
            ]
            run_untimed(Command([PROGRAM, *words], names))
            (dataset,) = client.list_dids(SCOPE, {"name": f"sw.{ours.release(LARGE)}.*"}, did_type="dataset")

            def once(name: str, number: int) -> None:
                target = path / "target"
                target.mkdir()
                command = (
                    _agent(client, dataset, number, public, target, environment)
                    if name == AGENT
                    else _sync(origin, target)
                )
                try:
                    cost, _output = bench.measure(command, synced=path, warm=[public / "packs"], what=name)
                finally:
                    shutil.rmtree(target)
                tally.add(name, cost)

            tally.rounds([AGENT, SYNC], once)


def _agent(client: Any, dataset: str, number: int, public: Path, home: Path, environment: Mapping[str, str]) -> Command:
    rse = f"BENCH-SITE-{number}"
    add_rse(client, rse)
    client.add_replication_rule([{"scope": SCOPE, "name": dataset}], 1, rse)
    argv = [PROGRAM, "rucio", "agent", "--rse", rse, "--store", str(home / "store"), "--once"]
    argv += ["--root-keys", str(public / "catalog" / "1.root.json")]
    return Command(argv, {**ours.environment(home), **environment})


def _sync(origin: Daemon, home: Path) -> Command:
    argv = [sys.executable, "-m", "benchmarks.mirrored", "sync", str(home), origin.url, ours.release(LARGE)]
    return Command(argv, ours.environment(home), cwd=HERE)

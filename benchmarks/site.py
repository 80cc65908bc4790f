"""Figures: what people at a site wait for every day: verifying, installing what is there already, the help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import COSTS, Bench, Tally
from benchmarks.measure import Command, run_untimed
from benchmarks.ours import PROGRAM, Pacball
from benchmarks.report import Outcome, Target

LABEL = "A1"
VERIFY, B3SUM = "pacball verify", "b3sum"
AGAIN, HELP = "pacball install (there already)", "pacball --help"
START = "start-up of install"
IMPORTS = "import paccli.main, paccli.commands.sites, paccli.sources, pacmirror.source, pacstore.install.installation"
VERIFY_SPEED, AGAIN_S, HELP_CPU_S = 0.8, 0.5, 0.2


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"site: {LABEL}, {trees.stored_bytes(bench.tree(LABEL)) / 1e9:.2f} GB, is installed", COSTS)
    tally = Tally(bench, outcome)
    names = (VERIFY, B3SUM, AGAIN, START, HELP)
    with bench.fresh(need_bytes=3 * bench.room(LABEL)) as path:
        archiver, home, root = Pacball(), path / "pacball", path / "root"
        archiver.prepare(home)
        run_untimed(archiver.ingest(home, bench.tree(LABEL), LABEL))
        with ours.served(home) as daemon:
            install = ours.install(daemon.url, LABEL, root, home=path / "site")
            run_untimed(install)
            tree = ours.installed(root, LABEL)
            commands: dict[str, Callable[[], Command]] = {
                VERIFY: lambda: ours.verify(LABEL, root, home=path / "site"),
                B3SUM: lambda: _b3sum(tree),
                AGAIN: lambda: install,
                START: lambda: Command([sys.executable, "-c", IMPORTS], ours.environment(path / "site")),
                HELP: lambda: Command([PROGRAM, "--help"], ours.environment(path / "site")),
            }

            def once(name: str, _: int) -> None:
                cost, _output = bench.measure(commands[name](), synced=path, warm=[tree], what=name)
                tally.add(name, cost)

            tally.rounds(names, once)
    tally.finish(names)
    outcome.aim("verify, wall, against b3sum", "wall", ours=VERIFY, peers=[B3SUM], limit=1 / VERIFY_SPEED)
    _aim(outcome)
    return outcome


def _b3sum(tree: Path) -> Command:
    return Command(["sh", "-c", 'cd "$0" && find . -type f -print0 | xargs -0 b3sum >/dev/null', str(tree)])


def _aim(outcome: Outcome) -> None:
    again, start = outcome.value(AGAIN, "wall"), outcome.value(START, "wall")
    more = again - start if again is not None and start is not None else None
    outcome.targets.append(Target("install of what is there, wall, beyond start-up", "s", more, None, "", AGAIN_S))
    outcome.targets.append(Target("--help, CPU", "s", outcome.value(HELP, "CPU"), None, "", HELP_CPU_S))

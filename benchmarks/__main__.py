"""`python -m benchmarks`: measures pacball beside its peers and says which targets are reached."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks import (
    catalog,
    corpus,
    ingest,
    install,
    measure,
    memory,
    mirrors,
    ours,
    pacballs,
    peers,
    rucio,
    scale,
    scratch,
    serving,
    site,
    update,
    versions,
)
from benchmarks.bench import Bench
from benchmarks.report import Outcome, show, verdicts, write_json

GROUPS: dict[str, Callable[[Bench], Outcome]] = {
    "ingest": ingest.measure,
    "install": install.measure,
    "update": update.measure,
    "versions": versions.measure,
    "memory": memory.measure,
    "site": site.measure,
    "scale": scale.measure,
    "serving": serving.measure,
    "mirrors": mirrors.measure,
    "pacballs": pacballs.measure,
    "catalog": catalog.measure,
    "rucio": rucio.measure,
}
BUSY_LOAD = 0.5


def main() -> int:
    options = _options()
    work = options.work.resolve()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where nginx and mkfs are, also for those who are not root
    lacking = peers.missing()
    if lacking:
        print(f"benchmarks: missing: {', '.join(lacking)}; run benchmarks/install-peers.sh as root", file=sys.stderr)
        return 2
    absent = _absent(options.tool)
    signal.signal(signal.SIGTERM, _terminated)
    measure.adopt_orphans()
    scratch.sweep(work / "scratch")
    bench = Bench(work, options.corpus and options.corpus.resolve(), options.repeat, options.tool, absent)
    environment = _environment(bench)
    outcomes: dict[str, Outcome] = {}
    try:
        for name in options.only or GROUPS:
            outcomes[name] = GROUPS[name](bench)
            environment["scratch"] = sorted(bench.kinds)
            print(show(outcomes[name]), flush=True)
            write_json(options.json or work / "results.json", environment, outcomes)
    except (corpus.CorpusMissing, scratch.ScratchFullError) as lack:
        print(f"benchmarks: {lack}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    return _conclude(bench, outcomes)


def _conclude(bench: Bench, outcomes: dict[str, Outcome]) -> int:
    targets = [target for outcome in outcomes.values() for target in outcome.targets]
    if targets:
        print(f"== all targets (file system: {', '.join(sorted(bench.kinds))})\n\n{verdicts(targets)}")
    failed = any(outcome.failures for outcome in outcomes.values())
    return 1 if failed or any(target.reached is False for target in targets) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=GROUPS, help="a group of figures; may be repeated")
    parser.add_argument("--tool", action="append", default=[], help="measure this tool only; may be repeated")
    parser.add_argument("--repeat", type=_count, default=3, metavar="N", help="measurements of each figure (default 3)")
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="trees, wheels, scratch (default .bench)")
    parser.add_argument("--corpus", type=Path, help="where trees that exist already are: A1, A2, B, T01 ... T10")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all results (default WORK/results.json)")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _absent(tools: list[str]) -> list[str]:
    """The tools that cannot be measured; this and all else that limits the measurement is said."""
    if os.geteuid() != 0:
        print(f"benchmarks: not root, so everything runs in a {scratch.DIRECTORY}: figures are rough", file=sys.stderr)
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        print(f"benchmarks: the machine is not idle (load {load:.2f}): figures are rough", file=sys.stderr)
    problem = ours.available() if not tools or ours.Pacball.name in tools else None
    if problem is None:
        return []
    print(f"benchmarks: only the peers can be measured: {problem}", file=sys.stderr)
    return [ours.Pacball.name]


def _environment(bench: Bench) -> dict[str, object]:
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "repeat": bench.repeat,
        "peers": dict(peers.versions()),
    }


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

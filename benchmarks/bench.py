"""What every group of figures needs: the trees, scratch file systems, and a place for results and failures."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import corpus, measure, scratch, trees
from benchmarks.measure import Command, CommandFailedError, Cost
from benchmarks.report import Outcome
from benchmarks.trees import TreeDiffersError

MB = 1_000_000
COSTS = {"wall": "s", "sync": "s", "CPU": "s", "peak": "MiB"}


@dataclass(slots=True)
class Bench:
    work: Path
    given: Path | None
    repeat: int
    tools: Sequence[str]
    absent: Sequence[str]
    kinds: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.0f} s] {text}", file=sys.stderr, flush=True)

    def tree(self, name: str) -> Path:
        return corpus.tree(name, work=self.work, given=self.given)

    def room(self, *names: str) -> int:
        """Bytes to ask of a file system that is to hold these trees once, and a little more."""
        return sum(trees.stored_bytes(self.tree(name)) for name in names) + (1 << 30)

    def wanted(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that the user wants measured and that can be; a name's first word is its tool."""
        tools = {name: name.split(maxsplit=1)[0] for name in names}
        return [
            name for name in names if tools[name] not in self.absent and (not self.tools or tools[name] in self.tools)
        ]

    @contextmanager
    def fresh(self, *, need_bytes: int) -> Iterator[Path]:
        with scratch.fresh(self.work / "scratch", need_bytes=need_bytes) as made:
            self.kinds.add(made.kind)
            yield made.path

    def measure(self, command: Command, *, synced: Path, warm: Sequence[Path], what: str) -> tuple[Cost, str]:
        """Runs ``command`` with the files of ``warm`` in the page cache."""
        for path in warm:
            trees.warm(path)
        cost, output = measure.run(command, synced=synced)
        self.say(f"{what}: {cost.wall_s:.2f} s, CPU {cost.cpu_s:.2f} s, {cost.peak_bytes >> 20} MiB")
        return cost, output


class Tally:
    """Collects the costs and other figures of rows over repetitions; a row that failed once is left out."""

    def __init__(self, bench: Bench, outcome: Outcome) -> None:
        self.bench = bench
        self.outcome = outcome
        self.broken: set[str] = set()
        self._costs: dict[str, list[Cost]] = {}
        self._more: dict[str, list[dict[str, float]]] = {}

    def add(self, row: str, cost: Cost, **more: float) -> None:
        self._costs.setdefault(row, []).append(cost)
        self._more.setdefault(row, []).append(more)
        self.outcome.samples.append({"row": row, **asdict(cost), **more})

    def rounds(self, names: Sequence[str], measured: Callable[[str, int], None]) -> None:
        """Calls ``measured(name, repetition)`` for each wanted name, order alternating, and notes what fails."""
        for number, name in measure.rounds(self.bench.wanted(names), self.bench.repeat):
            if name in self.broken:
                continue
            try:
                measured(name, number)
            except (CommandFailedError, TreeDiffersError) as problem:
                self.fail(name, problem)

    def fail(self, name: str, problem: Exception) -> None:
        self.broken.add(name)
        self.outcome.failures.append(f"{name}: {problem}")
        self.bench.say(f"{name} FAILED: {problem}")

    def finish(self, order: Sequence[str]) -> None:
        """Puts the medians of the rows that never failed into the outcome, in ``order``."""
        for row in order:
            if row in self._costs and row not in self.broken and row.split(":")[0] not in self.broken:
                self.outcome.rows[row] = {
                    **cost_columns(measure.median(self._costs[row])),
                    **_medians(self._more[row]),
                }


def _medians(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the repetitions that have it."""
    names = dict.fromkeys(name for row in figures for name in row)
    return {name: statistics.median(row[name] for row in figures if name in row) for name in names}


def cost_columns(cost: Cost) -> dict[str, float]:
    return {"wall": cost.wall_s, "sync": cost.sync_s, "CPU": cost.cpu_s, "peak": cost.peak_bytes / (1 << 20)}

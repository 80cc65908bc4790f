"""Results: rows of figures, targets, and how they are shown and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

MIB = 1 << 20
UNITS = {
    "s": "{:.2f}",
    "ms": "{:.1f}",
    "MB": "{:.1f}",
    "MiB": "{:.0f}",
    "": "{:,.0f}",
    "GB/CPU-s": "{:.2f}",
    "x": "{:.3f}",
    "%": "{:.2f}",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of ours held against a limit. ``limit`` bounds ours/reference, or ours itself without a reference."""

    figure: str
    unit: str
    ours: float | None
    reference: float | None
    of: str
    limit: float
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """What the limit bounds."""
        if self.ours is None or not self.of:
            return self.ours
        return self.ours / self.reference if self.reference else None

    @property
    def reached(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


@dataclass(slots=True)
class Outcome:
    """One group of figures: ``rows`` of (what, {column: value}); the unit of each column in ``columns``."""

    title: str
    columns: Mapping[str, str]
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    samples: list[dict[str, object]] = field(default_factory=list)

    def best(self, column: str, names: Sequence[str]) -> tuple[float | None, str]:
        """The least value of ``column`` among the rows ``names``, and whose it is."""
        found = [(row[column], name) for name in names if column in (row := self.rows.get(name, {}))]
        return min(found) if found else (None, "no peer measured")

    def value(self, row: str, column: str) -> float | None:
        return self.rows.get(row, {}).get(column)

    def aim(self, figure: str, column: str, *, ours: str, peers: Sequence[str], limit: float) -> None:
        """Adds the target: ``column`` of row ``ours`` at most ``limit`` of the best of ``peers``."""
        reference, of = self.best(column, peers)
        unit = self.columns[column]
        self.targets.append(Target(figure, unit, self.value(ours, column), reference, of, limit))


def table(outcome: Outcome) -> str:
    heads = [f"{name} {unit}".strip() for name, unit in outcome.columns.items()]
    lines = [["", *heads]]
    for label, row in outcome.rows.items():
        cells = [_number(row.get(name), unit) for name, unit in outcome.columns.items()]
        lines.append([label, *cells])
    return _aligned(lines) if outcome.rows else "nothing measured"


def verdicts(targets: Sequence[Target]) -> str:
    lines = [["figure", "ours", "reference", "whose", "ratio", "target", ""]]
    words = {True: "reached", False: "MISSED", None: "not measured"}
    for target in targets:
        sign = ">=" if target.at_least else "<="
        limit = f"{sign} {target.limit:g}" + ("" if target.of else f" {target.unit}")
        unit = "" if target.ours is None else f" {target.unit}"
        ratio = _number(target.ratio, "x") if target.of else ""
        reference = _number(target.reference, target.unit) if target.of else ""
        ours = _number(target.ours, target.unit) + unit
        lines.append([target.figure, ours, reference, target.of, ratio, limit, words[target.reached]])
    return _aligned(lines)


def show(outcome: Outcome) -> str:
    parts = [f"== {outcome.title}", table(outcome)]
    if outcome.targets:
        parts.append(verdicts(outcome.targets))
    parts += [f"note: {note}" for note in outcome.notes]
    parts += [f"FAILED: {failure}" for failure in outcome.failures]
    return "\n\n".join(parts[:3]) + ("\n" + "\n".join(parts[3:]) if parts[3:] else "") + "\n"


def write_json(path: Path, environment: Mapping[str, object], outcomes: Mapping[str, Outcome]) -> None:
    """Writes everything measured so far, whole or not at all."""
    groups = {}
    for name, outcome in outcomes.items():
        targets = [{**asdict(each), "ratio": each.ratio, "reached": each.reached} for each in outcome.targets]
        groups[name] = {**asdict(outcome), "targets": targets}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps({"environment": environment, "groups": groups}, indent=1) + "\n")
    partial.replace(path)


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else UNITS[unit].format(value)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    text = []
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)

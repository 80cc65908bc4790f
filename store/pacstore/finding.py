"""Findings: what an examination of a machine, an install root or a source has found, step by step."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pacstore.errors import PacballError


class Level(enum.StrEnum):
    """`OK`: as it should be. `WARN`: works, but not well, or not for long. `FAIL`: must be mended. `SKIP`: not examined."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """One step of an examination: a sentence, what to do where it is not good, and the same as plain `values` for programs."""

    step: str
    level: Level
    message: str
    hint: str = ""
    values: Mapping[str, object] = field(default_factory=dict)


def failed(step: str, error: PacballError, **values: object) -> Finding:
    """The finding that `step` ended with `error`."""
    text = f"{error.place}: {error.message}" if error.place else error.message
    return Finding(step, Level.FAIL, text, error.hint, values)

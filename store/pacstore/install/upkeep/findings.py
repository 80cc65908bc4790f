"""Findings: what a verification finds, each a fault of one entry of a release or of its record."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

NO_ENTRY = -1


class Fault(enum.StrEnum):
    """What can be wrong. EXTRA and LINK are warnings: every path still has what was signed."""

    DAMAGED = "damaged"
    MISSING = "missing"
    EXTRA = "extra"
    MODE = "mode"
    OWNER = "owner"
    TARGET = "target"
    KIND = "kind"
    LINK = "link"
    RECORD = "record"

    @property
    def is_warning(self) -> bool:
        return self in (Fault.EXTRA, Fault.LINK)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong: the path below the release's top (safe to print), what, and details for people.

    The path of RECORD is that of a file which pacball keeps. `entry`: the entry's number in the tree, if it has one.
    `inode`: device and number of a file that is there, but is not as it was. `generated`: the release's own commands made it.
    """

    path: str
    fault: Fault
    detail: str
    entry: int = field(default=NO_ENTRY, compare=False)
    inode: tuple[int, int] | None = field(default=None, compare=False)
    generated: bool = field(default=False, compare=False)

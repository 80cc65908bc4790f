"""What a collection did, what it would do, and why the rest stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacstore.readback import Damage

if TYPE_CHECKING:
    from collections.abc import Collection

    from pacstore.sweep.references import References

_LISTED = 20
"""So many reasons are told one by one."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Files, and their bytes."""

    files: int = 0
    bytes: int = 0

    def plus(self, size: int) -> Amount:
        """One more file of `size` bytes."""
        return Amount(self.files + 1, self.bytes + size)


@dataclass
class SweepReport:
    """What a collection did, and why the rest stays.

    `releases` are kept, `dropped` are in the catalog and kept no longer. `deleted` went (or would, in a trial); `waiting` is
    unused and in its grace, the first of it until `next_at`; `condemned` waits for `leases` others at work, who may have found it
    before. `pins` hold. `unjudged`: why nothing is said of packs; `failed`: what could not be deleted.
    """

    releases: int = 0
    dropped: int = 0
    packs: int = 0
    pins: int = 0
    leases: int = 0
    deleted: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    condemned: Amount = field(default_factory=Amount)
    next_at: float | None = None
    unjudged: list[Damage] = field(default_factory=list)
    unjudged_releases: int = 0
    failed: list[Damage] = field(default_factory=list)
    busy: str = ""

    def tell(self, references: References, pinned: Collection[str]) -> None:
        """Say what is referred to, and why packs cannot be judged."""
        self.releases, self.dropped = references.releases, len(references.dropped)
        self.packs, self.pins = len(references.packs), len(pinned)
        self.unjudged_releases = len(references.unreadable)
        first = list(references.unreadable.items())[:_LISTED]
        self.unjudged = [Damage(error.place or name, error.message) for name, error in first]

    def wait(self, size: int, *, until: float) -> None:
        """Say that a file is in its grace."""
        self.waiting = self.waiting.plus(size)
        self.next_at = until if self.next_at is None else min(self.next_at, until)

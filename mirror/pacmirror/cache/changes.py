"""Changes: what happened to packs since it was last written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacstore.digest import Digest


@dataclass
class Changes:
    """Packs that became public; those of which something more is here, with their whole length; when packs were sent last."""

    completed: set[Digest] = field(default_factory=set)
    begun: dict[Digest, int] = field(default_factory=dict)
    used: dict[Digest, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.completed or self.begun or self.used)

    def take(self) -> Changes:
        """All of it, which is forgotten here."""
        taken = Changes(self.completed, self.begun, self.used)
        self.completed, self.begun, self.used = set(), {}, {}
        return taken

    def put_back(self, taken: Changes) -> None:
        """It could not be written: what came later counts more."""
        self.completed |= taken.completed
        self.begun = {**taken.begun, **self.begun}
        self.used = {**taken.used, **self.used}

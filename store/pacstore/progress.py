"""Progress: how long work tells its caller what it does. The core never prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told from any thread; must return quickly."""

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """A phase begins (`reading`, `downloading`, ...); `total_bytes` is None when it is not known yet."""

    def advance(self, count_bytes: int) -> None:
        """`count_bytes` more of the present phase are done."""

    def warn(self, message: str) -> None:
        """Something that the user should know but that does not stop the work."""


class Silent:
    """Progress that nobody looks at."""

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """Ignored."""

    def advance(self, count_bytes: int) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Ignored."""

"""Timeline: what the history of an install root says of the releases that are installed, and which were current in turn.

Clocks are set back and forth. So no event counts as earlier than one that stands before it, and nothing that depends on how long
ago something was comes too early where a clock was set back, or was wrong for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.install.root.history import SWITCHES, Event, EventKind
from pacstore.release import Release

_TURNS = 1_000
"""How many releases that were current in turn are remembered of a project and platform."""


@dataclass(slots=True)
class Past:
    """What is known of an installed release. Times in seconds since 1970, None where the history does not tell.

    `installed`: when it was; `current_since`: when it last became current; `replaced`: when another last took its place.
    `owner`: user and group id that its files were given; a group of None was not chosen.
    """

    installed: float | None = None
    current_since: float | None = None
    replaced: float | None = None
    source: str = ""
    owner: tuple[int, int | None] | None = None
    tree: Digest | None = None
    manifest: Digest | None = None
    attributes: Digest | None = None

    @property
    def latest(self) -> float | None:
        """The latest time at which it is known to have been installed, current, or just replaced."""
        return max((t for t in (self.installed, self.current_since, self.replaced) if t is not None), default=None)


@dataclass
class Timeline:
    """The history, digested. `pasts`: by the name of a release; one that was removed since is not among them."""

    pasts: dict[str, Past] = field(default_factory=dict)
    _turns: dict[tuple[str, str], deque[str]] = field(default_factory=dict)
    _now: float = float("-inf")

    @classmethod
    def of(cls, events: Iterable[Event]) -> Timeline:
        """The timeline of `events`, the oldest first."""
        timeline = cls()
        for event in events:
            timeline._take(event)
        return timeline

    def past(self, release: Release) -> Past:
        """What is known of `release`."""
        return self.pasts.get(str(release), Past())

    def before(self, line: Release, current: str) -> list[str]:
        """The releases of the project and platform of `line` that were current before `current`, the latest first.

        Where there was a roll back, what had been current after its target is not among them.
        """
        turns = list(self._turns.get((line.project, line.platform), ()))
        if current in turns:
            turns = turns[: turns.index(current)]
        return turns[::-1]

    def _take(self, event: Event) -> None:
        self._now = max(self._now, event.time)
        name = str(event.release)
        if event.kind is EventKind.REMOVE:
            self.pasts.pop(name, None)
            turns = self._turns.get((event.release.project, event.release.platform))
            if turns is not None and name in turns:
                turns.remove(name)
        elif event.kind is EventKind.INSTALL:
            self.pasts[name] = _installed(event, self._now)
        elif event.kind in SWITCHES:
            past = self.pasts.setdefault(name, Past())
            past.current_since = self._now
            past.source = past.source or event.text("source")
            if event.previous:
                # Also one of which nothing else is known: jobs may still run from it.
                self.pasts.setdefault(event.previous, Past()).replaced = self._now
            self._turn(event)

    def _turn(self, event: Event) -> None:
        line = event.release.project, event.release.platform
        turns = self._turns.setdefault(line, deque(maxlen=_TURNS))
        name = str(event.release)
        if event.kind is EventKind.ROLLBACK and name in turns:
            while turns[-1] != name:
                turns.pop()
            return
        if event.previous and event.previous not in turns:
            turns.append(event.previous)
        if name in turns:
            turns.remove(name)
        turns.append(name)


def _installed(event: Event, time: float) -> Past:
    return Past(
        installed=time,
        source=event.text("source"),
        owner=_owner(event.values.get("owner")),
        tree=_digest(event.text("tree_digest")),
        manifest=_digest(event.text("manifest_digest")),
        attributes=_digest(event.text("attributes_digest")),
    )


def _owner(value: object) -> tuple[int, int | None] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    user, group = value
    if type(user) is not int or not (group is None or type(group) is int):
        return None
    return user, group


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except PacballError:
        return None

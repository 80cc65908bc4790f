"""The oracle: it stands outside of the daemon, knows every byte that is right, and remembers what was acknowledged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.fault.matrix.clients import Answer
from tests.fault.matrix.origin import Origin

ERRORS = frozenset((502, 503, 504))
"""How a mirror says that it cannot now: never 404 for what there is, and never 500, which is a fault of its own."""


class Oracle:
    """What a mirror of `origin` must serve. A wrong answer fails the test at once, where it came."""

    def __init__(self, origin: Origin, files: list[str]) -> None:
        self._origin = origin
        self.expected = {path: origin.content(path) for path in files}
        self.excuse: Callable[[str, int, bytes], bool] = lambda _path, _offset, _body: False
        """Whether who verifies, as all installers do, would have found these bytes wrong: (path, offset, body)."""
        self.counts: Counter[str] = Counter()
        self.complete: set[str] = set()
        """Releases of which the mirror said that it holds them."""
        self.public: set[str] = set()
        """Packs that were public there."""

    def judge(self, answer: Answer) -> bool:
        """Whether it is the right one; if it is no answer at all, or an honest error, that is told."""
        asked, status = answer.asked, answer.status
        if answer.body is None:
            self.counts["broken off"] += 1
            assert not answer.error.startswith("TimeoutError"), f"a client hung: {answer}"
            return False
        if status not in (200, 206):
            assert status in ERRORS, (asked, status, answer.body[:500])
            self.counts[str(status)] += 1
            return False
        data = self.expected[asked.path]
        assert (status == 206) == (asked.first is not None), (asked, status)
        right = data if asked.first is None else data[asked.first : asked.last + 1]
        if answer.body != right:
            offset = asked.first or 0
            assert len(answer.body) == len(right), (asked, len(answer.body))
            assert self.excuse(asked.path, offset, answer.body), (
                f"WRONG BYTES as success: {asked} {_differ(answer.body, right)}"
            )
            self.counts["refused by who verifies"] += 1
            return False
        self.counts["right"] += 1
        return True

    def learn(self) -> None:
        """There may be more files at the origin by now."""
        for name in self._origin.published:
            for path in self._origin.needs(name):
                self.expected.setdefault(path, self._origin.content(path))

    def note(self, store: Path) -> None:
        """Remember what is acknowledged on the disk: holdings are written last, and packs are public when they are whole."""
        self.complete.update(_names(store / "public/holdings"))
        self.public.update(public_packs(store))

    def check_disk(self, store: Path) -> None:
        """All that was acknowledged is there, and whole."""
        assert self.complete <= set(_names(store / "public/holdings")), "holdings have gone"
        present = public_packs(store)
        assert self.public <= present, f"packs have gone: {self.public - present}"
        for path in present:
            assert (store / "public" / path).read_bytes() == self.expected[path], f"{path} is public and wrong"


def public_packs(store: Path) -> set[str]:
    """The paths of the packs that any web server would serve."""
    return {str(path.relative_to(store / "public")) for path in (store / "public/packs").glob("*/*")}


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _differ(body: bytes, right: bytes) -> str:
    wrong = [at for at, (one, other) in enumerate(zip(body, right, strict=True)) if one != other]
    return f"{len(wrong)} bytes, from {wrong[0]} to {wrong[-1]}"

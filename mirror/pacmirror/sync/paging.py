"""Pages: the releases of a mirror, as many at once as one answer may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.sync.standing import describe
from pacstore.errors import Refused, printable
from pacstore.ledger.releases import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.ledger.releases import ReleaseRow
    from pacstore.release import Release

_NAMES = frozenset(("after", "limit", "state"))
_USUAL = 100
_AFTER_BYTES = 200


@dataclass(frozen=True)
class Page:
    """What was asked for: the first `limit` releases by name after the name `after`; only those in `state`, if one is given."""

    after: str
    limit: int
    state: ReleaseState | None

    @classmethod
    def parse(cls, query: Mapping[str, str], *, most: int) -> Page:
        """The page that the parameters of a URL ask for, at most `most` releases. Raises Refused."""
        unknown = sorted(query.keys() - _NAMES)
        if unknown:
            raise _refused(f"the parameter '{unknown[0][:100]}' is not known")
        limit, state = query.get("limit", str(min(_USUAL, most))), query.get("state")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= most):
            raise _refused(f"limit is a number from 1 to {most}")
        if state is not None and state not in set(ReleaseState):
            raise _refused(f"state is one of {', '.join(ReleaseState)}")
        after = query.get("after", "")
        if len(after) > _AFTER_BYTES:
            raise _refused(f"after has at most {_AFTER_BYTES} characters")
        return cls(after, int(limit), ReleaseState(state) if state is not None else None)

    def document(self, rows: Sequence[ReleaseRow], held_bytes: Callable[[Release], int | None]) -> dict[str, object]:
        """The answer: `next` is what the next page is after, null at the end. `held_bytes`: of those that are on their way."""
        found = []
        for row in rows:
            now = held_bytes(row.release)
            found.append({**describe(row), **({} if now is None else {"bytes_held": now})})
        return {"releases": found, "next": str(rows[-1].release) if len(rows) == self.limit else None}


def _refused(message: str) -> Refused:
    return Refused(printable(message), place="/v1/releases", hint="see /openapi.json")

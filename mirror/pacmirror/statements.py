"""Statements: what upstreams say of holding a release that is not here whole. It is passed on, and never written to our disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from pacmirror.flights import Flights, remember
from pacmirror.verdict import NotReached
from pacstore.errors import Corrupt, NotFound, PacballError
from pacstore.holding import holdings_of
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS
from pacstore.release import Release
from pacstore.source import blame
from pacstore.storage import DocumentKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pacmirror.limits import DocumentLimits
    from pacstore.source import Source
    from pacstore.trust.targets import CatalogRelease

PREFIX = f"{DocumentKind.HOLDINGS.value}/"
_ATTEMPTS = 2


class Statements:
    """What `source` says, compared with the `releases` of the catalog; `refresh` looks whether there is a newer one."""

    def __init__(
        self,
        source: Source,
        releases: Callable[[], Mapping[Release, CatalogRelease]],
        refresh: Callable[[], Awaitable[None]],
        limits: DocumentLimits,
    ) -> None:
        self.flights: Flights[bytes] = Flights(limits)
        self._source = source
        self._releases = releases
        self._refresh = refresh
        self._limits = limits
        self._said: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, path: str) -> bytes:
        """The statement at the public `path`. Raises NotFound if there is none, NotReached if it is another one, Corrupt."""
        release = Release.parse(path.removeprefix(PREFIX))
        for attempt in range(_ATTEMPTS):
            entry = self._releases().get(release)
            if entry is None:
                raise NotFound("is not here, and the catalog does not name it", place=path, hint="ask another source")
            if entry.withdrawal is not None:
                raise NotFound("was withdrawn, and is not here", place=path, hint="install another release")
            wanted = holdings_of(entry)
            found = Holdings.parse(await self._ask(path), place=path)
            if found == wanted:
                return wanted.encode()
            if attempt == 0 and found.placement_number > wanted.placement_number:
                await self._refresh()
        message = f"an upstream has it with placement {found.placement_number}, and the catalog names another one"
        raise NotReached(message, place=path, hint="try again later, or another source")

    async def _ask(self, path: str) -> bytes:
        now = asyncio.get_running_loop().time()
        said = self._said.get(path)
        if said is not None and now < said[0]:
            return said[1]
        data = await self.flights.share(path, lambda: self.flights.work(path, lambda: _read(self._source, path)))
        remember(self._said, path, (now + self._limits.holdings_seconds, data), self._limits.remembered)
        return data


def _read(source: Source, path: str) -> bytes:
    """What a source says. One that says nonsense is blamed for it, and another one asked."""
    for _ in range(_ATTEMPTS):
        data = source.read(path, limit=LIMITS.holdings_bytes)
        try:
            Holdings.parse(data, place=path)
        except PacballError as error:
            giver = blame(source, path, Corrupt(error.message, place=path))
            fault = Corrupt(error.message, place=f"{giver}: {path}")
        else:
            return data
    raise fault

"""Catalogs: the verified catalog of one of several sources, the first that has a good one.

A catalog comes from one source as a whole, never from several. One that is fresh goes before one that has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from paccli.output import Output
from pacmirror.verdict import all_failed
from pacstore.errors import NotFound, PacballError, Unavailable
from pacstore.source import Source
from pacstore.trust.client import VerifiedCatalog

T = TypeVar("T")
Warn = Callable[[str], None]
OpenCatalog = Callable[[Source, Warn], VerifiedCatalog]
"""Fetches and verifies the catalog of a source, which it tells the user about by `Warn`."""


class Warnings:
    """Tells each thing once; what belongs to a catalog only when that is used."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: set[str] = set()

    def tell(self, message: str) -> None:
        """Tell it, unless it was told."""
        if message not in self._told:
            self._told.add(message)
            self._output.warn(message)

    def later(self) -> Later:
        """Somewhere to keep warnings until it is clear whether they concern anybody."""
        return Later(self)


class Later:
    """Warnings of one catalog: kept, and told from `now` on."""

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._kept: list[str] | None = []

    def warn(self, message: str) -> None:
        """Keep it, or tell it."""
        if self._kept is None:
            self._warnings.tell(message)
        else:
            self._kept.append(message)

    def now(self) -> None:
        """The catalog is used: tell what was kept, and from now on at once."""
        kept, self._kept = self._kept or [], None
        for message in kept:
            self._warnings.tell(message)


class Catalogs:
    """The catalogs of `sources`, which gives those in the order in which they are to be asked."""

    def __init__(self, sources: Callable[[], Sequence[Source]], open_catalog: OpenCatalog, output: Output) -> None:
        self._sources = sources
        self._open = open_catalog
        self._warnings = Warnings(output)

    def first(
        self, need: Callable[[VerifiedCatalog], T], *, but: Collection[str] = ()
    ) -> tuple[str, VerifiedCatalog, T]:
        """The first catalog of which `need` can be had: the name of its source, the catalog and what was needed.

        An expired one only if no other has it. Sources named in `but` are not asked. Raises what all of them together raise.
        """
        errors: dict[str, PacballError] = {}
        stale: tuple[str, VerifiedCatalog, T, Later] | None = None
        sources = [source for source in self._sources() if source.name not in but]
        for source in sources:
            later = self._warnings.later()
            try:
                catalog = self._open(source, later.warn)
                value = need(catalog)
            except PacballError as error:
                errors[source.name] = error
                continue
            if catalog.stale and len(sources) > 1:
                stale = stale or (source.name, catalog, value, later)
                continue
            self._say(errors, stale[0] if stale else "", source.name)
            later.now()
            return source.name, catalog, value
        if stale is None:
            raise _none(errors)
        self._say(errors, "", stale[0])
        stale[3].now()
        return stale[:3]

    def source(self, name: str) -> Source:
        """The source of that name, by itself."""
        return next(source for source in self._sources() if source.name == name)

    def best(self, need: Callable[[VerifiedCatalog], T], rank: Callable[[T], int]) -> T:
        """Of what all of the catalogs have that can be had now, that of the highest rank. Raises as `first` does."""
        found: list[T] = []
        errors: dict[str, PacballError] = {}
        for source in self._sources():
            later = self._warnings.later()
            try:
                found.append(need(self._open(source, later.warn)))
            except PacballError as error:
                errors[source.name] = error
            else:
                later.now()
        if not found:
            raise _none(errors)
        return max(found, key=rank)

    def _say(self, errors: dict[str, PacballError], stale: str, used: str) -> None:
        """Why others were passed over; of those that cannot be reached, the end of the command says enough."""
        for name, error in errors.items():
            if not isinstance(error, Unavailable):
                self._warnings.tell(f"the catalog of {used} is used, since that of {name} is not good: {error.message}")
        if stale:
            self._warnings.tell(f"the catalog of {used} is used, since that of {stale} has expired")


def _none(errors: dict[str, PacballError]) -> PacballError:
    causes = list(errors.values())
    if all(isinstance(cause, NotFound) for cause in causes):
        return causes[0]  # it says what there is instead
    return all_failed("the catalog", errors)

"""Patterns of paths: what a release declares as generated (docs/actions.md).

A pattern is a path from the top of the release. In each component `*` stands for any characters, also none, and `?` for one;
no wildcard stands for '/'. The component `**` stands for any number of components, also none; at the end for one or more,
that is for everything below. All else stands for itself.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

from pacstore.errors import Refused, printable

States = frozenset[tuple[int, int]]
"""How far a path has come: pairs of a pattern's number and of how many of its components were met."""

MANY = "**"
_PATTERNS = 256
_COMPONENTS = 32
_BYTES = 1_024
_RESERVED = frozenset("[]{}\\")
_WILDCARDS = frozenset("*?")


class Patterns:
    """Some patterns; a path is met by them if it is met by any. `texts`: as they were written."""

    def __init__(self, texts: Sequence[str], *, place: str) -> None:
        """Raises Refused for what is no pattern, naming `place`."""
        if len(texts) > _PATTERNS:
            raise Refused(f"has more than {_PATTERNS} patterns", place=place)
        self.texts = tuple(texts)
        self._components = [_parse(text, place) for text in texts]
        self._expressions = [[_expression(one) for one in components] for components in self._components]
        self._lengths = [len(components) for components in self._components]

    def start(self) -> States:
        """The top of the release."""
        return self._closure((number, 0) for number in range(len(self._lengths)))

    def step(self, states: States, name: str) -> States:
        """Where the entry `name` of the directory `states` is."""
        return self._closure(self._after(states, name))

    def _after(self, states: States, name: str) -> Iterator[tuple[int, int]]:
        for number, at in states:
            if at == self._lengths[number]:
                continue
            expression = self._expressions[number][at]
            if expression is None:
                yield number, at
                if at + 1 == self._lengths[number]:
                    yield number, at + 1
            elif expression.match(name):
                yield number, at + 1

    def _closure(self, states: Iterator[tuple[int, int]]) -> States:
        found = set()
        for number, first in states:
            at = first
            found.add((number, at))
            while at + 1 < self._lengths[number] and self._expressions[number][at] is None:
                at += 1
                found.add((number, at))
        return frozenset(found)

    def of(self, path: str) -> States:
        """Where `path` is; the empty path is the top."""
        states = self.start()
        for name in path.split("/") if path else ():
            states = self.step(states, name)
        return states

    def met(self, states: States) -> bool:
        """Whether the path that is at `states` is met by a pattern."""
        return any(at == self._lengths[number] for number, at in states)

    def leads(self, states: States) -> bool:
        """Whether a path below the one at `states` can be met by a pattern."""
        return any(at < self._lengths[number] for number, at in states)

    def holds(self, states: States) -> bool:
        """Whether an entry directly in the directory at `states` can be met by a pattern."""
        return any(at + 1 == self._lengths[number] for number, at in states)

    def free(self, states: States) -> bool:
        """Whether directories of names that nobody knows yet may lead from the directory at `states` to what is met."""
        return any(
            at + 1 < self._lengths[number] and bool(_WILDCARDS & set(self._components[number][at]))
            for number, at in states
            if at < self._lengths[number] and self._components[number][at] != MANY
        )

    def needed(self, states: States) -> dict[str, States]:
        """The directories that must be in the one at `states` for something below them to be met, by name.

        Their states are what is special to them: that `**` may also stand for more is left out, so each leads nearer to an end.
        """
        found: dict[str, set[tuple[int, int]]] = {}
        for number, at in states:
            if at + 1 < self._lengths[number] and not _WILDCARDS & set(self._components[number][at]):
                found.setdefault(self._components[number][at], set()).add((number, at + 1))
        return {name: self._closure(iter(sorted(after))) for name, after in found.items()}

    def matches(self, path: str) -> bool:
        """Whether `path` is met by a pattern."""
        return self.met(self.of(path))


def _parse(text: str, place: str) -> list[str]:
    fault = _fault(text)
    if fault:
        raise Refused(f"the pattern '{printable(text[:200])}' {fault}", place=place)
    return text.split("/")


def _fault(text: str) -> str:
    components = text.split("/")
    if not text or len(text.encode("utf-8", "surrogatepass")) > _BYTES or len(components) > _COMPONENTS:
        return f"does not have 1 to {_BYTES} bytes and at most {_COMPONENTS} components"
    if not text.isprintable():
        return "has control characters"
    if text.startswith("/"):
        return "is absolute; patterns begin at the top of the release"
    if not all(components):
        return "has an empty component; for everything below a directory write DIRECTORY/**"
    if {".", ".."} & set(components):
        return "has a component '.' or '..'"
    if _RESERVED & set(text):
        return "has one of the characters []{}\\, which are reserved; '?' stands for any one character"
    if any(MANY in one and one != MANY for one in components):
        return "has '**' in a component with other characters"
    if set(text) <= _WILDCARDS | {"/"}:
        return "has nothing but wildcards; everything cannot be generated"
    return ""


def _expression(component: str) -> re.Pattern[str] | None:
    """What matches a name; None for '**'. fnmatch's expressions need no time that grows faster than the names."""
    return None if component == MANY else re.compile(fnmatch.translate(component))

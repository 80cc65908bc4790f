"""What a release declares in the file `pacball.toml` in its top directory (docs/actions.md): commands that installers may run,
and the paths that these commands generate. The file is part of the tree, hence signed with it.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacstore.document import starts
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NewerFormat, Refused, TooLarge, printable
from pacstore.globs import Patterns
from pacstore.limits import KIB
from pacstore.tree import EntryKind, Tree

FILE = "pacball.toml"
FORMAT = 1
FILE_BYTES = 64 * KIB
DEFAULT_SECONDS = 600
MOST_SECONDS = 12 * 3600
PLACEHOLDERS = ("prefix", "staging", "release")
_COMMANDS = 32
_WORDS = 256
_WORD_CHARACTERS = 8 * KIB
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_TIME = re.compile(r"([1-9][0-9]{0,5})([smh])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_BRACE = re.compile(r"\{\{|\}\}|\{([a-z]*)\}|[{}]")
_KEYS = ("format", "generated", "after_install", "validate")
_COMMAND_KEYS = ("name", "command", "timeout")
_HINT = "docs/actions.md says what may stand in it"


@dataclass(frozen=True)
class Command:
    """One command: its name, its words (the program first) with placeholders, and how long it may take."""

    name: str
    words: tuple[str, ...]
    timeout_seconds: int

    def argv(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The words with `values` (of all PLACEHOLDERS) in place of the placeholders."""

        def put(found: re.Match[str]) -> str:
            return values[found[1]] if found[1] else found[0][0]

        return tuple(_BRACE.sub(put, word) for word in self.words)

    @property
    def program(self) -> str | None:
        """The program's path in the release; None for one of the system: absolute, or looked up in PATH."""
        first = self.words[0]
        return first if "/" in first and not first.startswith("/") else None


@dataclass(frozen=True)
class Declaration:
    """What a release declares."""

    after_install: tuple[Command, ...]
    validate: tuple[Command, ...]
    generated: Patterns

    @property
    def commands(self) -> tuple[Command, ...]:
        """All of them."""
        return self.after_install + self.validate

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Declaration:
        """The declaration in `data`. Raises Corrupt, TooLarge, NewerFormat or Refused, naming `place` and what in it."""
        if len(data) > FILE_BYTES:
            raise TooLarge(f"has more than {FILE_BYTES} bytes", place=place, hint=_HINT)
        try:
            value = tomllib.loads(str(data, "utf-8"))
        except (ValueError, RecursionError) as error:
            reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
            raise Corrupt(f"is not TOML: {reason}", place=place, hint=_HINT) from error
        _check_keys(value, _KEYS, place)
        _check_format(value, place)
        return cls(
            after_install=_commands(value, "after_install", place),
            validate=_commands(value, "validate", place),
            generated=Patterns(_texts(value, "generated", place), place=f"{place}: generated"),
        )


def declares(tree: Tree) -> bool:
    """Whether the release with this tree has such a file."""
    begins = starts(tree.name_lengths)
    for entry in np.flatnonzero(tree.depths == 0).tolist():
        name = bytes(tree.names[int(begins[entry]) : int(begins[entry + 1])])
        if name == FILE.encode():
            return EntryKind(int(tree.kinds[entry])).is_file
    return False


def check_declared(directory: Path) -> Declaration | None:
    """What the directory that is to be published declares; None where it has no such file.

    Raises Corrupt, TooLarge, NewerFormat or Refused for a declaration that is not valid, Unavailable.
    """
    path = directory / FILE
    data = _read(path)
    if data is None:
        return None
    return check_declaration(data, lambda program, place: _check_program(directory / program, place), place=str(path))


def check_declaration(data: bytes, check_program: Callable[[str, str], None], *, place: str) -> Declaration:
    """What the file in `data` declares. `check_program` is given each program of the release and its place; raises as that does.

    Raises Corrupt, TooLarge, NewerFormat or Refused for a declaration that is not valid.
    """
    found = Declaration.parse(data, place=place)
    for command in found.commands:
        if command.program is not None:
            check_program(command.program, f"{place}: {command.name}: command")
    return found


def _read(path: Path) -> bytes | None:
    with wrapped(path):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise Refused("must be an ordinary file", place=str(path), hint=f"{_HINT}; or give it another name")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(FILE_BYTES + 1)


def _check_program(path: Path, place: str) -> None:
    """The owner's bit decides: it is the one that installers get."""
    try:
        status = os.lstat(path)
    except OSError:
        raise Refused("names a program that the release does not have", place=place, hint=str(path)) from None
    if not stat.S_ISLNK(status.st_mode) and not (stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IXUSR):
        raise Refused("names what is no executable file", place=place, hint=f"chmod +x {path}")


def _check_keys(value: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
    for key in value:
        if key not in known:
            raise Refused(
                f"has the unknown key '{printable(key[:100])}'", place=place, hint=f"known are {', '.join(known)}"
            )


def _check_format(value: Mapping[str, object], place: str) -> None:
    found = value.get("format")
    if type(found) is not int or found < 1:
        raise Refused(f"must say format = {FORMAT}", place=place, hint=_HINT)
    if found != FORMAT:
        message = f"has format {found}; this pacball knows format {FORMAT}"
        raise NewerFormat(message, place=place, hint="install a newer pacball")


def _commands(value: Mapping[str, object], key: str, place: str) -> tuple[Command, ...]:
    tables = value.get(key, [])
    where = f"{place}: {key}"
    if not isinstance(tables, list) or len(tables) > _COMMANDS:
        raise Refused(f"must be at most {_COMMANDS} tables [[{key}]]", place=where, hint=_HINT)
    found = tuple(_command(table, f"{where} {number}") for number, table in enumerate(tables, 1))
    names = [command.name for command in found]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"has two commands of the name {name}", place=where)
    return found


def _command(table: object, place: str) -> Command:
    if not isinstance(table, dict):
        raise Refused("must be a table", place=place, hint=_HINT)
    _check_keys(table, _COMMAND_KEYS, place)
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        message = "needs a name of at most 64 letters, digits and '._-', of which the first is a letter or digit"
        raise Refused(message, place=f"{place}: name")
    words = _texts(table, "command", place)
    if not words or not words[0]:
        message = "must be a list of the program and its arguments, not one text for a shell"
        raise Refused(message, place=f"{place}: command", hint='for example ["bin/relocate", "{prefix}"]')
    _check_words(words, f"{place}: command")
    return Command(name, tuple(words), _seconds(table.get("timeout"), f"{place}: timeout"))


def _check_words(words: list[str], place: str) -> None:
    if len(words) > _WORDS or any(len(word) > _WORD_CHARACTERS or "\0" in word for word in words):
        raise Refused(f"has more than {_WORDS} words, or one that is too long or has a zero character", place=place)
    for word in words:
        for found in _BRACE.finditer(word):
            if found[0] not in ("{{", "}}") and found[1] not in PLACEHOLDERS:
                message = f"has {found[0]!r} in '{printable(word[:100])}', which is no placeholder"
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                raise Refused(message, place=place, hint=f"there are {known}; write {{{{ and }}}} for braces")
    program = words[0]
    if "{" in program or "}" in program or not program.isprintable():
        raise Refused("the program's name has no placeholders, braces or control characters", place=place)
    if "/" in program and not program.startswith("/") and not set(program.split("/")).isdisjoint({"", ".", ".."}):
        raise Refused("names a program by a path with '..', '.' or '//'", place=place, hint="write it from the top")


def _seconds(value: object, place: str) -> int:
    if value is None:
        return DEFAULT_SECONDS
    found = _TIME.match(value) if isinstance(value, str) else None
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(f'must be a text like "90s", "10m" or "2h", of at most {MOST_SECONDS // 3600} hours', place=place)
    return seconds


def _texts(value: Mapping[str, object], key: str, place: str) -> list[str]:
    found = value.get(key, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise Refused("must be a list of texts", place=f"{place}: {key}", hint=_HINT)
    return found

"""Files of settings in TOML, strictly read: every value with its key and its place, so that errors can name both.

What is not known, or of another type, is refused, since a setting that is silently without effect is worse than none. Values of
the environment and of the command line are parsed in the same way: they are texts, and have no directory.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pacstore.amounts import parse_rate
from pacstore.durable import wrapped
from pacstore.errors import NotFound, Refused, printable

_BYTES = 1 << 20
_LISTED = 20
_KINDS: Mapping[type, str] = {list: "a list", dict: "a section"}
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A value as it was found: of which key, in which place, and the directory that relative paths start from.

    No directory is that of a text of the environment or the command line.
    """

    key: str
    value: object
    place: str
    directory: Path | None = None

    def refusal(self, wanted: str) -> Refused:
        """The error that it is not what was `wanted`."""
        return Refused(f"{self.key} must be {wanted}, not {_kind(self.value)}", place=self.place, hint="correct it")

    def items(self) -> list[Found]:
        """The values of a list, or of a text in which commas separate them."""
        value = self.value
        if isinstance(value, str) and self.directory is None:
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list):
            raise self.refusal("a list")
        return [replace(self, key=f"{self.key}[{n}]", value=one) for n, one in enumerate(value)]

    def pairs(self) -> list[tuple[str, Found]]:
        """The keys and values of a section, or of a text such as `KEY=VALUE,KEY=VALUE`."""
        value = self.value
        if isinstance(value, str) and self.directory is None:
            parts = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
            value = {key.strip(): one.strip() for key, equals, one in parts if equals}
            if len(value) != len(parts):
                raise self.refusal("KEY=VALUE, or several with commas between them")
        if not isinstance(value, dict):
            raise self.refusal(f"a section: write [{self.key}] in a line of its own")
        return [(key, replace(self, key=f'{self.key}."{key}"', value=one)) for key, one in value.items()]


Parser = Callable[[Found], T]


@dataclass(frozen=True)
class Key:
    """A setting: how the file spells it, the field that it becomes, how it is parsed, and its environment variables."""

    name: str
    field: str
    parse: Parser[object]
    variables: tuple[str, ...] = ()


def read_toml(path: Path) -> dict[str, object]:
    """The table in the file `path`. Raises NotFound, Unavailable, Refused."""
    with wrapped(path), open(path, "rb") as file:
        data = file.read(_BYTES + 1)
    if len(data) > _BYTES:
        raise Refused(f"has more than {_BYTES} bytes", place=str(path), hint="is this the configuration?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"is not TOML: {error}", place=str(path), hint="correct or remove it") from error


def read_toml_if_there(path: Path) -> dict[str, object] | None:
    """The same; None if there is no such file."""
    try:
        return read_toml(path)
    except NotFound:
        return None


def walk(table: Mapping[str, object], names: Iterable[str], path: Path) -> Iterator[Found]:
    """Every value of a file, under its name of `names`; a name may itself be of a section. Raises Refused for other keys."""
    known = list(names)
    yield from _walk(table, "", known, path)


def _walk(table: Mapping[str, object], prefix: str, known: list[str], path: Path) -> Iterator[Found]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        found = Found(name, value, str(path), path.parent)
        if name in known:
            yield found
        elif not any(one.startswith(f"{name}.") for one in known):
            raise unknown(name, known, place=str(path))
        elif not isinstance(value, dict):
            raise found.refusal(f"a section: write [{name}] in a line of its own")
        else:
            yield from _walk(value, f"{name}.", known, path)


def unknown(name: str, known: Iterable[str], *, place: str) -> Refused:
    """The error that `name` is no setting, with the one that may have been meant."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    if len(names) > _LISTED:
        section = (near[0] if near else name).rpartition(".")[0]
        names = [one for one in names if one.rpartition(".")[0] == section] or names
    return Refused(
        f"{printable(name[:100])} is not a setting", place=place, hint=f"{meant}known are {', '.join(names)}"
    )


def text(found: Found) -> str:
    """A text in one line."""
    if not isinstance(found.value, str) or not found.value or not found.value.isprintable():
        raise found.refusal("a text, not empty, in one line")
    return found.value


def path_text(found: Found) -> str:
    """A path; a relative one starts from the directory of the file, a `~` from a user's home."""
    given = text(found)
    if found.directory is None:
        return given
    try:
        return str(found.directory / Path(given).expanduser())
    except RuntimeError as error:
        raise found.refusal("a path; it begins with '~' and a user that there is not") from error


def proxy(found: Found) -> str | None:
    """A proxy. An empty variable means: none, whatever the files say."""
    return None if found.value == "" and found.directory is None else text(found)


def rate(found: Found) -> int:
    """Bytes a second, such as "20M"."""
    return parse_rate(text(found), place=f"{found.place}: {found.key}")


def whole_number(least: int, most: int) -> Parser[int]:
    """A parser for whole numbers from `least` to `most`."""

    def parse(found: Found) -> int:
        value = _number(found, int)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise found.refusal(f"a whole number from {least} to {most}")
        return value

    return parse


def number(least: float, most: float, *, of: str = "") -> Parser[float]:
    """A parser for numbers from `least` to `most`, of the unit `of`."""

    def parse(found: Found) -> float:
        value = _number(found, float)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise found.refusal(f"a number {f'of {of} ' if of else ''}from {least:g} to {most:g}")
        return float(value)

    return parse


def one_of(*values: str) -> Parser[str]:
    """A parser for one of a few words."""

    def parse(found: Found) -> str:
        if found.value not in values:
            raise found.refusal(f"one of {', '.join(values)}")
        return str(found.value)

    return parse


def truth(found: Found) -> bool:
    """True or false."""
    value = {"true": True, "false": False}.get(str(found.value)) if found.directory is None else found.value
    if not isinstance(value, bool):
        raise found.refusal("true or false")
    return value


def _number(found: Found, kind: type[int | float]) -> object:
    if found.directory is None and isinstance(found.value, str) and found.value.isascii():
        try:
            return kind(found.value)
        except ValueError:
            pass
    return found.value


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{printable(str(without_password(value))[:100])}'"
    if isinstance(value, int | float):
        return printable(str(value)[:100])
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def without_password(value: object) -> object:
    """`value`, with the password left out that a URL has, of a proxy or, by mistake, of a source."""
    if isinstance(value, tuple):
        return tuple(map(without_password, value))
    if not isinstance(value, str) or (value.startswith(("/", "~", ".")) and "://" not in value):
        return value
    scheme, separator, rest = ("", "", value) if "://" not in value else value.partition("://")
    before, at, host = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    if not at or ("/" in before and not colon):
        return value
    return f"{scheme}{separator}{user + colon if colon else ''}***@{host}"

"""Settings: what config.toml, the environment and the command line say together, and where each value comes from.

The command line goes before the environment, that before the user's config.toml, and that before the system's: for each key
alone. Files are parsed strictly: what is not known, or of another type, is refused, since a setting that is silently without
effect is worse than none. docs/installing.md describes the keys.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from paccli.places import config_dir, system_config_dir
from paccli.rates import parse_rate
from pacstore.durable import wrapped
from pacstore.errors import NotFound, Refused, printable

CONFIG_FILE = "config.toml"
SHARES = ("none", "reflink", "hardlink")
"""The values of `share` (pacstore.install.options.Share)."""
_BYTES = 1 << 20
_DEFAULT = "default"


@dataclass(frozen=True)
class Settings:
    """What is set; empty or None for what is not. Paths are absolute, except those of the environment and command line.

    `origins`: for each key that is set, as it is written in config.toml, where it was: a file or `$VARIABLE`.
    `tokens`: the file of the token for each base URL. Seconds and bytes, as the names say.
    """

    sources: tuple[str, ...] = ()
    root: str | None = None
    root_keys: str | None = None
    ca_file: str | None = None
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str | None = None
    rate_bytes_per_second: int | None = None
    attempts: int | None = None
    connect_seconds: float | None = None
    stall_seconds: float | None = None
    seeds: tuple[str, ...] = ()
    share: str | None = None
    owner: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where the value of `key` comes from."""
        return self.origins.get(key, _DEFAULT)


@dataclass(frozen=True)
class Found:
    """A value as it was found: of which key, in which place, and the directory that relative paths start from."""

    key: str
    value: object
    place: str
    directory: Path | None = None

    def refusal(self, wanted: str) -> Refused:
        """The error that it is not what was `wanted`."""
        return Refused(f"{self.key} must be {wanted}, not {_kind(self.value)}", place=self.place, hint="correct it")


Parser = Callable[[Found], object]


def _text(found: Found) -> str:
    if not isinstance(found.value, str) or not found.value or not found.value.isprintable():
        raise found.refusal("a text, not empty, in one line")
    return found.value


def _proxy(found: Found) -> str | None:
    """An empty variable means: none, whatever the files say."""
    return None if found.value == "" and found.directory is None else _text(found)


def _path(found: Found) -> str:
    text = _text(found)
    if found.directory is None:
        return text
    try:
        return str(found.directory / Path(text).expanduser())
    except RuntimeError as error:
        raise found.refusal("a path; it begins with '~' and a user that there is not") from error


def _source(found: Found) -> str:
    text = _text(found)
    return text if "://" in text else _path(found)


def _sources(found: Found) -> tuple[str, ...]:
    value = found.value
    if isinstance(value, str) and found.directory is None:
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list) or not value:
        raise found.refusal('a list of URLs and directories, such as ["https://mirror.example.org/pacball"]')
    return tuple(_source(replace(found, key=f"{found.key}[{n}]", value=one)) for n, one in enumerate(value))


def _paths(found: Found) -> tuple[str, ...]:
    if not isinstance(found.value, list):
        raise found.refusal('a list of directories, such as ["/opt/old-release"]')
    return tuple(_path(replace(found, key=f"{found.key}[{n}]", value=one)) for n, one in enumerate(found.value))


def _share(found: Found) -> str:
    if found.value not in SHARES:
        raise found.refusal(f"one of {', '.join(SHARES)}")
    return str(found.value)


def _rate(found: Found) -> int:
    return parse_rate(_text(found), place=f"{found.place}: {found.key}")


def _attempts(found: Found) -> int:
    value = found.value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100:
        raise found.refusal("a whole number from 1 to 100")
    return value


def _seconds(found: Found) -> float:
    value = found.value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 3600:
        raise found.refusal("a number of seconds from 1 to 3600")
    return float(value)


@dataclass(frozen=True)
class Key:
    """A setting: how config.toml spells it, the field of Settings, how it is parsed, and its environment variables."""

    name: str
    field: str
    parse: Parser
    variables: tuple[str, ...] = ()


KEYS = (
    Key("sources", "sources", _sources, ("PACBALL_SOURCES",)),
    Key("root", "root", _path, ("PACBALL_ROOT",)),
    Key("root_keys", "root_keys", _path, ("PACBALL_ROOT_KEYS",)),
    Key("ca_file", "ca_file", _path, ("PACBALL_CA_FILE",)),
    Key("proxy.http", "http_proxy", _proxy, ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")),
    Key("proxy.https", "https_proxy", _proxy, ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")),
    Key("proxy.no_proxy", "no_proxy", _proxy, ("no_proxy", "NO_PROXY")),
    Key("limits.rate", "rate_bytes_per_second", _rate, ("PACBALL_LIMIT_RATE",)),
    Key("limits.attempts", "attempts", _attempts),
    Key("limits.connect_seconds", "connect_seconds", _seconds),
    Key("limits.stall_seconds", "stall_seconds", _seconds),
    Key("install.seeds", "seeds", _paths),
    Key("install.share", "share", _share),
    Key("install.owner", "owner", _text),
)
_TOKENS = "tokens"
_URLS = ("sources", "proxy.http", "proxy.https")
_BY_NAME = {key.name: key for key in KEYS}
_SECTIONS = {key.name.partition(".")[0] for key in KEYS if "." in key.name} | {_TOKENS}
_OLD = {"source": "sources"}


def load_settings() -> Settings:
    """All settings but those of the command line. Raises Refused for what is wrong in them, Unavailable."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    tokens: dict[str, str] = {}
    files = []
    for path in (system_config_dir() / CONFIG_FILE, config_dir() / CONFIG_FILE):
        table = _read(path)
        if table is None:
            continue
        files.append(path)
        for found in _found(table, path):
            _take(found, values, tokens)
            origins[found.key] = found.place
    for found in _of_environment(os.environ):
        _take(found, values, tokens)
        origins[found.key] = found.place
    return Settings(**values, tokens=tokens, files=tuple(files), origins=origins)  # type: ignore[arg-type]


def install_root(given: Path | None) -> Path:
    """The install root that is `given`, or the one that is set. Raises Refused where there is neither."""
    if given is not None:
        return given
    root = load_settings().root
    if root is None:
        hint = "name a directory, or set root in config.toml"
        raise Refused("no install root is given", place="--root", hint=hint)
    return Path(root)


def _take(found: Found, values: dict[str, object], tokens: dict[str, str]) -> None:
    if found.key in _BY_NAME:
        key = _BY_NAME[found.key]
        values[key.field] = key.parse(found)
    else:
        tokens[found.key.removeprefix(f"{_TOKENS}.")] = _path(found)


def _read(path: Path) -> dict[str, object] | None:
    try:
        with wrapped(path), open(path, "rb") as file:
            data = file.read(_BYTES + 1)
    except NotFound:
        return None
    if len(data) > _BYTES:
        raise Refused(f"has more than {_BYTES} bytes", place=str(path), hint="is this the configuration?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"is not TOML: {error}", place=str(path), hint="correct or remove it") from error


def _found(table: Mapping[str, object], path: Path) -> Iterator[Found]:
    """Every value of a file, under the name of its key. Raises Refused for keys that are not known."""
    for name, value in table.items():
        if name in _SECTIONS:
            if not isinstance(value, dict):
                raise Found(name, value, str(path)).refusal(f"a section: write [{name}] in a line of its own")
            for inner, one in value.items():
                yield Found(_known(f"{name}.{inner}", path), one, str(path), path.parent)
        elif name in _OLD:
            if _OLD[name] in table:
                hint = f"leave out {name}, which is the old spelling"
                raise Refused(f"has both {_OLD[name]} and {name}", place=str(path), hint=hint)
            one = _text(Found(name, value, str(path)))
            yield Found(_OLD[name], [one], str(path), path.parent)
        else:
            yield Found(_known(name, path), value, str(path), path.parent)


def _known(name: str, path: Path) -> str:
    if name in _BY_NAME or name.startswith(f"{_TOKENS}."):
        return name
    near = difflib.get_close_matches(name, _BY_NAME, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    known = ", ".join([*_BY_NAME, _TOKENS])
    raise Refused(f"{printable(name[:100])} is not a setting", place=str(path), hint=f"{meant}known are {known}")


def _of_environment(environment: Mapping[str, str]) -> Iterable[Found]:
    for key in KEYS:
        for variable in key.variables:
            # A web server that starts us as a CGI program puts a stranger's header Proxy there.
            stranger = variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment
            value = environment.get(variable)
            if value is not None and not stranger and (value or key.parse is _proxy):
                yield Found(key.name, value, f"${variable}")
                break


_KINDS: Mapping[type, str] = {list: "a list", dict: "a section"}


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{printable(str(_public(value))[:100])}'"
    if isinstance(value, int | float):
        return printable(str(value)[:100])
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Shown:
    """A setting as it is shown: without passwords; its value in plain types."""

    key: str
    value: object
    origin: str


def shown(settings: Settings) -> list[Shown]:
    """Every setting, and where it comes from. Of tokens only the files are known here."""
    values = {key.name: getattr(settings, key.field) for key in KEYS}
    values |= {name: _public(values[name]) for name in _URLS}
    found = [Shown(name, value, settings.origin(name)) for name, value in values.items()]
    for base_url, file in settings.tokens.items():
        found.append(Shown(f"{_TOKENS}.{_public(base_url)}", file, settings.origin(f"{_TOKENS}.{base_url}")))
    return found


def _public(value: object) -> object:
    """`value`, with the password left out that a URL has, of a proxy or, by mistake, of a source."""
    if isinstance(value, tuple):
        return tuple(map(_public, value))
    if not isinstance(value, str) or (value.startswith(("/", "~", ".")) and "://" not in value):
        return value
    scheme, separator, rest = ("", "", value) if "://" not in value else value.partition("://")
    before, at, host = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    if not at or ("/" in before and not colon):
        return value
    return f"{scheme}{separator}{user + colon if colon else ''}***@{host}"

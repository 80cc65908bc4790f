"""Settings: what config.toml, the environment and the command line say together, and where each value comes from.

The command line goes before the environment, that before the user's config.toml, and that before the system's: for each key
alone. Files are parsed strictly: what is not known, or of another type, is refused, since a setting that is silently without
effect is worse than none. docs/installing.md describes the keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from paccli.places import config_dir, system_config_dir
from pacmirror.toml_file import (
    Found,
    Key,
    number,
    one_of,
    path_text,
    proxy,
    rate,
    read_toml_if_there,
    text,
    unknown,
    whole_number,
    without_password,
)
from pacstore.errors import Refused

CONFIG_FILE = "config.toml"
SHARES = ("none", "reflink", "hardlink")
"""The values of `share` (pacstore.install.options.Share)."""
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
    actions_as: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where the value of `key` comes from."""
        return self.origins.get(key, _DEFAULT)


def _source(found: Found) -> str:
    given = text(found)
    return given if "://" in given else path_text(found)


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
    return tuple(path_text(replace(found, key=f"{found.key}[{n}]", value=one)) for n, one in enumerate(found.value))


_seconds = number(1, 3600, of="seconds")


KEYS = (
    Key("sources", "sources", _sources, ("PACBALL_SOURCES",)),
    Key("root", "root", path_text, ("PACBALL_ROOT",)),
    Key("root_keys", "root_keys", path_text, ("PACBALL_ROOT_KEYS",)),
    Key("ca_file", "ca_file", path_text, ("PACBALL_CA_FILE",)),
    Key("proxy.http", "http_proxy", proxy, ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")),
    Key("proxy.https", "https_proxy", proxy, ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")),
    Key("proxy.no_proxy", "no_proxy", proxy, ("no_proxy", "NO_PROXY")),
    Key("limits.rate", "rate_bytes_per_second", rate, ("PACBALL_LIMIT_RATE",)),
    Key("limits.attempts", "attempts", whole_number(1, 100)),
    Key("limits.connect_seconds", "connect_seconds", _seconds),
    Key("limits.stall_seconds", "stall_seconds", _seconds),
    Key("install.seeds", "seeds", _paths),
    Key("install.share", "share", one_of(*SHARES)),
    Key("install.owner", "owner", text),
    Key("install.actions_as", "actions_as", text),
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
        table = read_toml_if_there(path)
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
        tokens[found.key.removeprefix(f"{_TOKENS}.")] = path_text(found)


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
            one = text(Found(name, value, str(path)))
            yield Found(_OLD[name], [one], str(path), path.parent)
        else:
            yield Found(_known(name, path), value, str(path), path.parent)


def _known(name: str, path: Path) -> str:
    if name in _BY_NAME or name.startswith(f"{_TOKENS}."):
        return name
    raise unknown(name, [*_BY_NAME, _TOKENS], place=str(path))


def _of_environment(environment: Mapping[str, str]) -> Iterable[Found]:
    for key in KEYS:
        for variable in key.variables:
            # A web server that starts us as a CGI program puts a stranger's header Proxy there.
            stranger = variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment
            value = environment.get(variable)
            if value is not None and not stranger and (value or key.parse is proxy):
                yield Found(key.name, value, f"${variable}")
                break


@dataclass(frozen=True)
class Shown:
    """A setting as it is shown: without passwords; its value in plain types."""

    key: str
    value: object
    origin: str


def shown(settings: Settings) -> list[Shown]:
    """Every setting, and where it comes from. Of tokens only the files are known here."""
    values = {key.name: getattr(settings, key.field) for key in KEYS}
    values |= {name: without_password(values[name]) for name in _URLS}
    found = [Shown(name, value, settings.origin(name)) for name, value in values.items()]
    for base_url, file in settings.tokens.items():
        found.append(Shown(f"{_TOKENS}.{without_password(base_url)}", file, settings.origin(f"{_TOKENS}.{base_url}")))
    return found

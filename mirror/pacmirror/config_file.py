"""What pacball.toml, the environment and the command line tell the daemon, as one `Config`.

The command line goes before the environment (`PACBALL_SERVE_` and the key in capitals, `_` for each dot), and that before the
file: for each key alone. deploy/pacball.toml describes all keys.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pacmirror.base_url import parse_base_url
from pacmirror.config import Config, Network, format_address, parse_address
from pacmirror.hours import RateHours, format_hours, parse_hours
from pacmirror.toml_file import (
    Found,
    Key,
    number,
    one_of,
    path_text,
    proxy,
    rate,
    read_toml,
    text,
    truth,
    unknown,
    walk,
    whole_number,
    without_password,
)
from pacstore.amounts import parse_bytes, parse_span
from pacstore.errors import Refused, printable
from pacstore.subscription import KEEP_MOST, Subscription

PREFIX = "PACBALL_SERVE_"
_PASSPHRASE = "passphrase_file"  # noqa: S105 - the name of a key
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A configuration; the file of the online key's passphrase; and the place of each value that is not the default."""

    config: Config
    passphrase_file: Path | None
    origins: Mapping[str, str]


def _file(found: Found) -> Path:
    return Path(path_text(found))


def _urls(found: Found) -> tuple[str, ...]:
    return tuple(_base_url(one) for one in found.items())


def _base_url(found: Found) -> str:
    given = text(found)
    try:
        return parse_base_url(given)
    except Refused as error:
        raise Refused(f"{found.key}: {error.place}: {error.message}", place=found.place, hint=error.hint) from error


def _files(found: Found) -> tuple[Path, ...]:
    return tuple(_file(one) for one in found.items())


def _texts(found: Found) -> tuple[str, ...]:
    return tuple(text(one) for one in found.items())


def _hours(found: Found) -> tuple[RateHours, ...]:
    spans = []
    for hours, value in found.pairs():
        begin, end = parse_hours(hours, place=f"{found.place}: {found.key}")
        spans.append(RateHours(begin, end, 0 if value.value == "0" else _rate_or_all(value)))
    return tuple(spans)


def _rate_or_all(found: Found) -> int | None:
    return None if found.value == "unlimited" else rate(found)


def _tokens(found: Found) -> Mapping[str, Path]:
    return {_base_url(replace(value, value=url)): _file(value) for url, value in found.pairs()}


def _subscriptions(found: Found) -> tuple[Subscription, ...]:
    """A list of sections; or in a text `PATTERN=KEEP,PATTERN`."""
    if found.directory is None and isinstance(found.value, str):
        parts = [replace(part, value=_section(str(part.value))) for part in found.items()]
        return tuple(map(_subscription, parts))
    return tuple(map(_subscription, found.items()))


def _section(given: str) -> dict[str, str]:
    pattern, equals, keep = (part.strip() for part in given.partition("="))
    return {"releases": pattern, "keep": keep} if equals else {"releases": pattern}


def _subscription(found: Found) -> Subscription:
    table = found.value
    if not isinstance(table, dict) or "releases" not in table:
        raise found.refusal('a section with a pattern: releases = "AtlasOffline-*-x86_64-*"')
    for name in table:
        if name not in ("releases", "keep"):
            raise unknown(f"{found.key}.{name}", (f"{found.key}.releases", f"{found.key}.keep"), place=found.place)
    pattern = replace(found, key=f"{found.key}.releases", value=table["releases"])
    keep = replace(found, key=f"{found.key}.keep", value=table.get("keep"))
    try:
        return Subscription(text(pattern), None if keep.value is None else whole_number(1, KEEP_MOST)(keep))
    except Refused as error:
        if error.place == found.place:
            raise
        raise Refused(f"{found.key}: {error.place}: {error.message}", place=found.place, hint=error.hint) from error


def _span(found: Found, *, least: int = 0) -> float:
    seconds = parse_span(text(found), place=f"{found.place}: {found.key}")
    if seconds < least:
        raise found.refusal(f"a time span of at least {least}s")
    return float(seconds)


def _bytes(found: Found) -> int:
    return parse_bytes(text(found), place=f"{found.place}: {found.key}")


def _address(found: Found) -> tuple[str, int]:
    given = text(found)
    try:
        return parse_address(given)
    except Refused as error:
        raise Refused(f"{found.key}: {error.place} {error.message}", place=found.place, hint=error.hint) from error


def _networks(found: Found) -> tuple[Network, ...]:
    return tuple(map(_network, found.items()))


def _network(found: Found) -> Network:
    try:
        return ipaddress.ip_network(text(found))
    except ValueError as error:
        raise found.refusal("an address or a network, such as 10.1.2.3 or 10.0.0.0/8") from error


_parallel = whole_number(1, 64)
_many = whole_number(1, 100_000)
_short = number(0.1, 3600, of="seconds")
_positive = number(0.01, 100_000)
_access = one_of("public", "token")

KEYS = (
    Key("store", "store", _file),
    Key("state_dir", "state_dir", _file),
    Key("listen", "listen", _address),
    Key("max_bytes", "quota_bytes", _bytes),
    Key("trusted_root", "trusted_root", _file),
    Key("refresh.keys", "online_keys", _file),
    Key("refresh.hours", "refresh_hours", _positive),
    Key("refresh.timestamp_days", "timestamp_days", _positive),
    Key("refresh.passphrase_file", _PASSPHRASE, _file),
    Key("upstream.urls", "upstream.urls", _urls),
    Key("upstream.peers", "upstream.peers", _urls),
    Key("upstream.seeds", "upstream.seeds", _files),
    Key("upstream.rate", "upstream.rate_bytes_per_second", rate),
    Key("upstream.hours", "upstream.hours", _hours),
    Key("upstream.ca_file", "upstream.ca_file", _file),
    Key("upstream.proxy.http", "upstream.proxies.http", proxy, ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")),
    Key(
        "upstream.proxy.https",
        "upstream.proxies.https",
        proxy,
        ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    ),
    Key("upstream.proxy.no_proxy", "upstream.proxies.no_proxy", proxy, ("no_proxy", "NO_PROXY")),
    Key("upstream.tokens", "upstream.tokens", _tokens),
    Key("sync.subscriptions", "sync.subscriptions", _subscriptions),
    Key("sync.parallel", "sync.parallel", _parallel),
    Key("sync.poll", "sync.poll_seconds", partial(_span, least=1)),
    Key("sync.grace", "sync.grace_seconds", _span),
    Key("scrub.enabled", "scrub.enabled", truth),
    Key("scrub.rate", "scrub.rate_bytes_per_second", _rate_or_all),
    Key("scrub.hours", "scrub.hours", _hours),
    Key("collect.enabled", "collect.enabled", truth),
    Key("collect.grace", "collect.grace_seconds", _span),
    Key("pacballs.url", "pacballs.url", _base_url),
    Key("pacballs.mirrors", "pacballs.mirrors", _urls),
    Key("pacballs.ahead", "pacballs.ahead", truth),
    Key("uploads.enabled", "uploads.enabled", truth),
    Key("uploads.max_bytes", "uploads.max_bytes", _bytes),
    Key("uploads.max_bytes_per_token", "uploads.max_bytes_per_token", _bytes),
    Key("uploads.reserve", "uploads.reserve_bytes", _bytes),
    Key("uploads.keep", "uploads.keep_seconds", partial(_span, least=1)),
    Key("delivery.rucio.rse", "delivery.rucio.rse", text),
    Key("delivery.rucio.scope", "delivery.rucio.scope", text),
    Key("delivery.rucio.account", "delivery.rucio.account", text),
    Key("delivery.rucio.poll", "delivery.rucio.poll_seconds", partial(_span, least=1)),
    Key("delivery.rucio.grace", "delivery.rucio.grace_seconds", _span),
    Key("log.style", "log.style", one_of("text", "json")),
    Key("log.level", "log.level", one_of("debug", "info", "warning", "error")),
    Key("log.requests", "log.requests", truth),
    Key("access.read", "access.read", _access),
    Key("access.status", "access.status", _access),
    Key("access.status_networks", "access.status_networks", _networks),
    Key("access.token_file", "access.token_file", _file),
    Key("access.trusted_proxies", "access.trusted_proxies", _networks),
    Key("access.tls_in_front", "access.tls_in_front", truth),
    Key("limits.connections", "limits.connections", _many),
    Key("limits.connections_per_address", "limits.connections_per_address", _many),
    Key("limits.header_seconds", "limits.header_seconds", _short),
    Key("limits.body_seconds", "limits.body_seconds", _short),
    Key("limits.write_seconds", "limits.write_seconds", _short),
    Key("limits.drain_seconds", "limits.drain_seconds", _short),
)
"""Every setting of the daemon; `field` is its place in `Config`."""
_BY_NAME = {key.name: key for key in KEYS}


def load_config(
    file: Path | None, *, environment: Mapping[str, str], flags: Iterable[Found] = (), base: Config | None = None
) -> Loaded:
    """The configuration of `file`, if there is one, of `environment` and of `flags`, over the values of `base`.

    Raises Refused for what is wrong in them, with its place and key; NotFound, Unavailable.
    """
    found = [
        *(walk(read_toml(file), _BY_NAME, file) if file is not None else ()),
        *_of_environment(environment),
        *flags,
    ]
    values: dict[str, object] = {}
    origins = {}
    for one in found:
        key = _BY_NAME[one.key]
        values[key.field] = key.parse(one)
        origins[one.key] = one.place
    passphrase_file = values.pop(_PASSPHRASE, None)
    address = values.pop("listen", None)
    if isinstance(address, tuple):
        values["host"], values["port"] = address
    if "store" not in values and base is None:
        hint = 'write store = "/srv/store" into the configuration, or give --store DIR'
        raise Refused("no store is given", place=str(file or "--store"), hint=hint)
    start = base if base is not None else Config(Path())
    return Loaded(_replaced(start, values), passphrase_file if isinstance(passphrase_file, Path) else None, origins)


def environment_variable(key: Key) -> str:
    """The variable that sets `key`."""
    return PREFIX + key.name.upper().replace(".", "_")


def _of_environment(environment: Mapping[str, str]) -> Iterator[Found]:
    ours = {environment_variable(key): key for key in KEYS}
    for variable in environment:
        if variable.startswith(PREFIX) and variable not in ours:
            raise unknown(variable, ours, place="the environment")
    for own, key in ours.items():
        for variable in (own, *key.variables):
            # A web server that starts us as a CGI program puts a stranger's header Proxy there.
            stranger = variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment
            value = environment.get(variable)
            if value is not None and not stranger and (value or key.parse is proxy):
                yield Found(key.name, value, f"${variable}")
                break


def _replaced(start: T, values: Mapping[str, object]) -> T:
    """`start`, frozen dataclasses in one, with the fields replaced that `values` names, such as `sync.parallel`."""
    whole = {name: value for name, value in values.items() if "." not in name}
    for section in {name.partition(".")[0] for name in values if "." in name}:
        inner = {name.partition(".")[2]: one for name, one in values.items() if name.startswith(f"{section}.")}
        whole[section] = _replaced(getattr(start, section), inner)
    return replace(start, **whole)  # type: ignore[type-var]


def shown(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Every setting as it is written, its value in words, and where it comes from; without passwords."""
    for key in KEYS:
        value = loaded.passphrase_file if key.field == _PASSPHRASE else _value(loaded.config, key.field)
        yield key.name, _words(value), loaded.origins.get(key.name, "default")


def _value(config: object, field: str) -> object:
    if field == "listen":
        assert isinstance(config, Config)
        return format_address(config.host, config.port)
    for name in field.split("."):
        config = getattr(config, name)
    return config


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_words, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_words(key)} = {_words(one)}" for key, one in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, RateHours):
        return format_hours(value)
    return "-" if value is None else printable(str(without_password(str(value))))

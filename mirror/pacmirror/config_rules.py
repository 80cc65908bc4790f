"""What must fit together in a configuration: half of one, above all of security, is refused and never guessed.

`check_config` looks at values alone; `check_files` also at the files that they name.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from yarl import URL

from pacmirror.base_url import is_loopback
from pacmirror.config import Config, RucioConfig, format_address
from pacmirror.delivery.rucio.naming import check_rse, check_scope
from pacmirror.tls import make_context
from pacmirror.token_file import read_tokens
from pacmirror.tokens import covers, read_token
from pacstore.backends.directory import read_bounded
from pacstore.errors import Refused

_ROOT_BYTES = 1 << 20


def check_config(config: Config) -> None:
    """Raise Refused for the first thing that is only half there, or contradicts another."""
    for key, message, hint in _faults(config):
        raise Refused(message, place=key, hint=hint)


def check_files(config: Config) -> None:
    """Read every file that the configuration names. Raises a PacballError for the first that does not do."""
    upstream = config.upstream
    for url in (*upstream.urls, *upstream.peers):
        upstream.surroundings.access(url)
    for file in upstream.tokens.values():
        read_token(file)
    if upstream.ca_file is not None:
        make_context(upstream.ca_file)
    for seed in upstream.seeds:
        _check_seed(seed)
    if config.access.token_file is not None:
        read_tokens(config.access.token_file)
    if config.trusted_root is not None:
        read_bounded(config.trusted_root, _ROOT_BYTES)


def _faults(config: Config) -> Iterator[tuple[str, str, str]]:
    """The key, what is wrong, what to do."""
    yield from _faults_of_an_origin(config)
    yield from _faults_of_access(config)
    if config.is_mirror and config.online_keys is not None:
        hint = "leave out refresh.keys here: the catalog is signed at the origin, and passed on unchanged"
        yield "refresh.keys", "a mirror signs nothing", hint
    if config.is_mirror and config.uploads.enabled:
        hint = "publish to the origin, which mirrors follow; leave out uploads.enabled here"
        yield "uploads.enabled", "a mirror takes no releases", hint
    if config.online_keys is None and (config.refresh_hours is not None or config.timestamp_days is not None):
        hint = "name the directory of the online key: refresh.keys, or --online-keys DIR"
        yield "refresh", "to refresh a catalog, the daemon needs a key", hint
    yield from _faults_of_delivery(config)
    upstream = config.upstream
    for key in upstream.tokens:
        if not any(covers(URL(key), URL(url)) for url in (*upstream.urls, *upstream.peers)):
            yield "upstream.tokens", f"{key} is no upstream and no peer", "correct the URL, or leave the token out"


def _faults_of_an_origin(config: Config) -> Iterator[tuple[str, str, str]]:
    if config.is_mirror:
        return
    hint = "name the upstream: upstream.urls, or --upstream URL"
    if config.trusted_root is not None and not config.delivery.rucio.rse:
        yield "trusted_root", "is for mirrors, and there is no upstream", hint
    if config.sync.subscriptions:
        yield "sync.subscriptions", "are for mirrors, and there is no upstream", hint
    if config.state_dir is not None:
        yield "state_dir", "is for the stores that mirrors make, and there is no upstream", hint
    if config.quota_bytes is not None:
        yield "max_bytes", "is for mirrors, and there is no upstream", f"{hint}; an origin keeps what was published"


def _faults_of_delivery(config: Config) -> Iterator[tuple[str, str, str]]:
    rucio = config.delivery.rucio
    if not rucio.rse:
        if rucio != RucioConfig():
            yield "delivery.rucio", "names no RSE", 'write rse = "SITE-B" into [delivery.rucio], or leave the rest out'
        return
    for key, check, value in (("rse", check_rse, rucio.rse), ("scope", check_scope, rucio.scope)):
        try:
            check(value)
        except Refused as error:
            yield f"delivery.rucio.{key}", f"{error.place} {error.message}", error.hint
    if config.online_keys is not None or config.uploads.enabled:
        hint = "give the origin's RSE no agent: pacball rucio register and declare tell Rucio what it has"
        yield "delivery.rucio", "is for the stores of other sites than the origin", hint


def _faults_of_access(config: Config) -> Iterator[tuple[str, str, str]]:
    access = config.access
    asked = "token" in (access.read, access.status) or config.uploads.enabled
    if asked and access.token_file is None:
        hint = "name it in access.token_file, and make tokens with: pacball token create"
        yield "access", "tokens are asked for, and there is no file of tokens", hint
    if not asked and access.token_file is not None:
        hint = 'write read = "token" or status = "token" into [access], or enable [uploads], or leave token_file out'
        yield "access.token_file", "is without effect: everything is public", hint
    if access.status_networks and access.status != "token":
        hint = 'write status = "token" into [access], or leave status_networks out'
        yield "access.status_networks", "is without effect: the status is public", hint
    if asked and not access.tls_in_front and not is_local(config.host):
        hint = (
            "listen on 127.0.0.1 behind a proxy that speaks TLS, or, if such a proxy is on another machine and the way from it "
            "is safe, write tls_in_front = true into [access]"
        )
        yield "access", f"tokens would come over plain http to {format_address(config.host, config.port)}", hint


def is_local(host: str) -> bool:
    """Whether `host`, a name or an address to listen on, is this machine's loopback alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return is_loopback(URL.build(scheme="http", host=host))


def _check_seed(seed: Path) -> None:
    if not seed.is_dir() or not os.access(seed, os.R_OK | os.X_OK):
        hint = "name the directory of a store, or the root of an installation"
        raise Refused("is no directory, or cannot be read", place=f"upstream.seeds: {seed}", hint=hint)

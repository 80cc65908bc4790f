"""The daemon's configuration: parsed once, frozen, passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pacmirror.hours import RateHours
from pacmirror.limits import ServerLimits
from pacmirror.proxies import Proxies
from pacmirror.surroundings import Surroundings
from pacstore.errors import Refused, printable
from pacstore.limits import GIB
from pacstore.subscription import Subscription
from pacstore.trust.keyring import Secrets
from pacstore.trust.served import RECORD_NAME

Network = IPv4Network | IPv6Network
DEFAULT_ADDRESS = "127.0.0.1:8080"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})\Z")


@dataclass(frozen=True)
class UpstreamConfig:
    """Where a mirror gets what it does not hold; with no `urls` this daemon is an origin.

    `urls` are the upstreams, in the order of preference where all are alike; `peers`: other mirrors, asked for packs beside
    them; `seeds`: local stores and installations, from which damage may be repaired. `rate_bytes_per_second`: received of all
    together at the hours that `hours` leaves out; None is without a limit. `tokens`: the file of the token for each base URL.
    """

    urls: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    seeds: tuple[Path, ...] = ()
    rate_bytes_per_second: int | None = None
    hours: tuple[RateHours, ...] = ()
    proxies: Proxies = field(default_factory=Proxies)
    ca_file: Path | None = None
    tokens: Mapping[str, Path] = field(default_factory=dict)

    @property
    def surroundings(self) -> Surroundings:
        """How these URLs are reached."""
        return Surroundings(self.proxies, self.ca_file, self.tokens)


@dataclass(frozen=True)
class SyncConfig:
    """What is mirrored whole, and how.

    `parallel`: releases at once; `poll_seconds`: between looks at an upstream that sends no events; `grace_seconds`: how long a
    release stays after it ceased to be subscribed.
    """

    subscriptions: tuple[Subscription, ...] = ()
    parallel: int = 2
    poll_seconds: float = 60.0
    grace_seconds: float = 7 * 86_400.0


@dataclass(frozen=True)
class ScrubConfig:
    """Whether everything held is read again and again, how fast, and at which hours otherwise (0: not at all)."""

    enabled: bool = True
    rate_bytes_per_second: int | None = 20_000_000
    hours: tuple[RateHours, ...] = ()


@dataclass(frozen=True)
class CollectConfig:
    """Whether the daemon collects what nothing refers to, and how long that must have been unused.

    None: mirrors and sites of a Rucio do.
    """

    enabled: bool | None = None
    grace_seconds: float = 7 * 86_400.0


@dataclass(frozen=True)
class PacballConfig:
    """What metalinks say, and when digests of pacballs are taken.

    `url`: the base URL at which clients reach this daemon; empty is as they say that they reach it. `mirrors`: base URLs of
    others that have the same pacballs. `ahead`: the digests are taken as soon as a release is whole here, not when somebody asks.
    """

    url: str = ""
    mirrors: tuple[str, ...] = ()
    ahead: bool = True


@dataclass(frozen=True)
class UploadConfig:
    """Whether releases may be published over HTTP, and what those who do may take up before they have.

    `max_bytes`: of all uploads that are not finished; `max_bytes_per_token`: of those of one token; `reserve_bytes`: of the disk,
    which are left free; `keep_seconds`: how long an upload stays of which nothing more comes.
    """

    enabled: bool = False
    max_bytes: int = 64 * GIB
    max_bytes_per_token: int = 16 * GIB
    reserve_bytes: int = 1 * GIB
    keep_seconds: float = 7 * 86_400.0


@dataclass(frozen=True)
class RucioConfig:
    """The RSE whose files the store has, and the scope of the releases; without an `rse` there is no agent.

    `account`: as whom Rucio is asked, empty as rucio.cfg says; `poll_seconds`: how often; `grace_seconds`: how long something
    stays that no rule wants any more.
    """

    rse: str = ""
    scope: str = "sw"
    account: str = ""
    poll_seconds: float = 60.0
    grace_seconds: float = 86_400.0


@dataclass(frozen=True)
class DeliveryConfig:
    """What else than mirroring brings releases here."""

    rucio: RucioConfig = field(default_factory=RucioConfig)


@dataclass(frozen=True)
class LogConfig:
    """`style`: `text` for people or `json`, one object a line; `level`; `requests`: whether each request is logged."""

    style: str = "text"
    level: str = "info"
    requests: bool = True


@dataclass(frozen=True)
class AccessConfig:
    """Who may read what: `public` or `token`.

    `read` is for everything that a store publishes, `status` for /v1/status and /metrics, which need no token in
    `status_networks`. `token_file` holds the hashes of the tokens. `trusted_proxies`: the reverse proxies in front, whose word
    about the client's address is believed. `tls_in_front`: tokens may come over plain http, since TLS ends before it comes here.
    """

    read: str = "public"
    status: str = "public"
    status_networks: tuple[Network, ...] = ()
    token_file: Path | None = None
    trusted_proxies: tuple[Network, ...] = ()
    tls_in_front: bool = False


@dataclass(frozen=True)
class Config:
    """Everything that the daemon is told.

    `store` is the directory that holds `public/`; `port` 0 takes any free port. `online_keys` is the directory with the
    online key, if this daemon is to keep the catalog fresh: it signs the timestamp anew when half of its life is over,
    or when it is older than `refresh_hours`, and then for `timestamp_days`.
    `state_dir`: where a mirror that makes its store puts the databases; None is in the store.
    `secrets` gives the passphrase of a key, by its name. `quota_bytes`: the most that packs may take in a mirror; None is
    without a limit. `trusted_root`: the root.json that the upstream's catalog must follow from.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 8080
    limits: ServerLimits = field(default_factory=ServerLimits)
    online_keys: Path | None = None
    refresh_hours: float | None = None
    timestamp_days: float | None = None
    secrets: Secrets | None = None
    state_dir: Path | None = None
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    pacballs: PacballConfig = field(default_factory=PacballConfig)
    uploads: UploadConfig = field(default_factory=UploadConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    quota_bytes: int | None = None
    trusted_root: Path | None = None
    log: LogConfig = field(default_factory=LogConfig)
    access: AccessConfig = field(default_factory=AccessConfig)

    @property
    def is_mirror(self) -> bool:
        """Whether there are upstreams; a daemon without is an origin."""
        return bool(self.upstream.urls)

    @property
    def may_begin_empty(self) -> bool:
        """Whether the store is filled from elsewhere, and made if there is none."""
        return self.is_mirror or bool(self.delivery.rucio.rse)

    @property
    def collects(self) -> bool:
        """Whether the daemon collects what is unused."""
        return self.may_begin_empty if self.collect.enabled is None else self.collect.enabled

    @property
    def public(self) -> Path:
        """The docroot; nothing outside of it is ever served."""
        return self.store / "public"

    @property
    def served_record(self) -> Path:
        """Where the daemon remembers what it served last."""
        return self.store / "private" / RECORD_NAME


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPv6]:PORT`. Raises Refused."""
    match = _ADDRESS.match(text)
    if not match or int(match[3]) > 65_535:
        raise Refused(
            "is not an address to listen on",
            place=printable(text[:200]),
            hint=f"write HOST:PORT, for example {DEFAULT_ADDRESS} or [::1]:8080",
        )
    return match[1] or match[2], int(match[3])


def format_address(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""The daemon's configuration: parsed once, frozen, passed on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pacmirror.limits import ServerLimits
from pacstore.errors import Refused, printable
from pacstore.trust.keyring import Secrets
from pacstore.trust.served import RECORD_NAME

DEFAULT_ADDRESS = "127.0.0.1:8080"
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})\Z")


@dataclass(frozen=True)
class Config:
    """Everything that the daemon is told.

    `store` is the directory that holds `public/`; `port` 0 takes any free port. `online_keys` is the directory with the
    online key, if this daemon is to keep the catalog fresh: it signs the timestamp anew when half of its life is over,
    or when it is older than `refresh_hours`, and then for `timestamp_days`.
    `secrets` gives the passphrase of a key, by its name.
    """

    store: Path
    host: str = "127.0.0.1"
    port: int = 8080
    limits: ServerLimits = field(default_factory=ServerLimits)
    online_keys: Path | None = None
    refresh_hours: float | None = None
    timestamp_days: float | None = None
    secrets: Secrets | None = None

    @property
    def public(self) -> Path:
        """The docroot; nothing outside of it is ever served."""
        return self.store / "public"

    @property
    def served_record(self) -> Path:
        """Where the daemon remembers what it served last; it writes nothing else, unless it has keys."""
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

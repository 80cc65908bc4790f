"""What the settings say of the network, for HTTP sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from paccli.settings import Settings
from pacmirror.limits import LIST_LIMITS, ClientLimits, MirrorLimits
from pacmirror.proxies import Proxies
from pacmirror.surroundings import Surroundings


def surroundings_of(settings: Settings) -> Surroundings:
    """Proxies, authorities and tokens. What is wrong with them is said when a source is opened that needs them."""
    return Surroundings(
        Proxies(settings.http_proxy, settings.https_proxy, settings.no_proxy),
        Path(settings.ca_file) if settings.ca_file else None,
        {base_url: Path(file) for base_url, file in settings.tokens.items()},
    )


def limits_of(settings: Settings) -> ClientLimits:
    """The bounds of a client with one source, where the settings say something else than usual."""
    limits = _timeouts(settings, ClientLimits())
    return replace(limits, attempts=settings.attempts or limits.attempts)


def list_limits_of(settings: Settings) -> tuple[ClientLimits, MirrorLimits]:
    """The bounds of each source of a list, and of the list, which counts the attempts."""
    limits = MirrorLimits()
    return _timeouts(settings, LIST_LIMITS), replace(limits, attempts=settings.attempts or limits.attempts)


def _timeouts(settings: Settings, usual: ClientLimits) -> ClientLimits:
    return replace(
        usual,
        connect_seconds=settings.connect_seconds or usual.connect_seconds,
        stall_seconds=settings.stall_seconds or usual.stall_seconds,
    )

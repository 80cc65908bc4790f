"""What a mirror gets everything from: its upstreams, and peers beside them, as one list of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacmirror.limits import LIST_LIMITS
from pacmirror.mirrors import MirrorList
from pacmirror.source import HttpSource

if TYPE_CHECKING:
    from pacmirror.config import UpstreamConfig
    from pacmirror.part import Part

USER_AGENT = "pacball-mirror"


def make_mirror_list(config: UpstreamConfig) -> MirrorList:
    """The sources of a mirror, upstreams first; nothing is asked yet. Raises Refused, and as `Surroundings.access`."""
    surroundings = config.surroundings
    parts: list[Part] = []
    try:
        for url in (*config.urls, *config.peers):
            part = HttpSource(url, limits=LIST_LIMITS, user_agent=USER_AGENT, surroundings=surroundings)
            parts.append(part)
        return MirrorList(parts)
    except BaseException:
        for made in parts:
            made.close()
        raise

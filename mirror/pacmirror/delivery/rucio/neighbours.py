"""Neighbours: other agents of the same RSE. Two with different stores would each report what only one of them has.

Two agents of one store take turns by a lock in it. Those of different stores see each other by their heartbeats in Rucio; all
moments are of Rucio's clock.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pacmirror.delivery.rucio.rse import Beat
from pacstore.errors import Refused, printable

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.rse import Rse

_log = logging.getLogger(__name__)
_BEATS = 3
"""Who has missed so many beats, ..."""
_SLACK_SECONDS = 60.0
"""... and so many seconds more, is dead."""
_FORGET_SECONDS = 86_400.0
_HOST_CHARACTERS = 255


class Neighbours:
    """The agents of an RSE, as seen by that of the store called `store`, which beats every `seconds`."""

    def __init__(self, rse: Rse, store: str, seconds: float) -> None:
        self._rse = rse
        self._store = store
        self._seconds = seconds

    def check(self) -> None:
        """Tell Rucio that this agent lives. Raises Refused if one of another store does, which began before."""
        me = Beat(self._rse.name, self._store, self._seconds, socket.gethostname()[:_HOST_CHARACTERS], os.getpid())
        try:
            self._rse.beat(me, forget_seconds=_FORGET_SECONDS)
            rows = self._rse.beats()
        except Refused as error:
            # Rucio shows heartbeats to its administrators only. The lock of the store holds all the same.
            _log.debug("other agents of %s cannot be seen: %s", self._rse.name, error)
            return
        beats = [beat for row in rows if (beat := _beat(row)) is not None and beat["rse"] == self._rse.name]
        mine = [beat for beat in beats if beat["store"] == self._store]
        if not mine:
            return
        now, begun = max(beat["last"] for beat in mine), min(beat["begun"] for beat in mine)
        for beat in beats:
            is_alive = now - beat["last"] <= _BEATS * beat["seconds"] + _SLACK_SECONDS
            if beat["store"] != self._store and is_alive and (beat["begun"], beat["store"]) < (begun, self._store):
                raise Refused(
                    f"another agent works for this RSE with another store: process {beat['pid']} on {printable(beat['host'])}",
                    place=self._rse.name,
                    hint="an RSE is one store: stop one of the two agents, or give them RSEs of their own",
                )


def _beat(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A heartbeat as numbers and words; None for one that no agent of ours has written."""
    try:
        payload = json.loads(row["payload"])
        begun, last = (parsedate_to_datetime(row[key]).timestamp() for key in ("created_at", "updated_at"))
        return {
            "rse": str(payload["rse"]),
            "store": str(payload["store"]),
            "seconds": float(payload["seconds"]),
            "host": str(row["hostname"])[:_HOST_CHARACTERS],
            "pid": int(row["pid"]),
            "begun": begun,
            "last": last,
        }
    except (KeyError, TypeError, ValueError):
        return None

"""Which roots followed one another: so that who pins a later root of a catalog keeps what was learnt with an earlier one.

A client's state belongs to a pinned root, and lists the roots that it has verified from there on. When a root is pinned that
another state lists, the new state begins with the records of that one: nobody can roll a catalog back by a change of pins.
The other way round, from a later root to an earlier one, the state begins anew.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pacstore.durable import wrapped
from pacstore.errors import NotFound, PacballError, Refused
from pacstore.limits import KIB
from pacstore.trust import internals, private
from pacstore.trust.metadata import METADATA_LIMITS
from pacstore.trust.pins import fingerprint
from pacstore.trust.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tuf.ngclient import Updater

FILE = "lineage.json"
_LIMIT = 64 * KIB


def inherit(state: Path, root: bytes, *, records: Sequence[str], files: Sequence[str]) -> None:
    """If the directory `state`, of the pinned `root`, is new, copy into it what a state has that lists this root.

    `records` and `files` are the names of the directories with records, and with other files that never change. Until
    `record` has been called for `state`, it counts as new. Raises Unavailable, and Corrupt for a damaged record.
    """
    if (state / FILE).exists():
        return
    with wrapped(state.parent):
        others = [state.parent / name for name in sorted(os.listdir(state.parent)) if name != state.name]
    pinned = fingerprint(root)
    for other in others:
        if pinned in _read(other):
            for name in records:
                ours = Records(state / name)
                for one in Records(other / name):
                    ours.add(one, superseded=())
            for name in files:
                _copy(other / name, state / name)


def record(state: Path, updater: Updater, directory: Path, *, pinned_version: int) -> None:
    """Remember in `state` the roots that `updater`, whose files are in `directory`, has verified. Raises Unavailable."""
    versions = range(pinned_version, internals.trusted(updater).root.version + 1)
    if len(_read(state)) >= len(versions):
        return
    roots = []
    for version in versions:
        data = private.read(internals.root_file(directory, version), limit=METADATA_LIMITS.root_bytes)
        if data is None:
            return
        roots.append(fingerprint(data))
    private.replace(state / FILE, json.dumps({"format": 1, "roots": roots}).encode())


def _read(state: Path) -> list[str]:
    # Whatever is wrong with it: what cannot be read says nothing about which state belongs to which root.
    with suppress(PacballError, ValueError, KeyError, TypeError):
        data = private.read(state / FILE, limit=_LIMIT)
        return list(json.loads(data)["roots"]) if data is not None else []
    return []


def _copy(source: Path, target: Path) -> None:
    private.make_directory(target)
    with suppress(NotFound), wrapped(source):
        for name in os.listdir(source):
            data = private.read(source / name, limit=METADATA_LIMITS.targets_bytes)
            if data is not None and not name.endswith(".tmp"):
                with suppress(Refused):
                    private.create(target / name, data)

"""Backing up a store while publishers publish and the daemon serves: one committed state of its catalog, and all that it names.

What the backup gets is verified as it is copied, durable, and never copied twice. What the store cannot give is named, and the
rest goes on. The state is recorded last (`pacstore.backup.record`): until then the one recorded before can be restored.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pacstore.backup.catalog_state import CatalogState, read_state
from pacstore.backup.directory import BackupDirectory, check_apart, exclusive
from pacstore.backup.record import Listed
from pacstore.backup.work import BackupReport, BackupWork
from pacstore.errors import NotFound, Refused
from pacstore.progress import Progress
from pacstore.storage import Clock, DocumentKind, document_path
from pacstore.store import Store
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME

ATTEMPTS = 5
"""How often a state that is not there whole is given up for a newer one, if there is one by then."""
_NUMBERED_TIMESTAMP = re.compile(rf"([0-9]+)\.{re.escape(TIMESTAMP_NAME)}\Z")


def back_up(store: Store, target: Path, *, packs: bool, verify: bool, progress: Progress, now: Clock) -> BackupReport:
    """Bring the backup in directory `target` up to date with `store`; without `packs`, packs are left out.

    With `verify`, what the backup has already is read back, too. Raises Refused for a directory that holds something else, or the
    backup of another store or of a later state; Unavailable when the backup cannot be written: the same call continues it.
    """
    check_apart(store.path, target)
    backup = BackupDirectory.begin(target, now=now())
    report = BackupReport(packs=packs)
    with exclusive(backup.incoming, what="backup"):
        backup = BackupDirectory.open(target)  # again: another process may have ended just now
        _check_history(read_state(store.public), store, backup)
        backup.write(replace(backup.record, begun=int(now())))
        for attempt in range(1, ATTEMPTS + 1):
            work = BackupWork(store, backup, report, verify=verify, progress=progress)
            work.copy(packs=packs, now=now())
            # What a state names that is not the newest any more may be gone for a good reason.
            if not report.damage or attempt == ATTEMPTS or not work.state.has_passed(store.storage):
                work.finish(packs=packs)
                break
    return report


def _check_history(state: CatalogState, store: Store, backup: BackupDirectory) -> None:
    """Raise Refused unless the store continues what the backup has: a later state is not to be lost by way of an earlier one."""
    if state.faults:
        return
    place, hint = str(backup.path), "name another directory"
    kind = DocumentKind.CATALOG
    if backup.record.catalog not in (None, state.catalog):
        raise Refused("is the backup of another store", place=place, hint=hint)
    found = [_NUMBERED_TIMESTAMP.match(name) for name in backup.storage.names(kind)]
    newest = max((int(match[1]) for match in found if match), default=0)
    if newest > state.version:
        message = f"has version {newest} of the catalog, the store has only version {state.version}"
        raise Refused(message, place=place, hint=f"restore the store from it, or {hint}")
    name = f"{newest}.{TIMESTAMP_NAME}"
    try:
        theirs = store.storage.get(kind, name, limit=METADATA_LIMITS.timestamp_bytes)
    except NotFound:
        return
    path = document_path(kind, name)
    if Listed.of(theirs) != (backup.record.files.get(f"public/{path}") or Listed.of_file(backup.public / path)):
        raise Refused(f"has another {path} than the store", place=place, hint=hint)

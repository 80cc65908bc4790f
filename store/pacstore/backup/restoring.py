"""Restoring a store from a backup: everything is verified as it is copied, and the directory is a store when all of it is there.

Order: the catalog's files, manifests and the like, placements, packs, the index, links and holdings, the timestamp, and last
store.json. Until then the same call continues, and no publisher takes the directory for one to begin a store in
(`pacstore.backup.target`). Packs that the backup does not have come from any mirror, also later, into the store at work.
"""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from pacstore.backends.directory import read_bounded
from pacstore.backup.catalog_state import CatalogState, read_state
from pacstore.backup.directory import BackupDirectory, check_apart, exclusive
from pacstore.backup.documents import DocumentRestorer
from pacstore.backup.packs import (
    PackRestorer,
    RestoreReport,
    complete_index,
    hold_complete,
    record_pack,
    restore_index,
)
from pacstore.backup.target import Target
from pacstore.backup.work import releases_let_go
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.limits import LIMITS
from pacstore.links import link_targets
from pacstore.marker import check_marker
from pacstore.progress import Progress
from pacstore.source import Source
from pacstore.storage import STORE_MARKER, Clock, DocumentKind, ObjectKind
from pacstore.store import Store
from pacstore.trust.metadata import TIMESTAMP_NAME
from pacstore.trust.targets import CatalogRelease


def restore(
    path: Path,
    target: Path,
    *,
    source: Source | None,
    state_dir: Path | None,
    despite_damage: bool,
    progress: Progress,
    now: Clock,
) -> RestoreReport:
    """Make `target` the store that the backup in directory `path` holds; again, with `source`, to fetch the packs that it lacks.

    What is damaged in the backup, and not to be had from `source` either, is named in the report, and `target` is no store then;
    unless `despite_damage`, and as long as the catalog itself is whole. Raises NotFound where there is no backup,
    NewerFormat, Corrupt for a record that cannot be read, Refused for a backup that was never finished, and for a
    `target` that holds something else; Unavailable when it cannot be written: the same call continues.
    """
    check_apart(path, target)
    backup = BackupDirectory.open(path)
    record = backup.record
    if not record.has_state:
        hint = "run pacball store backup to it again, or restore from another backup"
        raise Refused("is a backup that was never finished", place=str(path), hint=hint)
    with suppress(Corrupt, NotFound):  # it is named later
        check_marker(read_bounded(backup.public / STORE_MARKER, LIMITS.store_marker_bytes), str(path))
    report = RestoreReport(catalog_version=record.catalog_version, time=record.time, begun=record.begun)
    made = Target.begin(target, record, state_dir=state_dir, now=now())
    with closing(made), exclusive(made.store.staging, what="restore"):
        documents = DocumentRestorer(backup, made.store, source, report, progress=progress)
        if made.is_finished():  # another process may have ended just now
            _complete(made, documents, backup, source, now=now())
        else:
            _make(made, documents, backup, source, despite_damage=despite_damage)
        report.made = made.is_finished()
        report.keys = made.store.keys_dir
    return report


def _make(
    made: Target, documents: DocumentRestorer, backup: BackupDirectory, source: Source | None, *, despite_damage: bool
) -> None:
    store, report = made.store, documents.report
    documents.copy_files(made.state_dir)
    state = documents.read_state()
    held = _held(state, backup)
    documents.copy_objects(held, everything=True)
    packs = PackRestorer(store, report, progress=documents.progress, arrived=lambda _: None)
    packs.copy(backup, list(backup.storage.digests(ObjectKind.PACK)))
    if source is not None and (despite_damage or not documents.lacking):
        packs.fetch(source, packs.missing(held))
    damaged = packs.name_damaged() or documents.lacking
    if state.faults or (damaged and not despite_damage):
        return
    report.index = restore_index(store, backup)
    _finish_releases(store, state, held, report, at_work=False)
    if state.timestamp:
        store.storage.put(DocumentKind.CATALOG, TIMESTAMP_NAME, state.timestamp)
    made.finish(documents.marker)


def _complete(
    made: Target, documents: DocumentRestorer, backup: BackupDirectory, source: Source | None, *, now: float
) -> None:
    """Bring packs, and what else was missing, into a store at which publishers may be at work again."""
    store, report = made.store, documents.report
    state = read_state(store.public)
    if state.faults:
        raise state.faults[0]
    if state.version < backup.record.catalog_version:
        message = (
            f"is a store with version {state.version} of the catalog, the backup has {backup.record.catalog_version}"
        )
        raise Refused(message, place=str(made.path), hint="restore it into a new or empty directory")
    report.catalog_version = state.version
    # Whoever stores the first pack has made the index before.
    complete_index(store)
    let_go = releases_let_go(store, state.releases, now)
    held = [entry for entry in _held(state, backup) if entry.release not in let_go]
    documents.copy_objects(held, everything=False)
    packs = PackRestorer(store, report, progress=documents.progress, arrived=lambda pack: record_pack(store, pack))
    packs.copy(backup, packs.missing(held))
    if source is not None:
        packs.fetch(source, packs.missing(held))
    packs.name_damaged()
    report.index = "kept"
    _finish_releases(store, state, held, report, at_work=True)


def _finish_releases(
    store: Store, state: CatalogState, held: list[CatalogRelease], report: RestoreReport, *, at_work: bool
) -> None:
    report.releases = len(state.releases)
    link_targets(store.storage, state.releases)
    hold_complete(store, held, report, at_work=at_work)


def _held(state: CatalogState, backup: BackupDirectory) -> list[CatalogRelease]:
    """The releases that the store held; what it had ceased to offer is not offered again."""
    held = frozenset(backup.record.held)
    return [entry for entry in state.releases if str(entry.release) in held]

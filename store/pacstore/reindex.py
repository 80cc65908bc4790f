"""The index against the packs: comparing them, and making the index anew. Packs are right, the index is a hint."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing, suppress

from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError
from pacstore.ledger import marks
from pacstore.pack import read_table
from pacstore.progress import Progress
from pacstore.readback import Report, read_back, total_length
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store


def reindex(store: Store, *, progress: Progress) -> Report:
    """Make the index anew from the packs. Packs that are damaged anywhere are named and left out of it.

    So the next publish stores their chunks again instead of referring to them.
    """
    report = Report()
    # Emptied first: a pack that another publisher recorded before that is among those listed after it.
    index = store.empty_index()
    unused = _unused(store)
    # Of a chunk in several packs the last one counts: let that not be one that is to go, such as what was repacked.
    packs = sorted(
        store.storage.digests(ObjectKind.PACK), key=lambda pack: object_path(ObjectKind.PACK, pack) not in unused
    )
    progress.begin("indexing", total_length(store.storage, packs))
    for pack in packs:
        state = read_back(store.storage, pack, report, progress=progress)
        if state.table is not None and not state.bad_frames:
            with store.unswept(), suppress(NotFound):
                # It may have been collected while it was read.
                store.storage.size(ObjectKind.PACK, pack)
                index.add(state.table)
    return report


def _unused(store: Store) -> Collection[str]:
    """The paths of what a collection has found unused."""
    if not store.has_ledger:
        return ()
    with store.ledger.reading() as connection:
        return marks.every(connection)


def check_index(store: Store, damaged: Collection[Digest], report: Report) -> None:
    """Record in `report` where the index says anything else than the packs; `damaged` ones are known to be unreadable.

    A chunk that the index does not know is no damage. Publishers may be at work meanwhile. A mirror, to which nobody
    publishes, need not have one.
    """
    if not store.index_path.exists() and (not store.private.exists() or store.is_mirror or not _any_pack(store)):
        return
    index = store.index
    index.check()
    counts = index.counts()
    confirmed = 0
    whole = True
    for pack, _ in index.packs():
        place = object_path(ObjectKind.PACK, pack)
        try:
            if pack in damaged:
                whole = False
                continue
            with closing(store.storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
                confirmed += index.confirm(read_table(file, place=place))
        except NotFound:
            whole = False
            report.add(index.corrupt(f"it names pack {pack}, which is missing"), "index")
        except PacballError as error:
            whole = False
            report.add(error, "index")
    if whole and confirmed != counts[2] and index.counts() == counts:
        raise Corrupt(
            "the index names chunks that no pack has", place=str(index.path), hint="run: pacball store reindex"
        )


def _any_pack(store: Store) -> bool:
    return any(True for _ in store.storage.digests(ObjectKind.PACK))

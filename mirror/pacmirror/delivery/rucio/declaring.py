"""Declaring: Rucio is told what a store holds, however it came there, and what of it is damaged, or good again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.naming import Did, dataset_name
from pacmirror.delivery.rucio.rse import AVAILABLE, BAD
from pacmirror.delivery.rucio.shelf import Here, Shelf, reread
from pacstore.check import catalog_releases
from pacstore.errors import NotFound
from pacstore.ledger import damage, releases
from pacstore.ledger.completion import spoil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacmirror.delivery.rucio.rse import Rse, RseFile
    from pacstore.storage import Clock
    from pacstore.store import Store

REASON = "pacball found it damaged, or gone, in the store of this RSE"


@dataclass
class Declared:
    """What Rucio was told: files that are at the RSE and of which it did not know that; that are good again; that are bad.

    `datasets`: how many were looked at; `unregistered`: the releases of the store of which Rucio knows no dataset.
    """

    datasets: int = 0
    added: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)


def datasets_of(store: Store, scope: str) -> Iterator[tuple[str, Did]]:
    """The releases that the store has, or means to have, whole or not, and what their datasets are called."""
    with store.ledger.reading() as connection:
        known = releases.every(connection)
    for entry in catalog_releases(store):
        if entry.release in known and entry.withdrawal is None:
            yield str(entry.release), Did(scope, dataset_name(entry))


def declare(store: Store, rse: Rse, datasets: Iterable[tuple[str, Did]], *, clock: Clock) -> Declared:
    """Tell Rucio what is here of the datasets, which come with their releases' names.

    What Rucio calls bad is read from the disk before it is called good. May be repeated: then it changes nothing. Raises
    RucioAway, Unavailable; Refused where the account may not.
    """
    done, shelf, told = Declared(), Shelf(store), set[str]()
    for release, did in datasets:
        try:
            files = rse.files(did)
        except NotFound:
            done.unregistered.append(release)
            continue
        done.datasets += 1
        _declare(store, rse, shelf, [file for name, file in files.items() if name not in told], done, clock)
        told |= files.keys()
    return done


def _declare(store: Store, rse: Rse, shelf: Shelf, files: list[RseFile], done: Declared, clock: Clock) -> None:
    here = {file.name: shelf.look(file) for file in files}
    added = [file for file in files if here[file.name] is Here.WHOLE and not file.state]
    good = [file for file in files if here[file.name] is Here.WHOLE and file.state not in ("", AVAILABLE)]
    doubted = [file for file in good if file.state == BAD]
    still_bad = {file.name for file in doubted if record_damage(store, file, clock)}
    bad = [file.name for file in files if here[file.name] is not Here.WHOLE and file.state == AVAILABLE]
    rse.add(
        [FileRecord(file.name, is_file=True, length=file.length, adler32=file.adler32, md5=file.md5) for file in added]
    )
    rse.report(file.name for file in good if file.name not in still_bad)
    rse.declare_bad(bad, REASON)
    done.added += [file.name for file in added]
    done.good += [file.name for file in good if file.name not in still_bad]
    done.bad += bad


def record_damage(store: Store, file: RseFile, clock: Clock) -> bool:
    """Whether a file that somebody calls bad is so; then it is written down, and offered no longer until it is repaired."""
    found = reread(store, file)
    if found:
        pack = found[0].pack
        if pack is not None:
            spoil(store.ledger, store.storage, pack, now=clock())
        with store.ledger.writing() as connection:
            damage.record(connection, found, now=clock())
    return bool(found)

"""Collecting what nothing refers to, beside readers and publishers: mark, grace, look again, delete.

1. *Mark*: what is in the store, and nothing refers to (`references`), is written down with the time.
2. *Grace*: for so long it stays: for installers that began with an older placement, and for second thoughts.
3. *Condemn*, of packs: references are read anew, and the index gives the pack to no publisher any more. The leases that live
   then are written down: their holders may have found the pack before.
4. *Delete*: when none of those leases lives, while nobody commits anything (`Store.sweeping`), references are read once more, and
   what is still unused, and in the index still condemned, goes.

So a publisher that found a pack keeps it: its lease began before the pack was condemned. One that comes later does not find it.
One that stores the same pack again claims it before it is visible. And whatever else may happen, a publisher looks once more
whether all is there, inside `Store.unswept`, where nothing is deleted, before it commits: then it fails in words, and no release
lacks anything.

Killed anywhere, the next call goes on: a mark says nothing but how long a file has been unused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError, Unavailable
from pacstore.ledger import checksums, marks, packs, pins, releases
from pacstore.ledger.completion import drop
from pacstore.ledger.marks import Mark, MarkState
from pacstore.pack import Table, read_table
from pacstore.partial import PartialPacks
from pacstore.readback import Damage
from pacstore.storage import TARGETS_TOP, DocumentKind, ObjectKind, document_path, object_path
from pacstore.sweep.eviction import let_fall
from pacstore.sweep.references import ReferenceReader, References
from pacstore.sweep.report import Amount, SweepReport

if TYPE_CHECKING:
    from pacstore.ledger.database import Ledger
    from pacstore.store import Store

GRACE_SECONDS = 7 * 86_400.0
_BATCH = 64
"""Files that are deleted while publishers wait."""
_PACKS = f"{ObjectKind.PACK.value}/"
_ORDER = (DocumentKind.HOLDINGS.value, TARGETS_TOP, DocumentKind.PLACEMENT.value)
"""What goes first: what says that something is here, then its second names, then what names packs."""


def _nothing(_step: str) -> None:
    """No step is of interest."""


def collect(
    store: Store,
    ledger: Ledger,
    *,
    now: float,
    grace_seconds: float,
    in_use: Collection[Digest] = (),
    at: Callable[[str], None] = _nothing,
) -> SweepReport:
    """Collect what has been unused for `grace_seconds`, beside everybody else who works in `store`. Several may do so at once.

    In a mirror, packs that no release kept whole has needed for so long go as well, unless they are `in_use` just now, or
    somebody has asked for them meanwhile.
    `at` is told each step before it is taken. Raises NotFound where there is no catalog, and Corrupt, NewerFormat or Unavailable
    where it cannot be read: then nothing is deleted.
    """
    report = _Sweep(store, ledger, now=now, grace_seconds=grace_seconds, at=at).run()
    if store.is_mirror:
        partials = PartialPacks(store.private, store.storage)
        fallen = let_fall(store, ledger, partials, now=now, grace_seconds=grace_seconds, in_use=in_use)
        report.deleted = Amount(report.deleted.files + len(fallen.packs), report.deleted.bytes + fallen.bytes)
    return report


def preview(store: Store, ledger: Ledger | None, *, now: float, grace_seconds: float) -> SweepReport:
    """What `collect` would do, as far as that can be said; nothing is written. Without a ledger nothing is marked yet."""
    report, reader = SweepReport(), ReferenceReader(store)
    marked, pinned = {}, list[str]()
    if ledger is not None:
        with ledger.reading() as connection:
            marked = marks.every(connection)
            pinned = [pin.name for pin in pins.listed(connection, now=now)]
    references = reader.read(now=now, pinned=pinned)
    live = store.leases.live()
    report.tell(references, pinned)
    for path in unused(store, references):
        known, size = marked.get(path), _size(store, path)
        until = (min(known.marked_at, now) if known is not None else now) + grace_seconds
        if until > now:
            report.wait(size, until=until)
        elif _is_pack(path) and (live if known is None or known.state is MarkState.MARKED else known.waits_for & live):
            report.condemned = report.condemned.plus(size)
        else:
            report.deleted = report.deleted.plus(size)
    report.leases = len(live) if report.condemned.files else 0
    return report


def unused(store: Store, references: References) -> Iterator[str]:
    """The paths below the docroot of all files that nothing refers to. Files whose names say nothing to us are left out."""
    return (path for path in _everything(store) if not references.has(path))


def _everything(store: Store) -> Iterator[str]:
    storage = store.storage
    for document in (DocumentKind.HOLDINGS, DocumentKind.PLACEMENT, DocumentKind.CATALOG):
        for name in storage.names(document):
            # Somebody else's files, such as those that begin with a dot, are none of ours.
            with suppress(PacballError):
                yield document_path(document, name)
    yield from storage.links()
    for kind in ObjectKind:
        yield from (object_path(kind, digest) for digest in storage.digests(kind))


class _Sweep:
    def __init__(
        self, store: Store, ledger: Ledger, *, now: float, grace_seconds: float, at: Callable[[str], None]
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._now = now
        self._grace_seconds = grace_seconds
        self._at = at
        self._reader = ReferenceReader(store)
        self._has_index = store.index_path.exists()
        self._report = SweepReport()

    def run(self) -> SweepReport:
        references = self._read()
        self._forget(references)
        found = self._mark(references)
        limit = self._now - self._grace_seconds
        due = [mark for mark in found.values() if mark.marked_at <= limit]
        self._condemn([mark for mark in due if _is_pack(mark.path) and mark.state is MarkState.MARKED])
        documents = sorted((mark for mark in due if not _is_pack(mark.path)), key=_turn)
        try:
            self._delete(documents, self._delete_document)
            self._delete(self._released(), self._delete_pack)
        except Unavailable as error:
            # Whoever commits just now comes first; all of this can be done another time.
            self._report.busy = str(error)
        self._sum_up()
        return self._report

    def _read(self) -> References:
        with self._ledger.reading() as connection:
            pinned = [pin.name for pin in pins.listed(connection, now=self._now)]
        references = self._reader.read(now=self._now, pinned=pinned)
        self._report.tell(references, pinned)
        return references

    def _forget(self, references: References) -> None:
        """Let the ledger know no more of releases that were dropped: it would still count them."""
        with self._ledger.reading() as connection:
            known = releases.every(connection).keys() & references.dropped
        for release in sorted(known):
            drop(self._ledger, self._store.storage, release)

    def _mark(self, references: References) -> dict[str, Mark]:
        """Bring the marks up to date with what is unused now; all of them."""
        self._at("list")
        with self._ledger.reading() as connection:
            before = marks.every(connection)
        found = set(unused(self._store, references))
        judged = (path for path in before if not (references.unreadable and _is_pack(path)))
        used = [path for path in judged if path not in found]
        fresh = {path: _size(self._store, path) for path in found if path not in before}
        self._at("mark")
        with self._ledger.writing() as connection:
            marks.set_back(connection, now=self._now)
            marks.mark(connection, fresh, now=self._now)
        self._spare(used)
        if self._has_index:
            # Of a collection that was killed, or an index from a backup.
            known = {path for path, mark in before.items() if mark.state is MarkState.CONDEMNED} - set(used)
            for pack in self._store.index.all_condemned():
                if object_path(ObjectKind.PACK, pack) not in known:
                    self._bring_back(pack)
        with self._ledger.reading() as connection:
            return marks.every(connection)

    def _spare(self, paths: Iterable[str]) -> None:
        """Forget the marks of what is used, or gone; publishers find such packs again."""
        paths = list(paths)
        for path in paths:
            if _is_pack(path) and self._has_index:
                self._bring_back(_pack_of(path))
        with self._ledger.writing() as connection:
            marks.unmark(connection, paths)

    def _bring_back(self, pack: Digest) -> None:
        index = self._store.index
        if not index.condemned(pack):
            return
        self._at("bring back")
        table = _table(self._store, pack)
        if table is not None:
            index.add(table)
        elif _is_gone(self._store, pack):
            # Whoever deleted it was killed before the index could forget it.
            with index.forgetting(pack):
                pass
        else:
            index.claim(pack)

    def _condemn(self, due: list[Mark]) -> None:
        if not due:
            return
        references = self._read()
        self._spare(mark.path for mark in due if references.has(mark.path) and not references.unreadable)
        paths = [mark.path for mark in due if not references.has(mark.path)]
        for path in paths if self._has_index else ():
            self._at("condemn")
            self._store.index.condemn(_pack_of(path), _table(self._store, _pack_of(path)))
        self._at("list leases")
        # After the last of them was condemned: who began before that may have found one, who begins later does not.
        leases = self._store.leases.live()
        self._at("note leases")
        with self._ledger.writing() as connection:
            marks.condemn(connection, paths, leases)

    def _released(self) -> list[Mark]:
        """The condemned packs of which nobody at work can know."""
        live = self._store.leases.live()
        with self._ledger.reading() as connection:
            condemned = [mark for mark in marks.every(connection).values() if mark.state is MarkState.CONDEMNED]
        self._report.leases = len({lease for mark in condemned for lease in mark.waits_for & live})
        return [mark for mark in condemned if not mark.waits_for & live]

    def _delete(self, wanted: list[Mark], delete: Callable[[Mark], bool]) -> None:
        for first in range(0, len(wanted), _BATCH):
            batch = wanted[first : first + _BATCH]
            self._at("lock")
            with self._store.sweeping():
                self._at("look again")
                references = self._read()
                used = {mark.path for mark in batch if references.has(mark.path)}
                gone = [mark for mark in batch if mark.path not in used and self._try(mark, delete)]
            self._at("unmark")
            with self._ledger.writing() as connection:
                marks.unmark(connection, [mark.path for mark in gone])
                checksums.forget(connection, [_pack_of(mark.path) for mark in gone if _is_object(mark.path)])
            self._spare(path for path in used if not (references.unreadable and _is_pack(path)))

    def _try(self, mark: Mark, delete: Callable[[Mark], bool]) -> bool:
        self._at("delete")
        try:
            done = delete(mark)
        except PacballError as error:
            self._report.failed.append(Damage(mark.path, error.message))
            return False
        if done:
            self._report.deleted = self._report.deleted.plus(mark.bytes)
        return done

    def _delete_document(self, mark: Mark) -> bool:
        storage = self._store.storage
        kind, _, rest = mark.path.partition("/")
        if kind == TARGETS_TOP:
            storage.unlink(mark.path)
        elif kind in [document.value for document in DocumentKind]:
            storage.remove(DocumentKind(kind), rest)
        else:
            storage.delete(ObjectKind(kind), _pack_of(mark.path))
        return True

    def _delete_pack(self, mark: Mark) -> bool:
        """Delete a pack; false if somebody has claimed it meanwhile, who will refer to it or not."""
        pack = _pack_of(mark.path)
        if not self._has_index:
            self._take(pack)
            return True
        with self._store.index.forgetting(pack) as still:
            if still:
                self._take(pack)
        if not still:
            with self._ledger.writing() as connection:
                marks.reprieve(connection, [mark.path])
        return still

    def _take(self, pack: Digest) -> None:
        # The ledger first: it must not say that a pack is here which is gone.
        with self._ledger.writing() as connection:
            packs.remove(connection, [pack])
        self._store.storage.delete(ObjectKind.PACK, pack)

    def _sum_up(self) -> None:
        with self._ledger.reading() as connection:
            left = marks.every(connection)
        for mark in left.values():
            if mark.state is MarkState.CONDEMNED:
                self._report.condemned = self._report.condemned.plus(mark.bytes)
            else:
                self._report.wait(mark.bytes, until=mark.marked_at + self._grace_seconds)


def _turn(mark: Mark) -> tuple[int, str]:
    kind = mark.path.partition("/")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), mark.path)


def _is_pack(path: str) -> bool:
    return path.startswith(_PACKS)


def _is_object(path: str) -> bool:
    return path.partition("/")[0] in list(ObjectKind)


def _pack_of(path: str) -> Digest:
    return Digest.parse(path[-64:])


def _size(store: Store, path: str) -> int:
    """The bytes that are free once the file is gone: none for what has another name."""
    try:
        with wrapped(path):
            status = (store.public / path).lstat()
    except NotFound:
        return 0
    return status.st_size if status.st_nlink == 1 or not path.startswith(f"{TARGETS_TOP}/") else 0


def _is_gone(store: Store, pack: Digest) -> bool:
    try:
        store.storage.size(ObjectKind.PACK, pack)
    except NotFound:
        return True
    return False


def _table(store: Store, pack: Digest) -> Table | None:
    place = object_path(ObjectKind.PACK, pack)
    try:
        with closing(store.storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
            table = read_table(file, place=place)
    except (NotFound, Corrupt):
        return None
    return table if table.id == pack else None

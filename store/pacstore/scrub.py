"""Scrubbing: everything that a store holds is read from the disk, piece by piece, and compared with what it must be.

Packs are compared frame by frame by the digests of their compressed bytes, which their tables have, and the tables with the
packs' names; nothing is decoded. One bad part never ends the reading of the rest. That a store as a whole cannot be read is an
error, never damage. Nothing is changed here.
"""

from __future__ import annotations

import io
import os
from functools import partial
from typing import TYPE_CHECKING

from pacstore.damage import WHOLE, DamagedPart
from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import NotFound, PacballError, Unavailable
from pacstore.holding import holdings_of
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS
from pacstore.links import links_of
from pacstore.marker import check_marker
from pacstore.placement import placement_name, read_packs
from pacstore.rereading import Position, Rereader, Step, judged
from pacstore.storage import (
    STORE_MARKER,
    TARGETS_TOP,
    DocumentKind,
    ObjectKind,
    document_path,
    named_sha256,
    object_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

    Reading = Callable[[str, int], Iterator[Step]]


class Scrub:
    """Reads a store once. Not for several threads at once.

    `releases` are those of its catalog, verified by the caller. Those of them that have holdings must be whole; those that
    `expected` gives when it comes to them must have holdings, too.
    """

    def __init__(
        self,
        store: Store,
        releases: Sequence[CatalogRelease],
        *,
        expected: Callable[[], Collection[Release]] = frozenset,
    ) -> None:
        self._store = store
        self._releases = {str(entry.release): entry for entry in releases}
        self._expected = expected
        self._reader = Rereader(store.public)

    def steps(self, position: Position) -> Iterator[Step]:
        """Read what comes after `position`, a few megabytes with each step, as fast as the caller takes them.

        Raises Unavailable when the store as a whole cannot be read.
        """
        require_store(self._store)
        begun = not position.path
        for section, listed in self._sections():
            if not begun and section != position.section:
                continue
            for path, read in _present(listed, self._store, section):
                if path < position.path and not begun:
                    continue
                for step in read(path, position.offset if path == position.path else 0):
                    if step.damage or step.unread:
                        require_store(self._store)
                    yield step
            begun = True

    def close(self) -> None:
        """Release memory. May be repeated."""
        self._reader.close()

    def _sections(self) -> Iterator[tuple[str, Iterable[tuple[str, Reading]]]]:
        """The parts of the docroot, in the order in which they are read, each with its files and what reads them."""
        storage, reader = self._store.storage, self._reader
        for kind in ObjectKind:
            read = reader.pack if kind is ObjectKind.PACK else reader.single
            yield kind.value, ((object_path(kind, digest), read) for digest in storage.digests(kind))
        placements = {path_of_placement(entry): entry for entry in self._releases.values()}
        yield DocumentKind.PLACEMENT.value, self._placements(placements)
        yield DocumentKind.HOLDINGS.value, self._held()
        yield TARGETS_TOP, self._links()

    def _placements(self, entries: dict[str, CatalogRelease]) -> Iterator[tuple[str, Reading]]:
        """Those that the catalog names now; of others nobody knows what they must be, except through their links."""
        for name in self._store.storage.names(DocumentKind.PLACEMENT):
            path = document_path(DocumentKind.PLACEMENT, name)
            if path in entries:
                yield path, partial(self._placement, entries[path])

    def _held(self) -> Iterator[tuple[str, Reading]]:
        expected = frozenset(map(str, self._expected()))
        held = expected | frozenset(self._store.storage.names(DocumentKind.HOLDINGS))
        for name in sorted(held & self._releases.keys()):
            read = partial(self._release, self._releases[name], must_be=name in expected)
            yield document_path(DocumentKind.HOLDINGS, name), read

    def _links(self) -> Iterator[tuple[str, Reading]]:
        files = {link.path: link.file for entry in self._releases.values() for link in links_of(entry)}
        for path in self._store.storage.links():
            if not _is_same(self._store, path, files.get(path)):
                yield path, self._link

    def _link(self, path: str, _offset: int) -> Iterator[Step]:
        return self._reader.sha256(path, named_sha256(path))

    def _placement(self, entry: CatalogRelease, path: str, _offset: int) -> Iterator[Step]:
        return self._reader.document(path, entry.placement)

    def _release(self, entry: CatalogRelease, path: str, _offset: int, *, must_be: bool) -> Iterator[Step]:
        """What the holdings of a release say, and whether all that it needs is there."""
        try:
            damage = [*_holdings_damage(self._store, path, entry, must_be=must_be)]
            damage += missing_parts(self._store, entry)
            # A release that is being dropped loses its holdings first, and then nothing of it is missed.
            if not must_be and not os.path.lexists(self._store.public / path):
                damage = []
        except OSError as error:
            yield judged(path, error)
        else:
            yield Step(Position(path), entry.placement.length, objects=1, damage=tuple(damage))


def require_store(store: Store) -> None:
    """Raise Unavailable where the store as a whole is not there or cannot be read: then nothing is known to be damaged."""
    try:
        with wrapped(store.public):
            os.listdir(store.public)
        with wrapped(store.public / STORE_MARKER):
            data = (store.public / STORE_MARKER).read_bytes()
        check_marker(data, STORE_MARKER)
    except PacballError as error:
        hint = "is its disk mounted, and sound? Nothing was taken for damaged"
        raise Unavailable(f"cannot be read as a store: {error.place}: {error.message}", place=str(store.path),
                          hint=hint) from error  # fmt: skip


def path_of_placement(entry: CatalogRelease) -> str:
    """The public path of a release's placement."""
    return document_path(DocumentKind.PLACEMENT, placement_name(entry.release, entry.placement_number))


def documents_of(entry: CatalogRelease) -> dict[str, int]:
    """The public paths of all documents that a release needs, with their lengths in bytes."""
    found = {
        object_path(ObjectKind.MANIFEST, entry.manifest.digest): entry.manifest.length,
        object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest): entry.attributes.length,
        path_of_placement(entry): entry.placement.length,
    }
    if entry.provenance is not None:
        found[object_path(ObjectKind.PROVENANCE, entry.provenance.digest)] = entry.provenance.length
    return found


def packs_named(store: Store, entry: CatalogRelease) -> dict[Digest, int]:
    """The packs that a release's placement names, with their lengths in bytes; none where it cannot be read as one.

    Only its first part is read, which is cheap, and not verified. Raises OSError.
    """
    try:
        with open(store.public / path_of_placement(entry), "rb", buffering=0) as file:
            return read_packs(file, place="")
    except (FileNotFoundError, PacballError):
        return {}


def packs_needed(store: Store, entry: CatalogRelease) -> dict[Digest, int] | None:
    """The packs that a release's placement names, with their lengths in bytes; None where it is not what the catalog says.

    Raises OSError.
    """
    try:
        with open(store.public / path_of_placement(entry), "rb") as file:
            data = file.read(entry.placement.length + 1)
    except FileNotFoundError:
        return None
    if len(data) != entry.placement.length or Digest.of(data) != entry.placement.digest:
        return None
    return read_packs(io.BytesIO(data), place=path_of_placement(entry))


def missing_parts(store: Store, entry: CatalogRelease) -> Iterator[DamagedPart]:
    """What a release needs and that is not there, or has another length. Raises OSError where that cannot be found out."""
    wanted = documents_of(entry)
    # A placement that is not right is damage by itself; what it names counts for nothing.
    wanted |= {
        object_path(ObjectKind.PACK, pack): length for pack, length in (packs_needed(store, entry) or {}).items()
    }
    for path, length in wanted.items():
        try:
            found = os.stat(store.public / path).st_size
        except FileNotFoundError:
            yield DamagedPart(path, WHOLE, "is missing")
        else:
            if found != length:
                yield DamagedPart(path, WHOLE, f"has {found} bytes, not {length}")


def _holdings_damage(store: Store, path: str, entry: CatalogRelease, *, must_be: bool) -> Iterator[DamagedPart]:
    try:
        with open(store.public / path, "rb") as file:
            data = file.read(LIMITS.holdings_bytes + 1)
        held = Holdings.parse(data, place=path)
    except FileNotFoundError:
        if must_be:
            yield DamagedPart(path, WHOLE, "is missing")
    except PacballError as error:
        yield DamagedPart(path, WHOLE, error.message)
    else:
        # Of another placement it may rightly be, for as long as the one that the catalog names now is not here.
        expected = holdings_of(entry)
        if held != expected and held.placement_number == expected.placement_number:
            yield DamagedPart(path, WHOLE, "does not name what the catalog names")


def _present(listed: Iterable[tuple[str, Reading]], store: Store, section: str) -> Iterator[tuple[str, Reading]]:
    """What is listed; a directory that is not there is an error, since a store has it."""
    try:
        yield from listed
    except NotFound as error:
        require_store(store)
        raise Unavailable("cannot be listed: it does not exist", place=f"{store.public}/{section}") from error


def _is_same(store: Store, path: str, file: str | None) -> bool:
    """Whether the link is the very file that is read under its other name."""
    try:
        return file is not None and os.path.samestat(os.stat(store.public / path), os.stat(store.public / file))
    except OSError:
        return False

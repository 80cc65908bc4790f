"""Checksums of a store's objects as other systems ask for them: taken while every byte is verified, and remembered.

They protect nothing here: an object's name is its digest. They are for who compares with Adler-32 or MD5.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt
from pacstore.ledger import checksums
from pacstore.ledger.checksums import Checksums, Named
from pacstore.storage import ObjectKind, object_path
from pacstore.transfer import Fault, verified_pieces

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.store import Store

__all__ = ["Checksums", "checksums_of", "checksums_of_all"]

_THREADS = 2
_BATCH = 16
"""So many are taken before they are written to the ledger: what is lost of interrupted work."""


def checksums_of(store: Store, kind: ObjectKind, digest: Digest, *, progress: Progress) -> Checksums:
    """The checksums of one object; see `checksums_of_all`."""
    return checksums_of_all(store, [(kind, digest)], progress=progress)[kind, digest]


def checksums_of_all(store: Store, wanted: Iterable[Named], *, progress: Progress) -> dict[Named, Checksums]:
    """The checksums of these objects of a writable `store`, some read at once; what was read before is not read again.

    Interrupted, the same call goes on. Raises NotFound for an object that is not here, Corrupt for one that is not what its
    name says, Unavailable.
    """
    order = list(dict.fromkeys(wanted))
    lengths = {one: store.storage.size(*one) for one in order}
    with store.ledger.reading() as connection:
        known = checksums.find(connection, order)
    for one, said in known.items():
        if said.length != lengths[one]:
            message = f"has {lengths[one]:,} bytes, not {said.length:,}"
            raise Corrupt(message, place=object_path(*one), hint="run: pacball store check --repair")
    todo = [one for one in order if one not in known]
    progress.begin("checksums", sum(lengths[one] for one in todo))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="pacball-checksums") as threads:
        for first in range(0, len(todo), _BATCH):
            some = todo[first : first + _BATCH]
            taken = dict(zip(some, threads.map(lambda one: _take(store, one, progress), some), strict=True))
            with store.ledger.writing() as connection:
                checksums.save(connection, taken)
            known |= taken
    return {one: known[one] for one in order}


def _take(store: Store, one: Named, progress: Progress) -> Checksums:
    length, adler32, md5 = 0, 1, hashlib.md5(usedforsecurity=False)
    try:
        for data in verified_pieces(store.storage, *one):
            adler32 = zlib.adler32(data, adler32)
            md5.update(data)
            length += len(data)
            progress.advance(len(data))
    except Fault as fault:
        raise fault.error from fault
    return Checksums(length, f"{adler32:08x}", md5.hexdigest())

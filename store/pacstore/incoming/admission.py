"""Admission: an object that somebody sent becomes one of the store, once every byte of it was verified.

Nothing about it is believed: neither its length, nor its digest, nor what its table says of its frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from pacstore.codec import KIND_ZSTD
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NewerFormat, NotFound, Refused
from pacstore.incoming.damage import of_the_store
from pacstore.limits import LIMITS, MIB
from pacstore.pack import read_frame, read_table
from pacstore.readback import check_chunks
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from pathlib import Path

    from pacstore.digest import Digest
    from pacstore.pack import Table
    from pacstore.storage import Staged
    from pacstore.store import Store

LENGTHS = {
    ObjectKind.PACK: LIMITS.pack_bytes,
    ObjectKind.MANIFEST: LIMITS.manifest_bytes,
    ObjectKind.ATTRIBUTES: LIMITS.attributes_bytes,
}
"""The kinds that may come from elsewhere, and the most bytes that one can have."""


def is_admitted(store: Store, kind: ObjectKind, digest: Digest) -> bool:
    """Whether the object is here for whoever refers to it now; a pack must be known to the index, and not be condemned."""
    try:
        store.storage.size(kind, digest)
    except NotFound:
        return False
    with of_the_store():
        return kind is not ObjectKind.PACK or store.index.has(digest)


def admit(store: Store, kind: ObjectKind, digest: Digest, path: Path) -> None:
    """Verify the file `path` as the object `digest`, and put it into the store, durably; of a pack, also into the index.

    A pack's table and each of its frames are compared with their digests, each frame is decoded, and each chunk compared with
    its id. Raises Corrupt, TooLarge, NewerFormat or Refused for what is not what it is said to be: then nothing has changed.
    Unavailable where the disk or the index fails.
    """
    with wrapped(path), open(path, "rb") as file, store.storage.stage(kind) as staged:
        if kind is not ObjectKind.PACK:
            _copy(file, staged, digest, place=object_path(kind, digest))
            staged.publish(digest)
            return
        table = _copy_pack(file, staged, digest)
        # Before it is visible: a collection that found this very pack without use leaves it alone from here on.
        with of_the_store():
            store.index.claim(digest)
        staged.publish(digest)
    # Where a chunk is known already, its place stays: strangers must not move what others will refer to.
    with of_the_store():
        store.index.add(table, keep_known=True)


def _copy(file: BinaryIO, staged: Staged, digest: Digest, *, place: str) -> None:
    hasher = blake3()
    while data := file.read(MIB):
        hasher.update(data)
        staged.write(data)
    if hasher.digest() != digest.raw:
        raise Corrupt("what was sent has another digest", place=place, hint="send it again")


def _copy_pack(file: BinaryIO, staged: Staged, digest: Digest) -> Table:
    """What is written is what was verified, whatever happens to the file meanwhile."""
    place = object_path(ObjectKind.PACK, digest)
    table = read_table(file, place=place)
    if table.id != digest:
        raise Corrupt("what was sent is another pack, or none", place=place, hint="send it again")
    if not len(table.lengths):
        raise Refused("has no frames", place=place)
    if (table.kinds != KIND_ZSTD).any():
        # What cannot be decoded here may hold anything, and the index would say of it what the table says.
        raise NewerFormat(
            "has frames of a kind that is not known here", place=place, hint="install a newer pacball here"
        )
    file.seek(0)
    staged.write(file.read(int(table.offsets[0])))
    for frame in table.frames():
        data = read_frame(file, frame.offset, frame.length, frame.digest, place=place)
        check_chunks(table, frame, data, place)
        staged.write(data)
    file.seek(int(table.offsets[-1]))
    ending = file.read()
    if (
        len(ending) != table.pack_length - int(table.offsets[-1])
        or blake3(ending[: table.length]).digest() != digest.raw
    ):
        raise Corrupt("what was sent has another ending than it had before", place=place, hint="send it again")
    staged.write(ending)
    return table

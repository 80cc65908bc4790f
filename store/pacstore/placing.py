"""Making placements: from where each chunk is, and storing one under the next number that is free.

The number is part of the name, and public files never change: what an interrupted attempt left under a number stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from pacstore.confirm import confirm
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.document import Numbers
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.frames import FramePlace
from pacstore.limits import LIMITS
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.storage import DocumentKind, Storage, document_path

if TYPE_CHECKING:
    from pacstore.store import Store


def create_placement(
    storage: Storage, manifest: Manifest, make: Callable[[int], Placement], *, first: int = 1
) -> tuple[Placement, bytes]:
    """Store the placement that `make` gives for its number, which is counted from `first`; it, and its bytes.

    Raises Corrupt or NotFound unless the packs hold every chunk of `manifest` where the placement says: it need not be trusted.
    """
    for number in count(first):
        placement = make(number)
        data, name = placement.encode(), placement.document_name
        place = document_path(DocumentKind.PLACEMENT, name)
        confirm(Placement.parse(data, manifest, place=place), manifest, storage)
        try:
            storage.create(DocumentKind.PLACEMENT, name, data)
        except Refused:
            # Of the same bytes it is as good as new.
            if storage.get(DocumentKind.PLACEMENT, name, limit=LIMITS.placement_bytes) != data:
                continue
        return placement, data
    raise AssertionError("numbers do not end")


def store_placement(
    store: Store, release: Release, manifest: Manifest, chunk_frames: Numbers, chunk_offsets: Numbers
) -> tuple[Placement, bytes]:
    """Store the placement of a release whose chunks are where the index says, by its numbers of frames; it, and its bytes.

    Raises Corrupt where the index is wrong, and what the storage does.
    """
    places = list(store.index.frames(np.unique(chunk_frames).tolist()))

    def make(number: int) -> Placement:
        return make_placement(release, number, manifest, chunk_frames, chunk_offsets, places)

    try:
        return create_placement(store.storage, manifest, make)
    except (Corrupt, NotFound) as error:
        hint = "run: pacball store reindex, and the same command again"
        raise Corrupt(f"the index names wrong places: {error.message}", place=error.place, hint=hint) from error


def make_placement(
    release: Release,
    number: int,
    manifest: Manifest,
    chunk_frames: Numbers,
    chunk_offsets: Numbers,
    places: list[FramePlace],
) -> Placement:
    """The placement of `manifest` whose chunk c is at `chunk_offsets[c]` of the frame numbered `chunk_frames[c]`.

    `places` describes each of these frames once, ascending by number. Packs stand in the order of their first use, so that
    files come roughly in tree order when packs are fetched in order.
    """
    numbers, first_use, frame_of_chunk = np.unique(chunk_frames, return_index=True, return_inverse=True)
    packs: dict[Digest, int] = {}
    for place_number in np.argsort(first_use).tolist():
        packs.setdefault(places[place_number].pack, len(packs))
    order = sorted(range(len(numbers)), key=lambda n: (packs[places[n].pack], places[n].frame.offset))
    position = np.empty(len(numbers), dtype=np.int64)
    position[order] = np.arange(len(numbers))
    frames = [places[n].frame for n in order]
    lengths = {place.pack: place.pack_length for place in places}
    return Placement(
        release=release,
        manifest=manifest.digest,
        number=number,
        pack_ids=np.frombuffer(b"".join(p.raw for p in packs), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
        pack_lengths=np.array([lengths[p] for p in packs], dtype=np.uint64),
        frame_packs=np.array([packs[places[n].pack] for n in order], dtype=np.uint32),
        frame_kinds=np.array([f.kind for f in frames], dtype=np.uint8),
        frame_offsets=np.array([f.offset for f in frames], dtype=np.uint64),
        frame_lengths=np.array([f.length for f in frames], dtype=np.uint32),
        frame_plain_lengths=np.array([f.plain_length for f in frames], dtype=np.uint32),
        frame_digests=np.frombuffer(b"".join(f.digest for f in frames), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
        chunk_frames=position[frame_of_chunk].astype(np.uint32),
        chunk_offsets=chunk_offsets.astype(np.uint32),
    )

"""Confirming a placement: that the packs hold each chunk where it says, by their own tables, without reading frames.

A table is named by its digest, so what it lists is what the pack's writer stored. The index, from which placements are made,
is only a hint.
"""

from __future__ import annotations

from contextlib import closing

import numpy as np

from pacstore.document import Numbers, starts
from pacstore.durable import wrapped
from pacstore.errors import Corrupt
from pacstore.manifest import Manifest
from pacstore.pack import Table, read_table
from pacstore.placement import Placement
from pacstore.storage import ObjectKind, ObjectStorage, object_path

_OFFSET_BITS = 22
"""More than an offset inside a frame needs; (frame offset, chunk offset) fits into one integer."""


def confirm(placement: Placement, manifest: Manifest, storage: ObjectStorage) -> None:
    """Raise Corrupt or NotFound, naming the pack, unless every chunk of `manifest` is where `placement` says.

    Reads the tables of the packs only; whether the frames are undamaged is another question.
    """
    frames = placement.chunk_frames.astype(np.int64)
    packs_of_chunks = placement.frame_packs.astype(np.int64)[frames]
    order = np.argsort(packs_of_chunks, kind="stable")
    bounds = np.searchsorted(packs_of_chunks[order], np.arange(len(placement.pack_ids) + 1))
    for number in range(len(placement.pack_ids)):
        pack = placement.pack(number)
        place = object_path(ObjectKind.PACK, pack)
        with closing(storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
            table = read_table(file, place=place)
        if table.id != pack or table.pack_length != int(placement.pack_lengths[number]):
            raise Corrupt("is not the pack that the placement names", place=place, hint="run: pacball store check")
        _confirm_frames(placement, np.flatnonzero(placement.frame_packs == number), table, place)
        _confirm_chunks(placement, manifest, order[bounds[number] : bounds[number + 1]], table, place)


def _confirm_frames(placement: Placement, frames: Numbers, table: Table, place: str) -> None:
    at = np.searchsorted(table.offsets[:-1], placement.frame_offsets[frames].astype(np.int64))
    at = np.minimum(at, len(table.lengths) - 1)
    same = (
        (table.offsets[at] == placement.frame_offsets[frames].astype(np.int64))
        & (table.lengths[at] == placement.frame_lengths[frames])
        & (table.kinds[at] == placement.frame_kinds[frames])
        & (table.plain_lengths[at] == placement.frame_plain_lengths[frames])
        & (table.digests[at] == placement.frame_digests[frames]).all(axis=1)
    )
    if not same.all():
        raise Corrupt("has other frames than the index says", place=place, hint="run: pacball store reindex")


def _confirm_chunks(placement: Placement, manifest: Manifest, chunks: Numbers, table: Table, place: str) -> None:
    counts = np.diff(table.first_chunks)
    ends = starts(table.chunk_lengths)
    offsets = ends[:-1] - np.repeat(ends[table.first_chunks[:-1]], counts)
    keys = (np.repeat(table.offsets[:-1], counts) << _OFFSET_BITS) | offsets
    frames = placement.chunk_frames[chunks]
    begins = placement.frame_offsets[frames].astype(np.int64)
    wanted = (begins << _OFFSET_BITS) | placement.chunk_offsets[chunks].astype(np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    same = (
        (keys[at] == wanted)
        & (table.chunk_lengths[at] == manifest.chunk_lengths[chunks])
        & (table.chunk_ids[at] == manifest.chunk_ids[chunks]).all(axis=1)
    )
    if not same.all():
        raise Corrupt("has other chunks than the index says", place=place, hint="run: pacball store reindex")

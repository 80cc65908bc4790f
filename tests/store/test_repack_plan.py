"""Which packs are worth repacking, and what goes where: numbers only."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pacstore.digest import Digest
from pacstore.limits import LIMITS, PackSizes
from pacstore.repack.plan import Frames, PackUse, cut, mostly_dead


def use(length, live, reason="", *, name="x"):
    return PackUse(Digest.of(name.encode()), length, live, reason)


def numbers(*values):
    return np.array(values, dtype=np.int64)


def test_a_pack_is_repacked_at_the_share_and_below_it_but_not_one_that_is_wholly_dead():
    chosen, left = mostly_dead([use(100, live) for live in (0, 1, 49, 50, 51, 100)], 0.5)
    assert [one.live_bytes for one in chosen] == [1, 49, 50]
    assert left == []
    assert mostly_dead([use(100, 1)], 0.0) == ([], [])


def test_a_pack_that_must_stay_is_told_only_if_it_would_be_repacked_otherwise():
    kept, alive = use(100, 10, "pinned by rucio"), use(100, 90, "pinned by rucio")
    assert mostly_dead([kept, alive], 0.5) == ([], [kept])
    assert kept.dead_bytes == 90


def test_what_dies_together_lies_together_and_files_keep_their_order():
    frames = Frames(numbers(0, 0, 1, 1, 1), numbers(8, 50, 8, 20, 30), numbers(1, 2, 3, 4, 5), numbers(2, 0, 0, 2, 1))
    assert frames.ordered().lengths.tolist() == [2, 3, 5, 1, 4]


def test_nothing_to_move_makes_no_pack():
    assert list(cut(numbers(), numbers(), PackSizes())) == []


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 4096)), max_size=200), st.integers(1, 1000))
def test_every_frame_goes_into_one_pack_in_order_and_packs_are_full_but_the_last(rows, pack_bytes):
    lengths, chunks = (np.array([row[n] for row in rows], dtype=np.int64) for n in (0, 1))
    parts = list(cut(lengths, chunks, PackSizes(pack_bytes=pack_bytes)))
    assert [row for part in parts for row in part] == list(range(len(rows)))
    for part in parts:
        inner = slice(part.start, part.stop - 1)
        assert lengths[inner].sum() < pack_bytes
        assert chunks[inner].sum() < 64 * 1024
        assert len(part) <= LIMITS.pack_frames
    for part in parts[:-1]:
        whole = slice(part.start, part.stop)
        assert lengths[whole].sum() >= pack_bytes or chunks[whole].sum() >= 64 * 1024

"""Several good mirrors: work is shared by speed, bounded in bytes, and never waits for the slowest."""

from __future__ import annotations

import contextlib
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from pacmirror.limits import LIST_LIMITS, ClientLimits, MirrorLimits
from pacmirror.mirrors import MirrorList
from pacmirror.source import HttpSource
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable, Untrusted
from pacstore.source import Answerable, Condition, Pace, PackRange, Source, Surveyed
from tests.mirror import mischief
from tests.mirror.mischief import of_packs, serving

if TYPE_CHECKING:
    CONFORMS: type[Source] = MirrorList

MIB = 1 << 20
PACK = Digest(bytes(32))
PATH = f"packs/00/{PACK}"
DATA = bytes(range(256)) * 4096 * 12
FILES = {PATH: DATA, "store.json": b"{}"}


def join(*mirrors, limits=None, **more):
    return MirrorList([HttpSource(mirror.url, limits=LIST_LIMITS) for mirror in mirrors], limits=limits, **more)


def cut(source, most=MIB):
    """Ranges of the pack, as long as the source would have them."""
    at = 0
    while at < len(DATA):
        length = min(source.range_bytes(), most, len(DATA) - at)
        yield PackRange(PACK, at, length)
        at += length


def check(arrived):
    got = sorted(arrived, key=lambda one: one[0].offset)
    assert b"".join(bytes(data) for _, data in got) == DATA


def test_it_is_all_that_a_source_of_several_parts_may_be():
    with serving(FILES) as mirror, join(mirror) as source:
        assert isinstance(source, Surveyed)
        assert isinstance(source, Pace)
        assert isinstance(source, Answerable)
        assert source.name == mirror.url
        assert source.states()[0].state is Condition.UNUSED
        check(source.ranges(cut(source)))
        assert source.states()[0].state is Condition.GOOD
        assert source.traffic.bytes_downloaded == len(DATA)


def test_no_source_and_one_twice():
    with pytest.raises(Refused, match="no source is named"):
        MirrorList([])
    with serving(FILES) as mirror, pytest.raises(Refused, match="twice"):
        join(mirror, mirror)


def test_a_faster_mirror_is_given_more():
    with (
        serving(FILES, bytes_per_second=1.5 * MIB) as slow,
        serving(FILES, bytes_per_second=8 * MIB) as fast,
        join(slow, fast) as source,
    ):
        check(source.ranges(cut(source)))
        of_slow, of_fast = source.states()
    assert of_fast.bytes_downloaded > 2 * of_slow.bytes_downloaded
    assert of_slow.bytes_downloaded > 512 * 1024
    assert not of_slow.is_bad
    assert of_fast.bytes_per_second > of_slow.bytes_per_second > 0


def test_equal_mirrors_share_equally():
    with contextlib.ExitStack() as stack:
        mirrors = [stack.enter_context(serving(FILES, bytes_per_second=4 * MIB)) for _ in range(3)]
        source = stack.enter_context(join(*mirrors))
        check(source.ranges(cut(source, most=512 * 1024)))
        shares = [one.bytes_downloaded for one in source.states()]
    assert min(shares) > 0.15 * sum(shares)
    assert sum(shares) < 1.2 * len(DATA)


def test_a_slow_last_range_is_not_waited_for():
    with (
        serving(FILES, bytes_per_second=20_000) as slow,
        serving(FILES, bytes_per_second=20 * MIB) as fast,
        join(slow, fast) as source,
    ):
        began = time.monotonic()
        check(source.ranges(cut(source)))
        assert time.monotonic() - began < 30  # alone, its first range would take it a minute
        traffic = source.traffic.bytes_downloaded
    assert traffic < len(DATA) + 2 * MIB


def test_a_fast_mirror_that_falls_silent_does_not_hold_up_the_others():
    """All that may be under way is with it then."""
    limits = MirrorLimits(flight_bytes=4 * MIB, quiet_seconds=0.3, stalled_seconds=30.0)
    silent = of_packs(mischief.stall_at(0.1), first=3)
    with (
        serving(FILES, silent) as one,
        serving(FILES, bytes_per_second=4 * MIB) as two,
        join(one, two, limits=limits) as source,
    ):
        check(source.ranges(cut(source)))
        first, second = source.states()
    assert first.state is Condition.FAILING
    assert "sends nothing" in first.error
    assert second.bytes_downloaded > 4 * MIB


def test_ranges_grow_with_the_speed_of_the_line():
    with serving(FILES) as mirror, HttpSource(mirror.url) as source:
        fast = [one.length for one, _ in source.ranges(cut(source, most=8 * MIB))]
    assert fast[0] == MIB
    assert max(fast) >= 4 * MIB
    with serving(FILES, bytes_per_second=300_000) as mirror, HttpSource(mirror.url) as source:
        arriving = source.ranges(cut(source))
        next(arriving)
        assert source.range_bytes() < MIB
        arriving.close()
        asked = [request.length for request in mirror.packs_asked()]
    assert sum(asked[1:]) < 2 * MIB  # so little is lost when it is killed now


@pytest.mark.parametrize("count", [1, 5, 20])
def test_what_nobody_takes_is_bounded(count):
    limits = MirrorLimits(flight_bytes=6 * MIB, most_range_bytes=MIB)
    with contextlib.ExitStack() as stack:
        mirrors = [stack.enter_context(serving(FILES)) for _ in range(count)]
        source = stack.enter_context(join(*mirrors, limits=limits))
        arriving = source.ranges(PackRange(PACK, n * 256 * 1024, 256 * 1024) for n in range(48))
        next(arriving)
        time.sleep(0.3)
        asked = sum(request.length for mirror in mirrors for request in mirror.packs_asked())
        assert asked <= 7 * MIB
        arriving.close()


def test_memory_is_bounded_whatever_the_length():
    with serving(FILES) as one, serving(FILES) as two, join(one, two) as source:
        wanted = (PackRange(PACK, n % 11 * MIB, MIB) for n in range(150))
        tracemalloc.start()
        try:
            for _, data in source.ranges(wanted):
                assert len(data) == MIB
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()


def test_a_line_that_breaks_off_again_and_again_continues_where_it_was():
    def breaks(handler, request):
        handler.answer(request, request.body[:150_000])
        handler.close_connection = True

    limits = ClientLimits(attempts=2, backoff_seconds=0.01)
    with serving(FILES, of_packs(breaks)) as mirror, HttpSource(mirror.url, limits=limits) as source:
        check(source.ranges([PackRange(PACK, 0, 2 * MIB), PackRange(PACK, 2 * MIB, len(DATA) - 2 * MIB)]))
        retries = source.traffic.retries
    assert mirror.bytes_sent < 1.05 * len(DATA)
    assert retries > 50
    assert len({request.offset for request in mirror.packs_asked()}) == len(mirror.packs_asked())


def test_a_document_that_breaks_off_continues_too():
    def breaks(handler, request):
        handler.answer(request, request.body[:100_000])
        handler.close_connection = True

    files = {"manifests/00/x": DATA[:MIB]}
    limits = ClientLimits(attempts=2, backoff_seconds=0.01)
    with serving(files, lambda _: breaks) as mirror, HttpSource(mirror.url, limits=limits) as source:
        assert source.read("manifests/00/x", limit=MIB) == DATA[:MIB]
    assert mirror.bytes_sent == MIB


def test_what_must_be_fresh_begins_anew():
    def breaks(handler, request):
        handler.answer(request, request.body[:100_000])
        handler.close_connection = True

    files = {"catalog/timestamp.json": DATA[:MIB]}
    limits = ClientLimits(attempts=2, backoff_seconds=0.01)
    with serving(files, lambda _: breaks) as mirror, HttpSource(mirror.url, limits=limits) as source:
        with pytest.raises(Unavailable, match="2 times"):
            source.read("catalog/timestamp.json", limit=MIB)
        assert [request.offset for request in mirror.requests] == [0, 0]


def test_a_range_that_is_no_line_of_a_good_size_ends():
    """A server that gives a few bytes each time does not make progress."""

    def crumbs(handler, request):
        handler.answer(request, request.body[:1000])
        handler.close_connection = True

    limits = ClientLimits(attempts=3, backoff_seconds=0.01)
    with serving(FILES, of_packs(crumbs)) as mirror, HttpSource(mirror.url, limits=limits) as source:
        with pytest.raises(Unavailable, match="3 times"):
            list(source.ranges([PackRange(PACK, 0, MIB)]))
        assert len(mirror.requests) == 3


def test_a_quiet_mirror_does_not_keep_a_document(tmp_path):
    with (
        serving(FILES, lambda _: mischief.stall_at(0)) as quiet,
        serving(FILES) as good,
        join(quiet, good, limits=MirrorLimits(quiet_seconds=0.2)) as source,
    ):
        assert source.read("store.json", limit=100) == b"{}"


def test_many_quiet_mirrors_do_not_either():
    with contextlib.ExitStack() as stack:
        quiet = [stack.enter_context(serving(FILES, lambda _: mischief.stall_at(0))) for _ in range(19)]
        good = stack.enter_context(serving(FILES))
        source = stack.enter_context(join(*quiet, good, limits=MirrorLimits(quiet_seconds=0.1)))
        began = time.monotonic()
        assert source.read("store.json", limit=100) == b"{}"
        assert time.monotonic() - began < 20


def test_documents_are_absent_only_if_all_say_so():
    with serving({}) as one, serving({}) as two, join(one, two) as source, pytest.raises(NotFound):
        source.read("store.json", limit=100)
    failing = {"store.json": b"{}"}
    with (
        serving({}) as one,
        serving(failing, lambda _: mischief.saying(500)) as two,
        join(one, two, limits=MirrorLimits(attempts=2, pause_seconds=0.01)) as source,
        pytest.raises(Unavailable, match="none of 2 sources"),
    ):
        source.read("store.json", limit=100)


def test_blame_goes_to_the_giver():
    with serving(FILES) as one, serving({}) as two, join(two, one) as source:
        source.read("store.json", limit=100)
        assert source.blame("store.json", Corrupt("is wrong")) == one.url
        assert [state.state for state in source.states()] == [Condition.GOOD, Condition.WRONG]
        assert source.blame("never given", Corrupt("is wrong")) == source.name
        assert source.name == f"{two.url} and 1 more"


def test_a_source_is_examined_before_it_is_used():
    examined = []

    def examine(source):
        examined.append(source.name)
        if source.read("store.json", limit=100) != b"{}":
            raise Untrusted("has another root", place=source.name)

    other = {**FILES, "store.json": b"other"}
    with (
        serving(other) as stranger,
        serving(FILES) as good,
        join(stranger, good, examine=examine) as source,
    ):
        source.examine()
        check(source.ranges(cut(source)))
        bad, fine = source.states()
        assert [single.name for single in source.singles()] == [good.url, stranger.url]
    assert sorted(examined) == sorted([good.url, stranger.url])
    assert (bad.state, bad.bytes_downloaded) == (Condition.REFUSED, 5)
    assert "another root" in bad.error
    assert not fine.is_bad
    assert stranger.packs_asked() == []


def test_a_source_that_comes_back_is_examined_then():
    def examine(source):
        if source.read("store.json", limit=100) != b"{}":
            raise Untrusted("has another root", place=source.name)

    down = True
    limits = MirrorLimits(pause_seconds=0.05, pause_max_seconds=0.1)
    fault = lambda _: mischief.die if down else None  # noqa: E731
    with (
        serving({**FILES, "store.json": b"other"}, fault) as stranger,
        serving(FILES, bytes_per_second=8 * MIB) as good,
        join(stranger, good, examine=examine, limits=limits) as source,
    ):
        source.examine()
        down = False
        check(source.ranges(cut(source)))
        bad, _ = source.states()
    assert bad.state is Condition.REFUSED
    assert stranger.packs_asked() == []


def test_threads_share_a_list():
    with serving(FILES) as one, serving(FILES) as two, join(one, two) as source:
        errors = []

        def work():
            try:
                check(source.ranges(cut(source)))
            except BaseException as error:  # noqa: BLE001 - the assertion below shows it
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


def test_an_iterator_may_be_left_early_and_a_list_closed():
    with serving(FILES) as one, serving(FILES) as two:
        source = join(one, two)
        for _ in range(5):
            next(source.ranges(cut(source)))
        arriving = source.ranges(cut(source))
        next(arriving)
        source.close()
        source.close()
        with pytest.raises(Unavailable, match="closed"):
            list(arriving)


def test_some_may_be_asked_for_files_alone_and_others_for_packs_alone():
    """As Rucio's storage elements, which have packs, and bundles, which have documents."""
    examined = []
    with (
        serving({"store.json": b"{}"}) as documents,
        serving({PATH: DATA, "store.json": b"other"}) as packs,
        join(
            packs, documents, files_only={documents.url}, packs_only={packs.url},
            examine=lambda source: examined.append(source.name),
        ) as source,
    ):  # fmt: skip
        source.examine(but={documents.url})
        assert examined == []
        check(source.ranges(cut(source)))
        assert source.read("store.json", limit=10) == b"{}"
        assert source.tail(PACK, length=10).pack_length == len(DATA)
        assert examined == [documents.url]
        assert not [request for request in documents.requests if request.path == PATH]
        assert not [request for request in packs.requests if request.path != PATH]
        assert [single.name for single in source.singles()] == [documents.url]
        assert [single.name for single in source.carriers()] == [packs.url]
        [carrier] = source.carriers()
        assert carrier.blame(PackRange(PACK, 0, 1), Corrupt("is wrong", place="x")) == packs.url
        assert source.states()[0].state is Condition.WRONG

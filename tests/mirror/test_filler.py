"""Filling packs from upstreams: each frame once for all who wait, never wrong, never absent because of an error."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from pacmirror.limits import LIST_LIMITS, UPSTREAM_LIMITS, CacheLimits
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Unavailable
from pacstore.pack import HEADER, ending
from pacstore.partial import PartialPacks
from pacstore.source import Condition
from pacstore.store import Store
from tests.mirror import mischief
from tests.mirror.mirrors import files_of, filling_store, run, until
from tests.mirror.mischief import serving, waiting_for
from tests.store.packs import noise_pack

PACK = noise_pack(40, 30_000)
OTHER = noise_pack(5, 30_000, seed="other")
FILES = files_of(PACK, OTHER)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "mirror")


def public(store, pack=PACK):
    return (store.public / pack.path).read_bytes()


def test_a_whole_pack_becomes_public_and_durable(store):
    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id, length=len(PACK.data))
            assert public(store) == PACK.data
            await filler.fetch(PACK.id)
            assert filler.status()["packs_completed"] == 1

    with serving(FILES) as origin:
        run(work)
    assert origin.bytes_sent < 1.05 * len(PACK.data)


def test_many_clients_are_one_fetch_distribution_3969(store):
    """distribution#3969: N clients were N pulls."""

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await asyncio.gather(*(filler.fetch(PACK.id, urgent=True) for _ in range(50)))

    with serving(FILES) as origin:
        run(work)
    assert public(store) == PACK.data
    assert origin.bytes_sent < 1.05 * len(PACK.data)


def test_whoever_leaves_stops_nothing_zot_3359(store):
    """zot#3359: clients timed out, and their leaving cancelled the fetch, so that it never came to an end."""

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            task = asyncio.create_task(filler.fetch(PACK.id, urgent=True))
            await until(lambda: filler.status()["fetched_bytes"])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: filler.status()["packs_completed"])

    with serving(FILES, bytes_per_second=4e6) as origin:
        run(work)
    assert public(store) == PACK.data


def test_the_first_frame_comes_long_before_the_pack_zot_2416(store):
    """zot#2416: the whole image was fetched before its first byte was passed on."""

    async def work():
        async with filling_store(store, [origin.url]) as filler, filler.filling(PACK.id) as filling:
            filler.want(filling, range(40), urgent=True)
            await filler.wait(filling, 0, urgent=True)
            return origin.bytes_sent

    with serving(FILES, bytes_per_second=2e6) as origin:
        sent = run(work)
    assert sent < 8 * 30_000


def test_a_pack_of_which_some_is_here_fetches_the_rest(store):
    with PartialPacks(store.private, store.storage).begin(PACK.id, PACK.table) as partial:
        for number in range(0, 40, 2):
            partial.write(number, PACK.frame(number))

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES) as origin:
        run(work)
    assert public(store) == PACK.data
    assert origin.bytes_sent < 0.55 * len(PACK.data)


def test_single_frames_come_alone_and_stay(store):
    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id, frames=range(7, 9), urgent=True)

    with serving(FILES) as origin:
        run(work)
        run(work)
    assert [one.offset for one in origin.packs_asked()][1:] == [PACK.frames.begin(7), PACK.frames.begin(8)]
    with PartialPacks(store.private, store.storage).open(PACK.id) as partial:
        assert partial.missing(range(40)) == [number for number in range(40) if number not in (7, 8, 38, 39)]


def test_what_came_before_a_line_fell_silent_is_not_asked_for_again(store):
    """The longest ranges break off before their end; all frames that came whole before that are kept."""
    stalls = mischief.stall_at(1)

    def fault(request):
        return stalls if request.path == PACK.path and len(request.body) > 10 * 30_000 else None

    async def work():
        async with filling_store(store, [origin.url], each=replace(LIST_LIMITS, stall_seconds=1)) as filler:
            await filler.fetch(PACK.id)
            assert filler.status()["fetches_failed"] == 0

    with serving(FILES, fault) as origin:
        run(work)
    assert public(store) == PACK.data
    longest = max(request.length for request in origin.packs_asked())
    assert longest > 10 * 30_000
    assert origin.bytes_sent < len(PACK.data) + 0.5 * longest


def test_the_rest_of_what_came_from_a_silent_source_comes_from_another(store):
    silent = mischief.of_packs(mischief.stall_at(1), first=1)

    async def work():
        async with filling_store(store, [one.url, other.url]) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES, silent) as one, serving(FILES) as other:
        run(work)
    assert public(store) == PACK.data
    assert one.bytes_sent > 10 * 30_000
    assert one.bytes_sent + other.bytes_sent < 1.3 * len(PACK.data)


def test_a_beginning_with_a_wrong_frame_is_kept_up_to_that(store):
    def lie(handler, request):
        at = len(request.body) // 2
        handler.answer(request, request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 : -1])
        handler.hold()

    def fault(request):
        return lie if request.path == PACK.path and len(request.body) > 10 * 30_000 else None

    async def work():
        async with filling_store(store, [origin.url], each=replace(LIST_LIMITS, stall_seconds=1)) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES, fault) as origin:
        run(work)
    assert public(store) == PACK.data
    assert origin.bytes_sent < 2 * len(PACK.data)


def test_where_nothing_comes_all_are_told_after_the_same_attempts(store):
    """What fails together is no news of a source, and yet an attempt of each: nobody waits for the attempts of all others."""
    packs = [noise_pack(3, 30_000, seed=f"silent {number}") for number in range(8)]

    async def fetch(filler, pack):
        with pytest.raises(Unavailable):
            await filler.fetch(pack.id, urgent=True)

    async def work():
        async with filling_store(
            store, [origin.url], each=replace(LIST_LIMITS, stall_seconds=0.5), together=UPSTREAM_LIMITS
        ) as filler:
            await asyncio.gather(*(fetch(filler, pack) for pack in packs))

    def fault(request):
        is_table = request.offset + request.length == request.total
        return None if is_table else mischief.stall_at(0)

    with serving(files_of(*packs), fault) as origin:
        run(work)
    held = [request for request in origin.packs_asked() if request.offset + request.length < request.total]
    assert len(held) <= 3 * 8


def test_absence_is_definite_and_is_not_asked_for_again_at_once(store):
    async def work():
        async with filling_store(store, [origin.url]) as filler:
            for _ in range(5):
                with pytest.raises(NotFound):
                    await filler.fetch(PACK.id, urgent=True)

    with serving(files_of(OTHER)) as origin:
        run(work)
    assert len(origin.packs_asked()) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 401, 403, 400, 302])
def test_an_error_is_never_absence_cvmfs_4270(store, status):
    """cvmfs#4270, ncps#1299: errors were taken for absence."""

    def fault(handler, request):
        handler.header(status, {"Content-Length": 0, "Location": "/"})

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            with pytest.raises(Unavailable):
                await filler.fetch(PACK.id, urgent=True)

    with serving(FILES, lambda request: fault) as origin:
        run(work)


def test_one_upstream_that_fails_beside_one_without_the_pack_is_no_absence(store):
    async def work():
        async with filling_store(store, [empty.url, broken.url]) as filler:
            with pytest.raises(Unavailable):
                await filler.fetch(PACK.id, urgent=True)

    def fault(handler, request):
        handler.header(500, {"Content-Length": 0})

    with serving(files_of(OTHER)) as empty, serving(FILES, lambda request: fault) as broken:
        run(work)


def test_a_dead_upstream_is_told_to_all_at_once_and_not_stormed(store):
    async def work():
        async with filling_store(store, [url]) as filler:
            asked = [filler.fetch(noise_pack(1, seed=str(number)).id, urgent=True) for number in range(200)]
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, Unavailable), error
            assert filler.status()["fetches_failed"] < 30

    with serving(FILES) as origin:
        url = origin.url
    run(work)


def test_wrong_bytes_are_never_kept_and_another_upstream_gives_the_right_ones(store):
    async def work():
        async with filling_store(store, [liar.url, origin.url]) as filler:
            await filler.fetch(PACK.id)
            assert filler.status()["verify_failures"] > 0

    with serving(FILES, mischief.of_packs(mischief.flip)) as liar, serving(FILES) as origin:
        run(work)
    assert public(store) == PACK.data


def test_wrong_bytes_alone_are_told_and_not_kept(store):
    async def work():
        async with filling_store(store, [liar.url]) as filler:
            with pytest.raises(Corrupt):
                await filler.fetch(PACK.id)

    with serving(FILES, mischief.of_packs(mischief.flip)) as liar:
        run(work)
    assert not (store.public / PACK.path).exists()


def test_an_early_end_is_not_the_end_ncps_1155(store):
    """ncps#1155: an early end of a body was committed as complete."""

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES, mischief.of_packs(mischief.truncate, first=3)) as origin:
        run(work)
    assert public(store) == PACK.data


def test_a_pack_that_is_removed_while_it_is_filled_is_begun_anew(store):
    """A quota takes what is used least, whoever is at work at it; that is no fault of the disk."""
    partials = PartialPacks(store.private, store.storage)

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            task = asyncio.create_task(filler.fetch(PACK.id))
            await until(lambda: filler.status()["fetched_bytes"])
            partials.drop(PACK.id)
            await task
            assert filler.status()["disk"] == ""

    with serving(FILES, bytes_per_second=3e6) as origin:
        run(work)
    assert public(store) == PACK.data


def test_a_damaged_pack_is_withdrawn_and_only_its_bad_frame_is_fetched_cvmfs_3878(store):
    """cvmfs#3878: a replica trusted an object because its name existed."""
    path = store.public / PACK.path

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id)
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.seek(PACK.frames.begin(17) + 5)
                file.write(b"rot")
            sent = origin.bytes_sent
            filler.partials.demote(PACK.id)
            assert not path.exists()
            await filler.fetch(PACK.id)
            return origin.bytes_sent - sent

    with serving(FILES) as origin:
        assert run(work) == 30_000
    assert public(store) == PACK.data


def test_too_many_packs_at_once_are_told_so(store):
    many = [noise_pack(2, 100_000, seed=f"many {number}") for number in range(6)]

    async def work():
        async with filling_store(store, [origin.url], limits=CacheLimits(packs=3)) as filler:
            asked = [filler.fetch(pack.id, urgent=True) for pack in many]
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert [str(one) for one in told if one] == [
                "too many packs are asked for at once (try again in a moment)"
            ] * 3
            for pack in many:
                await filler.fetch(pack.id)

    with serving(files_of(*many)) as origin:
        run(work)


def test_the_daemon_stops_while_packs_are_filled(store):
    """What waits is told; what was fetched is not fetched again."""

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            task = asyncio.create_task(filler.fetch(PACK.id))
            await until(lambda: filler.status()["fetched_bytes"])
        with pytest.raises(Unavailable, match=r"the daemon stops|was closed"):
            await task

    async def go_on():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES, bytes_per_second=1e6) as origin:
        run(work)
        run(go_on)
    assert origin.bytes_sent < 1.9 * len(PACK.data)
    assert public(store) == PACK.data


def changed(at, data):
    """A fault: these bytes in place of those so far before the end of a pack."""

    def fault(handler, request):
        end = len(request.body) - at
        handler.answer(request, request.body[:end] + data + request.body[end + len(data) :])

    return fault


TABLE_AT = len(PACK.data) - PACK.frames.begin(40)
LIES = {
    "a magic that is none": changed(4, b"\0"),
    "a table longer than the pack": changed(16, (1 << 40).to_bytes(8, "little")),
    "a table over the limit": changed(16, (33 << 20).to_bytes(8, "little")),
    "an empty table": changed(16, bytes(8)),
    "another table": changed(TABLE_AT - 40, b"\xff"),
    "not even a header": changed(TABLE_AT, b"XXXX"),
    "too short for a pack": lambda handler, request: (
        handler.header(206, {"Content-Length": 5, "Content-Range": "bytes 0-4/5"}) or handler.send(b"hello")
    ),
    "longer than any pack": lambda handler, request: (
        handler.header(
            206,
            {
                "Content-Length": len(request.body),
                "Content-Range": f"bytes {(1 << 50) - len(request.body)}-{(1 << 50) - 1}/{1 << 50}",
            },
        )
        or handler.send(request.body)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_whoever_lies_about_a_table_is_left_alone_and_another_is_asked(store, lie):
    async def work():
        async with filling_store(store, [liar.url, origin.url]) as filler:
            await filler.fetch(PACK.id)
            states = [one.state for one in filler._upstream.mirrors.states()]
            assert states == [Condition.WRONG, Condition.GOOD]

    with serving(FILES, mischief.of_packs(LIES[lie])) as liar, serving(FILES) as origin:
        run(work)
    assert public(store) == PACK.data


@pytest.mark.parametrize("lie", LIES)
def test_lies_about_a_table_alone_are_told_and_cost_little(store, lie):
    async def work():
        async with filling_store(store, [liar.url]) as filler:
            with pytest.raises(Corrupt):
                await filler.fetch(PACK.id)
            assert list(filler.partials.digests()) == []

    with serving(FILES, mischief.of_packs(LIES[lie])) as liar:
        run(work)
        assert len(liar.packs_asked()) <= CacheLimits().wrong_times


def test_a_table_longer_than_what_is_asked_for_first_comes_from_one_source(store):
    many = noise_pack(30, 1_000, chunks=200)

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            await filler.fetch(many.id)

    with serving(files_of(many)) as origin:
        run(work)
    assert len(many.table) > 64 * 1024
    assert public(store, many) == many.data


def test_what_is_no_table_but_has_the_right_digest_is_no_pack(store):
    """Somebody asks for a pack that somebody else made of nonsense."""
    nonsense = b"PBTABL01 but nothing else"
    data = HEADER + ending(nonsense)
    pack = Digest.of(nonsense)

    async def work():
        async with filling_store(store, [origin.url]) as filler:
            with pytest.raises(Corrupt):
                await filler.fetch(pack)

    with serving({f"packs/{pack.hex[:2]}/{pack.hex}": data}) as origin:
        run(work)


def test_who_asks_for_many_packs_keeps_nobody_else_waiting(store):
    many = [noise_pack(1, 1000, seed=str(number)) for number in range(5)]
    go_on = threading.Event()
    patient = replace(LIST_LIMITS, stall_seconds=60, answer_seconds=60)

    async def work():
        async with filling_store(store, [origin.url], limits=CacheLimits(openings=1), each=patient) as filler:

            async def ask(pack, who):
                async with filler.filling(pack.id, who=who):
                    pass

            asked = [asyncio.create_task(ask(pack, "192.0.2.1")) for pack in many]
            await until(lambda: origin.requests)
            asked.append(asyncio.create_task(ask(PACK, "192.0.2.2")))
            # Until it waits for its turn, which a look at the disk comes before.
            await until(lambda: len(filler._opener._turns._waiting) == 2)
            go_on.set()
            await asyncio.gather(*asked)

    with serving(files_of(PACK, *many), waiting_for(go_on)) as origin:
        run(work)
    assert [request.path for request in origin.requests].index(PACK.path) <= 2

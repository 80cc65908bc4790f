"""Room: bounded, and whoever came first is first."""

from __future__ import annotations

import asyncio

from pacmirror.room import Room, SharedRoom
from tests.mirror.mirrors import run


def test_who_wants_much_is_not_passed_by_for_ever():
    order = []

    async def work():
        room = Room(10, 100)

        async def use(name, length, turns):
            async with room.take(length):
                order.append(name)
                for _ in range(turns):
                    await asyncio.sleep(0)

        small = [asyncio.create_task(use(f"first {number}", 5, 3 + number)) for number in range(2)]
        await asyncio.sleep(0)
        large = asyncio.create_task(use("large", 10, 1))
        await asyncio.sleep(0)
        later = [asyncio.create_task(use(f"later {number}", 5, 3)) for number in range(4)]
        await asyncio.gather(*small, large, *later)

    run(work)
    assert order[:3] == ["first 0", "first 1", "large"]
    assert len(order) == 7


def test_who_stops_waiting_is_passed_by():
    async def work():
        room = Room(10, 100)
        async with room.take(10):
            waiting = [asyncio.create_task(room.take(length).__aenter__()) for length in (10, 5)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        await waiting[1]

    run(work)


def test_who_wants_more_than_a_share_does_not_stand_before_others():
    order = []

    async def work():
        room, go = SharedRoom(10, 100, share_bytes=5, share_count=2), asyncio.Event()

        async def use(who, length):
            async with room.take(who, length):
                order.append(who)
                await go.wait()

        all_of_it = [("one", 3), ("one", 3), ("one", 8), ("two", 5), ("three", 2)]
        using = [asyncio.create_task(use(who, length)) for who, length in all_of_it]
        for _ in range(20):
            await asyncio.sleep(0)
        assert order == ["one", "two", "three"]
        go.set()
        await asyncio.gather(*using)
        assert room._of == {}

    run(work)
    assert sorted(order) == sorted(who for who, _ in [("one", 3), ("one", 3), ("one", 8), ("two", 5), ("three", 2)])

"""Turns: who wants much keeps nobody else waiting, and no place is lost."""

from __future__ import annotations

import asyncio
import contextlib

from pacmirror.cache.turns import Turns
from tests.mirror.mirrors import run


def test_each_comes_by_turns_whoever_asked_first_and_most():
    order = []

    async def work():
        turns = Turns(1)

        async def take(who, number):
            async with turns.take(who):
                order.append((who, number))
                await asyncio.sleep(0)

        many = [("a", number) for number in range(4)]
        await asyncio.gather(*(take(*one) for one in (*many, ("b", 0), ("b", 1), ("c", 0))))

    run(work)
    assert order == [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("a", 2), ("b", 1), ("a", 3)]


def test_who_stops_waiting_takes_no_place_and_gives_back_one_that_came_just_then():
    async def work():
        turns = Turns(1)

        async def take():
            async with turns.take("x"):
                await asyncio.sleep(0)

        async with turns.take("first"):
            waiting = [asyncio.create_task(take()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()  # its turn has come, and it does not know it yet
        for task in waiting:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await take()

    run(work)

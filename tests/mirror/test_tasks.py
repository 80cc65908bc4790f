from __future__ import annotations

import asyncio

from pacmirror.tasks import keep_doing


def test_what_is_done_again_and_again_goes_on_after_an_unexpected_error(caplog):
    done = asyncio.Event()
    times = iter(range(10))

    async def work() -> None:
        if next(times) < 2:
            raise ZeroDivisionError("nobody has thought of it")
        done.set()

    async def live() -> None:
        task = asyncio.create_task(keep_doing(work, every_seconds=0.001, what="counting"))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(live())
    assert [record.message for record in caplog.records] == ["counting failed unexpectedly, and is tried again"] * 2
    assert "nobody has thought of it" in caplog.text

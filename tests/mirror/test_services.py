"""The parts of a daemon: the order in which they start and end, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import functools
import logging

import pytest

from pacmirror.service import Service, Services
from pacstore.errors import Refused


class Part(Service):
    """Writes down what is asked of it."""

    def __init__(self, name, calls, *, on_start=None, on_stop=None, ends=True):
        self._name, self._calls = name, calls
        self._on_start, self._on_stop, self._ends = on_start, on_stop, ends

    @property
    def name(self):
        return self._name

    async def start(self):
        self._calls.append(f"start {self.name}")
        if self._on_start:
            raise self._on_start

    def stop(self):
        self._calls.append(f"stop {self.name}")
        if self._on_stop:
            raise self._on_stop

    async def end(self):
        self._calls.append(f"end {self.name}")
        if not self._ends:
            await asyncio.Event().wait()

    def status(self):
        return {"of": self.name} if self.name != "c" else {}

    def warnings(self):
        return [f"look after {self.name}"]

    def unready(self):
        return "b is not here yet" if self.name == "b" else ""


def in_a_loop(test):
    """`test`, a coroutine function, run to its end in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


def parts(calls, **options):
    return Services([Part("a", calls), Part("b", calls, **options), Part("c", calls)], drain_seconds=0.1)


@in_a_loop
async def test_they_start_in_order_and_stop_and_end_in_the_opposite_one():
    calls = []
    services = parts(calls)
    await services.start()
    services.stop()
    await services.end()
    assert calls == ["start a", "start b", "start c", "stop c", "stop b", "stop a", "end c", "end b", "end a"]


@in_a_loop
async def test_if_one_cannot_start_those_before_it_end():
    calls = []
    with pytest.raises(Refused, match="no"):
        await parts(calls, on_start=Refused("no")).start()
    assert calls == ["start a", "start b", "stop b", "stop a", "end b", "end a"]


@in_a_loop
async def test_one_that_does_not_end_is_cut_off_and_the_others_end(caplog):
    calls = []
    services = parts(calls, ends=False)
    await services.start()
    await services.end()
    assert calls[-3:] == ["end c", "end b", "end a"]
    assert "b did not end in time" in caplog.text


@in_a_loop
async def test_one_that_fails_to_stop_keeps_no_other_from_it(caplog):
    calls = []
    services = parts(calls, on_stop=ValueError("bug"))
    await services.start()
    with caplog.at_level(logging.ERROR):
        services.stop()
    assert calls[-3:] == ["stop c", "stop b", "stop a"]
    assert "b could not be stopped" in caplog.text


@in_a_loop
async def test_sections_warnings_and_reasons_are_put_together():
    services = parts([])
    assert services.status() == {"a": {"of": "a"}, "b": {"of": "b"}}
    assert services.warnings() == [f"look after {name}" for name in "abc"]
    assert services.unready() == ["b is not here yet"]
    services.stop()
    assert services.unready() == ["the daemon is stopping"]

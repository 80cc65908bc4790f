"""The upstreams and peers of a mirror as one source: limits by the hour, failover, and what is told of each."""

from __future__ import annotations

import asyncio
import time

import pytest

from pacmirror.config import UpstreamConfig
from pacmirror.hours import RateHours
from pacmirror.limits import CacheLimits
from pacmirror.upstream import Upstream
from pacstore.errors import Refused, Unavailable
from pacstore.store import Store
from tests.mirror import mischief
from tests.mirror.mirrors import files_of, filling_store, run
from tests.mirror.mischief import serving
from tests.store.packs import noise_pack

PACK = noise_pack(30, 30_000)
FILES = files_of(PACK)


def at(clock: str) -> time.struct_time:
    return time.strptime(f"2026-11-25 {clock}", "%Y-%m-%d %H:%M")


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "mirror")


def test_upstreams_go_before_peers_and_only_they_have_the_catalog():
    upstream = Upstream(UpstreamConfig(urls=("http://a.invalid/", "http://b.invalid"), peers=("http://c.invalid",)))
    try:
        assert [one.name for one in upstream.mirrors.states()] == [f"http://{name}.invalid" for name in "abc"]
        assert [one.name for one in upstream.catalog_sources()] == ["http://a.invalid", "http://b.invalid"]
        assert [one["state"] for one in upstream.status()["sources"]] == ["unused"] * 3
        assert upstream.warnings() == []
    finally:
        upstream.mirrors.close()


@pytest.mark.parametrize("urls", [("http://a.invalid", "http://a.invalid/"), ("ftp://a.invalid",)])
def test_what_cannot_be_an_upstream_is_refused(urls):
    with pytest.raises(Refused):
        Upstream(UpstreamConfig(urls=urls))


def test_the_rate_follows_the_hours_of_the_day():
    hours = (RateHours(8 * 60, 18 * 60, 2_000_000), RateHours(22 * 60, 6 * 60, None), RateHours(18 * 60, 19 * 60, 0))
    for clock, rate, closed in (
        ("07:59", 500_000, False), ("08:00", 2_000_000, False), ("17:59", 2_000_000, False), ("18:00", 0, True),
        ("19:00", 500_000, False), ("23:00", None, False), ("05:59", None, False),
    ):  # fmt: skip
        config = UpstreamConfig(urls=("http://a.invalid",), rate_bytes_per_second=500_000, hours=hours)
        upstream = Upstream(config, local_time=lambda clock=clock: at(clock))
        try:
            assert upstream.status()["rate_bytes_per_second"] == rate
            assert upstream.is_closed is closed
        finally:
            upstream.mirrors.close()


def test_at_hours_without_traffic_nothing_is_asked_and_nothing_is_absent(store):
    async def work():
        config = UpstreamConfig(urls=(origin.url,), hours=(RateHours(0, 0, 0),))
        async with filling_store(store, config) as filler:
            with pytest.raises(Unavailable, match="at this hour"):
                await filler.fetch(PACK.id, urgent=True)

    with serving(FILES) as origin:
        run(work)
        assert origin.requests == []


def test_the_rate_holds_for_all_together_distribution_4598(store):
    """distribution#4598: no cap of the bandwidth towards the upstream."""

    async def work():
        config = UpstreamConfig(urls=(one.url, other.url), rate_bytes_per_second=1_000_000)
        began = time.monotonic()
        async with filling_store(store, config) as filler:
            await filler.fetch(PACK.id)
        return time.monotonic() - began

    with serving(FILES) as one, serving(FILES) as other:
        assert run(work) > 0.5  # of 0.9 s; a quarter of a second is free


def test_work_is_shared_and_a_peer_steps_in(store):
    async def work():
        config = UpstreamConfig(urls=(slow.url,), peers=(peer.url,))
        async with filling_store(store, config, limits=CacheLimits(job_bytes=60_000)) as filler:
            await filler.fetch(PACK.id)

    with serving(FILES, bytes_per_second=1e6) as slow, serving(FILES, bytes_per_second=2e6) as peer:
        run(work)
    assert (store.public / PACK.path).read_bytes() == PACK.data
    assert min(slow.bytes_sent, peer.bytes_sent) > 0.1 * len(PACK.data)


def test_one_that_lies_is_left_alone_and_named(store):
    async def work():
        async with filling_store(store, [liar.url, good.url]) as filler:
            await filler.fetch(PACK.id)
            upstream = filler._upstream
            states = {one["name"]: one["state"] for one in upstream.status()["sources"]}
            assert states == {liar.url: "wrong", good.url: "good"}
            (warning,) = upstream.warnings()
            assert warning.startswith(f"the upstream {liar.url} is in quarantine: it gave wrong bytes: ")
            good_ones = {
                sample.labels["source"]: sample.value
                for family in upstream.metrics()
                for sample in family.samples
                if sample.name == "pacball_upstream_good"
            }
            assert good_ones == {liar.url: 0.0, good.url: 1.0}

    with serving(FILES, mischief.of_packs(mischief.flip)) as liar, serving(FILES) as good:
        run(work)
    assert (store.public / PACK.path).read_bytes() == PACK.data


def test_one_that_is_gone_is_passed_over(store):
    async def work():
        async with filling_store(store, [gone_url, good.url]) as filler:
            await asyncio.gather(*(filler.fetch(PACK.id, urgent=True) for _ in range(5)))

    with serving(FILES) as gone:
        gone_url = gone.url
    with serving(FILES) as good:
        run(work)
    assert (store.public / PACK.path).read_bytes() == PACK.data

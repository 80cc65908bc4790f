"""Origin, mirror and installers apart, with lines between them that are thin, or long, or fall silent, or end.

What passes is counted on the line itself, not by anybody who is tested.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, Site, wait_until
from tests.peers.network import PORT, network
from tests.peers.programs import program

pytestmark = pytest.mark.timeout(300)
SMALL, BIG = "Thin-1.0-any", "Thin-2.0-any"
LOCAL = f"http://127.0.0.1:{PORT}"
UNDER_WAY = 4 * trees.MIB
"""What may be under way on a thin line when it fails, or its source, and come twice: ranges, and what waits in queues."""


@dataclass(frozen=True)
class Published:
    """Releases that share nothing, their trees, and how many bytes of packs each has."""

    store: Path
    root_keys: Path
    trees: dict[str, Path]
    sizes: dict[str, int]

    @property
    def largest(self):
        """The path of the largest pack below the base URL."""
        packs = (self.store / "public/packs").glob("*/*")
        return str(max(packs, key=lambda path: path.stat().st_size).relative_to(self.store / "public"))


def publish(home, releases):
    """Publish each release with so many files of 1 MiB that cannot be compressed."""
    site, made, sizes = Site(home / "home"), {}, {}
    for number, (release, files) in enumerate(releases.items()):
        made[release] = trees.fill(home / release, seed=number, files=files, file_bytes=trees.MIB, bits=8)
        site.publish(made[release], release, home / "store")
        packs = sum(path.stat().st_size for path in (home / "store/public/packs").glob("*/*"))
        sizes[release] = packs - sum(sizes.values())
    return Published(home / "store", site.root_keys(home / "store"), made, sizes)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("published"), {SMALL: 2, BIG: 10})


@pytest.fixture
def net(tmp_path):
    with network(tmp_path) as made:
        yield made


@pytest.fixture
def farm(net):
    """Where the installers are."""
    return net.place("farm")


@pytest.fixture
def site(net):
    """Where the mirror is."""
    return net.place("site")


@pytest.fixture
def fast(net, site, farm):
    """The line between both."""
    return net.line(site, farm)


@pytest.fixture
def origin(net):
    return net.place("origin")


class Installing:
    """An installer at work."""

    def __init__(self, place, published, release, url, root):
        self._words = ("install", release, "--from", url, "--root", root, "--root-keys", published.root_keys)
        self._place, self._tree, self._root = place, published.trees[release], root / "releases" / release
        self._process = place.start(*self._words)

    def must_succeed(self):
        done = Outcome.of(self._process, timeout=200)
        assert done.code == 0, (done.err, done.out)
        trees.assert_same(self._root, self._tree)


def wait_for_catalog(place):
    wait_until(lambda: place.status(LOCAL)["replication"]["version"], seconds=60)


def subscribed(where, *urls, more=""):
    """The store of a mirror that holds everything, and its other options."""
    text = f"[upstream]\nurls = {[*urls]}\n{more}\n[[sync.subscriptions]]\nreleases = '*'\n"
    (where / "pacball.toml").write_text(text)
    return where / "mirror", "--config", where / "pacball.toml"


def complete(place):
    """How many releases the mirror there holds whole."""
    return place.status(LOCAL)["held"]["releases"]["complete"]


def sources(place):
    """How the mirror's upstreams do, in their order."""
    return place.status(LOCAL)["upstreams"]["sources"]


@pytest.mark.peers
def test_many_installers_at_a_cold_mirror_cost_the_thin_line_one_copy(
    net, origin, site, farm, fast, published, tmp_path
):
    thin = net.line(origin, site, mbit=20)
    with origin.daemon(published.store), site.daemon(tmp_path / "mirror", "--upstream", origin.url(thin)):
        wait_for_catalog(site)
        before = thin.carried()
        roots = [tmp_path / f"root{number}" for number in range(6)]
        for one in [Installing(farm, published, BIG, site.url(fast), root) for root in roots]:
            one.must_succeed()
        assert published.sizes[BIG] < thin.carried() - before < 1.1 * published.sizes[BIG]


@pytest.mark.peers
def test_what_is_received_has_the_rate_of_the_hour(net, origin, site, published, tmp_path):
    thin = net.line(origin, site, mbit=20)
    hours = """[upstream.hours]\n"00:00-12:00" = "800k"\n"12:00-00:00" = "800k" """
    with origin.daemon(published.store), site.daemon(*subscribed(tmp_path, origin.url(thin), more=hours)):
        before = thin.carried()
        wait_until(lambda: thin.carried() > before + trees.MIB, seconds=60)
        began, before = time.monotonic(), thin.carried()
        time.sleep(4)
        rate = (thin.carried() - before) / (time.monotonic() - began)
        assert 200e3 < rate < 1200e3
        assert site.status(LOCAL)["upstreams"]["rate_bytes_per_second"] == 800e3


@pytest.mark.peers
def test_where_one_line_becomes_very_slow_the_other_brings_the_rest(net, origin, site, farm, fast, published, tmp_path):
    second = net.place("second")
    shutil.copytree(published.store, tmp_path / "copy")
    lines = net.line(origin, site, mbit=30), net.line(second, site, mbit=30)
    upstreams = f"{origin.url(lines[0])},{second.url(lines[1])}"
    with (
        origin.daemon(published.store),
        second.daemon(tmp_path / "copy"),
        site.daemon(tmp_path / "mirror", "--upstream", upstreams),
    ):
        wait_for_catalog(site)
        before = [line.carried() for line in lines]
        one = Installing(farm, published, BIG, site.url(fast), tmp_path / "root")
        wait_until(lambda: lines[0].carried() - before[0] > published.sizes[BIG] / 5, seconds=60)
        lines[0].limit(0.1)
        at_change = lines[0].carried()
        one.must_succeed()
        carried = [line.carried() - was for line, was in zip(lines, before, strict=True)]
        assert lines[0].carried() - at_change < published.sizes[BIG] / 5
        assert sum(carried) < 1.1 * published.sizes[BIG] + UNDER_WAY


@pytest.mark.peers
def test_where_the_origin_s_machine_is_gone_a_peer_brings_the_rest(net, origin, site, farm, fast, published, tmp_path):
    """No connection ever ends: there is nobody who would say so."""
    peer = net.place("peer")
    shutil.copytree(published.store, tmp_path / "copy")
    lines = net.line(origin, site, mbit=30), net.line(peer, site, mbit=30)
    urls = f'urls = ["{origin.url(lines[0])}"]\npeers = ["{peer.url(lines[1])}"]\n'
    (tmp_path / "mirror.toml").write_text(f"[upstream]\n{urls}")
    with (
        origin.daemon(published.store),
        peer.daemon(tmp_path / "copy"),
        site.daemon(tmp_path / "mirror", "--config", tmp_path / "mirror.toml"),
    ):
        wait_for_catalog(site)
        before = [line.carried() for line in lines]
        one = Installing(farm, published, BIG, site.url(fast), tmp_path / "root")
        wait_until(lambda: lines[0].carried() - before[0] > published.sizes[BIG] / 5, seconds=60)
        net.remove(origin)
        one.must_succeed()
        carried = [line.carried() - was for line, was in zip(lines, before, strict=True)]
        assert sum(carried) < 1.1 * published.sizes[BIG] + UNDER_WAY
        Installing(farm, published, SMALL, site.url(fast), tmp_path / "other").must_succeed()


@pytest.mark.large
def test_large_packets_that_are_lost_on_the_way_are_silence(net, origin, site, farm, fast, published, tmp_path):
    """A tunnel with filtered ICMP: connections open, and no data comes through them."""
    second = net.place("second")
    shutil.copytree(published.store, tmp_path / "copy")
    lines = net.line(origin, site), net.line(second, site)
    lines[0].narrow(1200)
    words = subscribed(tmp_path, origin.url(lines[0]), second.url(lines[1]))
    with origin.daemon(published.store), second.daemon(tmp_path / "copy"), site.daemon(*words):
        wait_until(lambda: complete(site) == 2, seconds=120)
        Installing(farm, published, BIG, site.url(fast), tmp_path / "root").must_succeed()
        large, good = sources(site)
        assert large["failures"] > 0
        assert large["bytes_received"] < good["bytes_received"] / 4


@pytest.mark.large
def test_while_the_line_is_silent_what_is_held_is_served_and_the_rest_goes_on_afterwards(
    net, origin, site, farm, fast, published, tmp_path
):
    thin = net.line(origin, site, mbit=20)
    with origin.daemon(published.store), site.daemon(tmp_path / "mirror", "--upstream", origin.url(thin)):
        wait_for_catalog(site)
        Installing(farm, published, SMALL, site.url(fast), tmp_path / "first").must_succeed()
        before = thin.carried()
        going_on = Installing(farm, published, BIG, site.url(fast), tmp_path / "second")
        wait_until(lambda: thin.carried() - before > published.sizes[BIG] / 3, seconds=60)
        thin.cut()
        Installing(farm, published, SMALL, site.url(fast), tmp_path / "third").must_succeed()
        # Whoever waits for what is not here is told so, and for a while everybody else at once.
        last = ("-r", "-300000", "-s", "-w", "%{http_code}", "-o", tmp_path / "answer")
        for _ in range(3):
            url = f"{site.url(fast)}/{published.largest}"
            assert farm.call("curl", *last, "--max-time", "55", url).stdout == "504"
            assert b"does not answer" in (tmp_path / "answer").read_bytes()
        thin.mend()
        going_on.must_succeed()
        assert thin.carried() - before < 1.1 * published.sizes[BIG] + UNDER_WAY


def seconds_of(place, *words):
    """How long curl needs there, all transfers together."""
    began = time.monotonic()
    place.call("curl", "-sSf", "-o", "/dev/null", *words)
    return time.monotonic() - began


@pytest.mark.large
def test_a_long_line_is_used_as_curl_uses_it(net, origin, site, farm, fast, tmp_path):
    """150 ms there and back. The bounds are wide; see docs/operations.md for what to expect."""
    published = publish(tmp_path / "origin", {BIG: 24})
    long = net.line(origin, site, mbit=40, seconds=0.075)
    with origin.daemon(published.store):
        best = seconds_of(site, f"{origin.url(long)}/{published.largest}")
        with site.daemon(tmp_path / "first", "--upstream", origin.url(long)):
            wait_for_catalog(site)
            url, before = f"{site.url(fast)}/{published.largest}", long.carried()
            words = [*farm.inside, program("curl"), "-sSf", url]
            began = time.monotonic()
            with subprocess.Popen(words, stdout=subprocess.PIPE) as client:
                assert client.stdout.read(1)
                # The first byte comes long before the pack.
                assert long.carried() - before < published.sizes[BIG] / 2
                rest = len(client.stdout.read())
            pulled = time.monotonic() - began
            assert rest > published.sizes[BIG] / 2
        with site.daemon(*subscribed(tmp_path, origin.url(long))):
            began = time.monotonic()
            wait_until(lambda: complete(site), seconds=200)
            synced = time.monotonic() - began
    print(f"curl {best:.1f} s, pulled through {pulled:.1f} s, synchronised {synced:.1f} s")
    assert best / pulled > 0.4
    assert best / synced > 0.3


@pytest.mark.large
@pytest.mark.timeout(1800)
def test_two_gigabytes_over_a_line_that_fails_twice(net, origin, site, farm, fast, tmp_path):
    published = publish(tmp_path / "origin", {BIG: 2_100})
    line = net.line(origin, site, mbit=400)
    with origin.daemon(published.store), site.daemon(*subscribed(tmp_path, origin.url(line))):
        before, size = line.carried(), published.sizes[BIG]
        for share, seconds in ((0.3, 6), (0.6, 30)):
            wait_until(lambda share=share: line.carried() - before > share * size, seconds=600)
            line.cut()
            time.sleep(seconds)  # shorter, and longer, than a mirror waits for the next byte
            line.mend()
        wait_until(lambda: complete(site), seconds=600)
        ratio = (line.carried() - before) / size
        Installing(farm, published, BIG, site.url(fast), tmp_path / "root").must_succeed()
        print(f"{ratio:.3f} copies")
        assert 1 < ratio < 1.1

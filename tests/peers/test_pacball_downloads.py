"""curl, wget, aria2, casync, Chromium, and nginx between: pacballs that nobody has stored, interrupted, resumed and compared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path

import pytest

from tests.e2e.site import free_port, get, wait_until
from tests.e2e.slow import slowed
from tests.peers.browser import browsing, driven, until
from tests.peers.conftest import NEW
from tests.peers.programs import call, program
from tests.peers.web import PLAIN, example, nginx

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

PIECES = ("-q", "--file-allocation=none", "-x4", "-s4", "-k1M", "-o", "got")
WAYS = {
    "curl": (("-sSf", "-o", "got"), ("-sSf", "-C", "-", "-o", "got")),
    "wget": (("-q", "-O", "got"), ("-q", "-c", "-O", "got")),
    "aria2c": (PIECES, ("-c", *PIECES)),
}
PAGE = """<!DOCTYPE html><title>waiting</title><script>
async function run() {
  const url = "/pacballs/NAME", size = SIZE, piece = 4 << 20, whole = new Uint8Array(size);
  for (let begin = Math.floor((size - 1) / piece) * piece; begin >= 0; begin -= piece) {
    const end = Math.min(begin + piece, size);
    const answer = await fetch(url, {headers: {Range: `bytes=${begin}-${end - 1}`}, cache: "no-store"});
    if (answer.status != 206) throw new Error(answer.status);
    whole.set(new Uint8Array(await answer.arrayBuffer()), begin);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
run().catch(String).then((text) => fetch("/told/" + encodeURIComponent(text)));
</script>"""


@dataclass(frozen=True)
class Served:
    """A daemon, and the pacball of the newer release: its URL path, and the file that it must be."""

    base: str
    path: str
    file: Path
    sha256: str

    @property
    def url(self) -> str:
        return self.base + self.path

    def is_in(self, file: Path) -> bool:
        return cmp(self.file, file, shallow=False)


@pytest.fixture(scope="module")
def served(origin, tmp_path_factory):
    made = tmp_path_factory.mktemp("pacball")
    file = Path(origin.site.ok("build", origin.new, NEW, "-o", made)["path"])
    told = origin.site.publish(origin.new, NEW, origin.store, "--pacball")
    assert told["pacball"] == file.name
    with origin.site.serving(origin.store) as base:
        yield Served(base, f"/pacballs/{file.name}", file, str(told["sha256"]))
    file.unlink()


def interrupt(argv, got, where):
    """Run a download until some of it is there, and end it."""
    with subprocess.Popen(argv, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: got.exists() and got.stat().st_blocks * 512 > 2 << 20)
        process.terminate()


@pytest.mark.parametrize("name", WAYS)
def test_interrupted_and_resumed(served, tmp_path, name):
    got, (first, again) = tmp_path / "got", WAYS[name]
    with slowed(served.base, bytes_per_second=8 << 20) as slow:
        interrupt([program(name), *first, slow + served.path], got, tmp_path)
    assert not got.exists() or not served.is_in(got)
    call(name, *again, served.url, cwd=tmp_path)
    assert served.is_in(got)


def test_interrupted_by_a_killed_daemon_and_resumed(origin, served, tmp_path):
    got, resume = tmp_path / "got", WAYS["curl"][1]
    with (
        origin.site.serving_process(origin.store) as (url, process),
        slowed(url, bytes_per_second=8 << 20) as slow,
        subprocess.Popen([program("curl"), "-s", "-o", got, slow + served.path]) as curl,
    ):
        wait_until(lambda: got.exists() and got.stat().st_size > 2 << 20)
        process.send_signal(signal.SIGKILL)
        assert curl.wait(60) != 0
    call("curl", *resume, served.url, cwd=tmp_path)
    assert served.is_in(got)


def test_casync_by_the_index_killed_and_with_what_came_as_a_seed(served, tmp_path):
    """casync leaves what came beside the file that it makes; as a seed it is cut as ours is, so that nothing comes twice."""
    got, proxy = (
        tmp_path / "got",
        PLAIN.replace("root /srv/store/public;", f"location / {{ proxy_pass {served.base}; }}"),
    )
    with nginx(tmp_path / "nginx", proxy, {}) as front:
        asked = lambda: [line.split()[2] for line in front.told() if ".castr/" in line]  # noqa: E731

        def words(base, *more):
            top = base + served.path
            return [program("casync"), "extract", f"--store={top}.castr", *more, f"{top}.caibx", got]

        # What it keeps elsewhere meanwhile, it leaves there when it is killed.
        place = {"cwd": tmp_path, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
        with slowed(front.url, bytes_per_second=8 << 20) as slow, subprocess.Popen(words(slow), **place) as casync:
            wait_until(lambda: any(part.stat().st_size > 8 << 20 for part in tmp_path.glob(".#got*")), seconds=60)
            casync.kill()
        [part] = tmp_path.glob(".#got*")
        assert not got.exists()
        first, pieces = asked(), part.stat().st_size >> 22
        call(*words(front.url, f"--seed={part}"))
        assert not set(asked()[len(first) :]) & set(first[:pieces])
    assert served.is_in(got)


@contextlib.contextmanager
def lying_mirror(served, where):
    """A server on another address with wrong bytes all over the same pacball."""
    public = where / "lies/pacballs"
    public.mkdir(parents=True)
    data = bytearray(served.file.read_bytes())
    for at in range(100_000, len(data), 1 << 20):
        data[at] ^= 1
    (public / served.file.name).write_bytes(data)
    changes = {"listen 127.0.0.1:": "listen 0.0.0.0:", "/srv/store/public": str(public.parent)}
    with nginx(where / "nginx", PLAIN, changes) as server:
        yield server, server.url.replace("127.0.0.1", "127.0.0.2")


def test_aria2_by_the_metalink_with_a_mirror_that_lies(origin, served, tmp_path):
    environment = dict(origin.site.environment)
    with lying_mirror(served, tmp_path) as (mirror, lies):
        origin.site.environment["PACBALL_SERVE_PACBALLS_MIRRORS"] = lies
        try:
            with origin.site.serving(origin.store) as url:
                words = (
                    "--follow-metalink=mem",
                    "--file-allocation=none",
                    "-s4",
                    "-x4",
                    "-k1M",
                    "-d",
                    tmp_path / "out",
                )
                call("aria2c", "-q", *words, f"{url}{served.path}.meta4")
        finally:
            origin.site.environment.clear()
            origin.site.environment.update(environment)
        asked = [line for line in mirror.told() if line.startswith("206")]
    assert asked, "the lying mirror was not asked"
    assert served.is_in(tmp_path / "out" / served.file.name)


def test_nginx_in_front_keeps_slices(served, tmp_path):
    changes = {"http://127.0.0.1:8081": served.base, "/var/cache/nginx/pacball": str(tmp_path / "cache")}
    with nginx(tmp_path / "nginx", example("pacball-cache.conf"), changes) as front:
        url, got = front.url + served.path, tmp_path / "got"
        with slowed(front.url, bytes_per_second=8 << 20) as slow:
            interrupt([program("curl"), "-sSf", "-o", got, slow + served.path], got, tmp_path)
        call("curl", "-sSf", "-C", "-", "-o", got, url)
        assert served.is_in(got)
        call("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", tmp_path / "out", "-o", "second", url)
        assert served.is_in(tmp_path / "out/second")
        told = [line.split()[-1] for line in front.told() if served.path in line]
        assert told[-1] == "HIT"
        _, headers, _ = get(url, {"Range": "bytes=0-99"})
        assert "repr-digest" in headers
        # The metalink has the address that clients use.
        assert f'<url priority="1">{url}</url>' in get(f"{url}.meta4")[2].decode()
        assert get(f"{front.url}/pacballs/")[0] == 200
        assert get(f"{front.url}/files/{NEW}/data/")[0] == 200
        assert get(f"{front.url}/files/{NEW}/data%2F..")[0] == 404


def test_chromium_downloads_it_whole_and_in_ranges(served, tmp_path):
    got = tmp_path / "Downloads" / served.file.name
    with browsing(tmp_path, served.url):
        wait_until(got.exists, seconds=120)
    assert served.is_in(got)
    (tmp_path / "page.html").write_text(
        PAGE.replace("NAME", served.file.name).replace("SIZE", str(served.file.stat().st_size))
    )
    config = PLAIN.replace("}", f" location /pacballs/ {{ proxy_pass {served.base}; }} }}")
    with nginx(tmp_path / "nginx", config, {"/srv/store/public": str(tmp_path)}) as server:
        with browsing(tmp_path, f"{server.url}/page.html"):
            wait_until(lambda: [line for line in server.told() if "/told/" in line], seconds=120)
        [told] = [line.split()[2] for line in server.told() if "/told/" in line]
        assert told == f"/told/{served.sha256}"
        ranges = [line for line in server.told() if line.startswith("206")]
        assert len(ranges) == -(-served.file.stat().st_size // (4 << 20))


def test_chromium_resumes_a_download_that_a_killed_daemon_cut(origin, served, tmp_path):
    """By the button that its list of downloads has then. nginx is between for its log."""
    port = free_port()
    listen = ("--listen", f"127.0.0.1:{port}")
    config = f"location / {{ proxy_pass http://127.0.0.1:{port}; proxy_buffering off; }}"

    async def download(front, slow):
        async with driven(tmp_path) as browser:
            with origin.site.serving_process(origin.store, *listen) as (_, process):
                await browser.download(slow + served.path)

                async def begun():
                    return browser.partial_bytes() > 2 << 20

                await until(begun)
                process.kill()
                await browser.is_cut()
            assert 0 < browser.partial_bytes() < served.file.stat().st_size
            with origin.site.serving_process(origin.store, *listen):
                await browser.resume()
                got = await browser.has(served.file.name, seconds=120)
            wait_until(lambda: front.told()[-1].startswith("206 GET"))
            return got

    with (
        nginx(tmp_path / "nginx", PLAIN.replace("root /srv/store/public;", config), {}) as front,
        slowed(front.url, bytes_per_second=8 << 20) as slow,
    ):
        got = asyncio.run(download(front, slow))
    assert served.is_in(got)


def test_grid_tools_ask_for_digests_with_head(served):
    words = ("-sSfI", "-H", "Want-Digest: adler32, md5", served.url)
    lines = [line.split(": ", 1) for line in call("curl", *words).stdout.splitlines() if ": " in line]
    digest = {name.lower(): value for name, value in lines}["digest"]
    adler32, md5 = (value.partition("=")[2] for value in digest.split(","))
    assert len(adler32) == 8
    assert len(md5) == 24
    assert int(adler32, 16) >= 0

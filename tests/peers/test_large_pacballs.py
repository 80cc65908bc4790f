"""Pacballs beyond 2^32 bytes: built, fetched, installed by their stubs; and served, interrupted and resumed over HTTP."""

from __future__ import annotations

import asyncio
import filecmp
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.site import Site, free_port, get, wait_until
from tests.peers.browser import browsing, driven, until
from tests.peers.programs import program
from tests.peers.web import PLAIN, example, nginx
from tests.store.pacball.shells import Machine

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]

HUGE = "Huge-1.0-any"
HUGE_BYTES = (8 << 30) + 12_345
EDGE = 1 << 32
NEAR = 16 << 20
PAGE = """<!DOCTYPE html><title>waiting</title><script>
async function run() {
  const whole = new Uint8Array(2 * NEAR), piece = 4 << 20;
  for (let at = 0; at < whole.length; at += piece) {
    const begin = EDGE - NEAR + at, end = begin + piece - 1;
    const answer = await fetch("PATH", {headers: {Range: `bytes=${begin}-${end}`}, cache: "no-store"});
    if (answer.status != 206) throw new Error(answer.status);
    whole.set(new Uint8Array(await answer.arrayBuffer()), at);
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
run().catch(String).then((text) => fetch("/told/" + encodeURIComponent(text)));
</script>"""


@pytest.fixture
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("large")
    yield made
    shutil.rmtree(made)


def test_a_file_of_more_than_eight_gigabytes(home):
    site, tree = Site(home / "home"), home / "tree"
    (tree / "z").mkdir(parents=True)
    with open(tree / "huge.bin", "wb") as file:
        file.truncate(HUGE_BYTES)
        file.seek(5 << 30)
        file.write(trees.content(1, 1 << 20))
    (tree / "z/last").write_bytes(trees.content(2, 100_000))
    site.publish(tree, HUGE, home / "store")
    words = ("--from", home / "store", "--root-keys", site.root_keys(home / "store"))
    fetched = site.ok("fetch", HUGE, "-o", home, *words)["path"]
    built = site.ok("build", tree, HUGE, "-o", home / "built.sh")["path"]
    assert filecmp.cmp(fetched, built, shallow=False)
    (home / "built.sh").unlink()
    for kind in ("busybox sh", "dash", "mksh"):
        target = home / kind.split()[0]
        machine = Machine(tuple(kind.split()), home / "tmp")
        with machine.start(fetched, "--prefix", target, cwd=home) as process:
            assert process.wait(900) == 0, process.stderr.read()
        assert filecmp.cmp(tree / "huge.bin", target / "huge.bin", shallow=False)
        assert filecmp.cmp(tree / "z/last", target / "z/last", shallow=False)
        shutil.rmtree(target)


@dataclass(frozen=True)
class Served:
    """A daemon with a pacball of more than 2^32 bytes, and the file that it must be."""

    site: Site
    store: Path
    base: str
    file: Path
    home: Path

    @property
    def path(self) -> str:
        return f"/pacballs/{self.file.name}"

    @property
    def url(self) -> str:
        return self.base + self.path

    def part(self, begin: int, length: int) -> bytes:
        with open(self.file, "rb") as file:
            file.seek(begin)
            return file.read(length)

    def is_in(self, file: Path) -> bool:
        return filecmp.cmp(self.file, file, shallow=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    home = tmp_path_factory.mktemp("beyond")
    site, tree = Site(home / "home"), home / "tree"
    tree.mkdir()
    with open(tree / "huge.bin", "wb") as file:
        file.truncate(EDGE + (200 << 20))
        for at in (1 << 30, EDGE - 500_000, EDGE + (100 << 20)):
            file.seek(at)
            file.write(trees.content(at, 1 << 20))
    (tree / "last").write_bytes(trees.content(2, 100_000))
    site.publish(tree, HUGE, home / "store", "--pacball")
    file = Path(site.ok("build", tree, HUGE, "-o", home)["path"])
    with site.serving(home / "store") as base:
        yield Served(site, home / "store", base, file, home)
    shutil.rmtree(home)


@pytest.fixture
def got(served):
    """Where a download goes; gone after the test."""
    folder = served.home / "got"
    folder.mkdir()
    yield folder / "got.sh"
    shutil.rmtree(folder)


def call(*argv, timeout=900):
    subprocess.run([program(argv[0]), *map(str, argv[1:])], check=True, timeout=timeout)


def size_of(file):
    return file.stat().st_size if file.exists() else 0


def interrupt(partial, *argv):
    """Run a download until `partial()`, where it writes, has more than 2^32 bytes, and kill it."""
    # What casync keeps for a while, it leaves there when it is killed.
    environment = {**os.environ, "TMPDIR": str(partial().parent)}
    argv = (program(argv[0]), *map(str, argv[1:]))
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            wait_until(lambda: process.poll() is not None or size_of(partial()) > EDGE, seconds=900)
            assert process.poll() is None, "it ended before it could be interrupted"
        finally:
            process.kill()


def test_ranges_around_two_to_the_32(served):
    for begin in (EDGE - 1_000, EDGE - 1, EDGE, EDGE + 70_000_000):
        status, headers, body = get(served.url, {"Range": f"bytes={begin}-{begin + 999_999}"})
        assert (status, body) == (206, served.part(begin, 1_000_000)), begin
        assert headers["content-range"].endswith(f"/{served.file.stat().st_size}")


@pytest.mark.parametrize(
    ("words", "begin"),
    [(("curl", "-sSf", "-C", "-", "-o"), EDGE + 12_345), (("wget", "-q", "-c", "-O"), EDGE - 12_345)],
    ids=["curl", "wget"],
)
def test_continued_before_and_behind_two_to_the_32(served, got, words, begin):
    with open(served.file, "rb") as whole, open(got, "wb") as half:
        left = begin
        while left:
            left -= os.sendfile(half.fileno(), whole.fileno(), None, min(left, 1 << 30))
    call(*words, got, served.url)
    assert served.is_in(got)


def test_aria2_takes_it_whole_by_its_metalink(served, got):
    argv = ("aria2c", "-q", "--follow-metalink=mem", "--file-allocation=none", "-x4", "-s4")
    call(*argv, "-d", got.parent, f"{served.url}.meta4")
    assert served.is_in(got.parent / served.file.name)


def test_casync_is_killed_behind_two_to_the_32_and_goes_on_with_what_came_as_a_seed(served, got):
    config = f"location / {{ proxy_pass {served.base}; limit_rate 2m; }}"
    with nginx(got.parent / "nginx", PLAIN.replace("root /srv/store/public;", config), {}) as front:
        asked = lambda: [line.split()[2] for line in front.told() if ".castr/" in line]  # noqa: E731
        top = front.url + served.path
        words = ("casync", "extract", f"--store={top}.castr", f"{top}.caibx", got)
        interrupt(lambda: next(iter(got.parent.glob(".#got*")), got), *words)
        assert not got.exists()
        [part] = got.parent.glob(".#got*")
        before = asked()
        call(*words[:2], f"--seed={part}", *words[2:])
        # What it had not written yet when it was killed is asked for again, and nothing else.
        assert not set(asked()[len(before) :]) & set(before[:-2])
    assert served.is_in(got)


def test_curl_goes_on_behind_two_to_the_32_through_nginx_that_caches(served, got):
    changes = {"http://127.0.0.1:8081": served.base, "/var/cache/nginx/pacball": str(got.parent / "cache")}
    with nginx(got.parent / "nginx", example("pacball-cache.conf"), changes) as front:
        url = front.url + served.path
        interrupt(lambda: got, "curl", "-sSf", "--limit-rate", "200M", "-o", got, url)
        assert not served.is_in(got)
        call("curl", "-sSf", "-C", "-", "-o", got, url)
        assert served.is_in(got)
        assert [line for line in front.told() if line.startswith("206 ")], "curl began anew"
        status, _, body = get(url, {"Range": f"bytes={EDGE - 1_000}-{EDGE + 999}"})
        assert (status, body) == (206, served.part(EDGE - 1_000, 2_000))
        assert front.told()[-1].endswith("HIT")


def test_chromium_is_cut_behind_two_to_the_32_and_resumes(served, got):
    """The daemon is killed; its successor gets what is lacking asked for, once the browser's button was pressed."""
    port = free_port()
    listen = ("--listen", f"127.0.0.1:{port}")
    config = f"location / {{ proxy_pass http://127.0.0.1:{port}; proxy_max_temp_file_size 0; limit_rate 200m; }}"

    async def download(front):
        async with driven(got.parent) as browser:
            with served.site.serving_process(served.store, *listen) as (_, process):
                await browser.download(front.url + served.path)

                async def behind():
                    return browser.partial_bytes() > EDGE

                await until(behind, seconds=900)
                process.kill()
                await browser.is_cut()
            assert EDGE < browser.partial_bytes() < served.file.stat().st_size
            with served.site.serving_process(served.store, *listen):
                await browser.resume()
                whole = await browser.has(served.file.name, seconds=900)
            wait_until(lambda: front.told()[-1].startswith("206 GET"))
            return whole

    with nginx(got.parent / "nginx", PLAIN.replace("root /srv/store/public;", config), {}) as front:
        downloaded = asyncio.run(download(front))
    assert served.is_in(downloaded)


def test_a_script_in_chromium_reads_across_two_to_the_32(served, got):
    page = PAGE.replace("PATH", served.path).replace("EDGE", str(EDGE)).replace("NEAR", str(NEAR))
    (got.parent / "page.html").write_text(page)
    config = PLAIN.replace("}", f" location /pacballs/ {{ proxy_pass {served.base}; }} }}")
    with nginx(got.parent / "nginx", config, {"/srv/store/public": str(got.parent)}) as server:
        with browsing(got.parent, f"{server.url}/page.html"):
            wait_until(lambda: [line for line in server.told() if "/told/" in line], seconds=300)
        [told] = [line.split()[2] for line in server.told() if "/told/" in line]
    assert told == f"/told/{hashlib.sha256(served.part(EDGE - NEAR, 2 * NEAR)).hexdigest()}"

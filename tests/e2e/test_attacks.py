"""What a mirror without any key can do to an installer: nothing but withhold, whatever it sends.

Each attack is one real command against a mirror that lies over real HTTP. It must be refused, with a sentence that says what
to do, in little memory; nothing is installed or switched; and the same command succeeds with an honest mirror afterwards.
"""

from __future__ import annotations

import gzip
import shutil
import time

import pytest

from pacmirror.limits import ClientLimits
from pacmirror.source import HttpSource
from pacstore.errors import Unavailable
from pacstore.trust.client import open_catalog
from tests.e2e.attacker import mirroring
from tests.e2e.forger import Forger, date
from tests.e2e.signing import DAY_S
from tests.e2e.victims import NEW, OLD, copied, path_of, world_below
from tests.mirror.scripted import Drip, Pause, answer

pytestmark = pytest.mark.slow

TIMESTAMP = "catalog/timestamp.json"
ROLES = ("root", "timestamp", "snapshot", "targets", "line-Demo", "placement-Demo")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return world_below(tmp_path_factory.getbasetemp())


@pytest.fixture
def mirror(world):
    with mirroring(world.second) as made:
        yield made
        assert not any("\ncookie:" in request.lower() for request in made.requests)


def damaged(data):
    """`data`, flipped at several places, cut, and gone."""
    places = (12, len(data) // 2)
    return [*(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in places), data[: len(data) // 2], b""]


@pytest.mark.parametrize("role", ROLES)
def test_damaged_metadata_are_refused(world, mirror, tmp_path, role):
    victim = world.fresh(tmp_path / "victim")
    path = path_of(world.second, role)
    for data in damaged((world.second / path).read_bytes()):
        mirror.gives(path, data)
        victim.refuses(mirror, 8, path, role)
        assert mirror.asked[path] == 1
        mirror.forget()
    mirror.is_honest()
    victim.installs(mirror)


GOOD = b'{"signatures":[],"signed":{}}'
PAGE = b"<!doctype html><title>\x1b[2JSign in</title>"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MANNERS = {
    "a web page": ([answer("200 OK", PAGE, "Content-Type: text/html")], 4, "web page"),
    "gzip": ([answer("200 OK", gzip.compress(GOOD), "Content-Encoding: gzip")], 4, "Content-Encoding gzip"),
    "a strange encoding": ([answer("200 OK", GOOD, "Content-Encoding: \x1b]0;x\x07")], 4, r"\x1b]0;x\x07"),
    "elsewhere": ([answer("302 Found", b"", "Location: http://127.0.0.1:1/\x1b[2J")], 7, "http://127.0.0.1:1/"),
    "itself": ([answer("301 Moved", b"", f"Location: /{TIMESTAMP}")], 7, "not followed"),
    "announced to be huge": ([answer("200 OK", length=1 << 50), Drip(b"x" * 65536, 0)], 5, "1125899906842624 bytes"),
    "endless": ([CHUNKED, Drip(b"10000\r\n" + b"x" * 65536 + b"\r\n", 0)], 5, "more than the 16384 bytes"),
    "without an end": ([answer("200 OK", GOOD, length=-1)], 4, "how long"),
    "a part": ([answer("206 Partial Content", GOOD, "Content-Range: bytes 0-28/29")], 4, "206"),
    "forbidden": ([answer("403 Forbidden", PAGE)], 7, "denies access"),
    "deep": ([answer("200 OK", b"[" * 16_000)], 8, "timestamp"),
    "no metadata": ([answer("200 OK", b'{"signatures":[],"signed":{"_type":"\\u001b[2J"}}')], 8, "timestamp"),
}
"""Answers that are definite: asked for once, by what they are; the exit code; what is said."""


def test_definite_nonsense_is_refused_at_once(world, mirror, tmp_path):
    victim = world.early(tmp_path / "victim")
    for name, (steps, code, words) in MANNERS.items():
        mirror.says(TIMESTAMP, *steps)
        victim.refuses(mirror, code, words, TIMESTAMP)
        assert mirror.asked[TIMESTAMP] == 1, name
        assert mirror.sent < 20_000_000, name
        mirror.is_honest()
    victim.installs(mirror)


PASSING = {
    "failing": [answer("500 Oops", PAGE, "Content-Type: text/html")],
    "cut": [answer("200 OK", GOOD, length=100)],
}
"""Answers that may pass: asked for again."""


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_for_again_but_not_for_ever(world, mirror, tmp_path, name):
    victim = world.early(tmp_path / "victim")
    mirror.says(TIMESTAMP, *PASSING[name])
    victim.refuses(mirror, 6, "4 times", "another source")
    assert mirror.asked[TIMESTAMP] == 4
    mirror.is_honest()
    victim.installs(mirror)


FAST = ClientLimits(
    stall_seconds=0.4,
    answer_seconds=0.8,
    min_bytes_per_second=1 << 26,
    attempts=2,
    backoff_seconds=0.01,
)
"""The command's own limits take minutes."""
SLOW = {
    "silent": [Pause(60)],
    "stalls": [answer("200 OK", GOOD, length=100), Pause(60)],
    "drips": [answer("200 OK", GOOD, length=500), Drip(b" ", 0.05)],
    "drips chunks": [CHUNKED, Drip(b"1\r\n \r\n", 0.05)],
    "drips a header": [b"HTTP/1.1 200 OK\r\n", Drip(b"A: b\r\n", 0.05)],
    "goes on and on": [Drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01)],
}


@pytest.mark.parametrize("role", ROLES)
def test_the_time_for_each_file_is_limited(world, mirror, tmp_path, role):
    root = world.root_keys.read_bytes()
    path = path_of(world.second, role)
    with HttpSource(mirror.url, limits=FAST) as source:
        for name, steps in SLOW.items() if role == "timestamp" else [("drips", SLOW["drips"])]:
            mirror.says(path, *steps)
            with pytest.raises(Unavailable, match=r"2 times .*another source"):
                open_catalog(source, root=root, state_dir=tmp_path, now=time.time()).releases("Demo")
            assert mirror.asked[path] == 2, name
            mirror.is_honest()
        assert len(open_catalog(source, root=root, state_dir=tmp_path, now=time.time()).releases("Demo")) == 2


# Rollback


def test_a_rollback_of_the_whole_mirror(world, mirror, tmp_path):
    victim = world.late(tmp_path / "victim")
    mirror.public = world.first
    victim.refuses(mirror, 8, "rolled back: timestamp is version 3, and version 5 was seen", "another", release=OLD)
    # Without python-tuf's own files, what this client remembers itself remains.
    shutil.rmtree(victim.state / "metadata")
    victim.refuses(mirror, 8, "rolled back: root is version 1, and version 2 was seen", "another", release=OLD)
    mirror.public = world.second
    victim.installs(mirror, OLD)


def test_a_rollback_of_single_files(world, mirror, tmp_path):
    victim = world.late(tmp_path / "victim")
    mirror.gives(TIMESTAMP, (world.first / TIMESTAMP).read_bytes())
    victim.refuses(mirror, 8, "rolled back: timestamp is version 3, and version 5 was seen", release=OLD)
    shutil.rmtree(victim.state / "metadata")
    victim.refuses(mirror, 8, "rolled back: timestamp is version 3, and version 5 was seen", release=OLD)
    mirror.is_honest()
    mirror.says(path_of(world.second, "root"), answer("404 Not Found"))
    shutil.rmtree(victim.state / "metadata")
    victim.refuses(mirror, 8, "rolled back: root is version 1, and version 2 was seen", release=OLD)
    mirror.is_honest()
    victim.installs(mirror, OLD)


def test_files_of_two_times_do_not_mix(world, mirror, tmp_path):
    victim = world.early(tmp_path / "victim")
    for role in ("snapshot", "targets", "line-Demo", "placement-Demo"):
        path = path_of(world.second, role)
        mirror.gives(path, (world.first / path_of(world.first, role)).read_bytes())
        victim.refuses(mirror, 8, path, f"{role}, version", "another source")
        assert mirror.asked[path] == 1
        mirror.is_honest()
    victim.installs(mirror)


def test_a_mirror_that_is_copied_while_it_is_read(world, mirror, tmp_path):
    victim = world.early(tmp_path / "victim")
    mirror.public = world.first
    mirror.gives(TIMESTAMP, (world.second / TIMESTAMP).read_bytes())
    victim.refuses(mirror, 6, "the catalog names this file, but it is missing here", "another source")
    mirror.public = world.second
    mirror.is_honest()
    victim.installs(mirror)


ABSENT = {"store.json": 3, TIMESTAMP: 3, "snapshot": 6, "targets": 6, "line-Demo": 6, "placement-Demo": 6}


def test_what_is_hidden(world, mirror, tmp_path):
    victim = world.fresh(tmp_path / "victim")
    for name, code in ABSENT.items():
        path = name if name.endswith(".json") else path_of(world.second, name)
        mirror.says(path, answer("404 Not Found", PAGE, "Content-Type: text/html"))
        victim.refuses(mirror, code, mirror.url)
        assert mirror.asked[path] == 1
        mirror.is_honest()
    victim.installs(mirror)


def test_a_mirror_that_stands_still_is_believed_until_the_catalog_expires(world, mirror, tmp_path):
    mirror.public = copied(world.first, tmp_path / "public")
    victim = world.early(tmp_path / "victim")
    operator = Forger(mirror.public, world.keys.signer("online"))
    signed = time.time() - 2 * DAY_S
    operator.timestamp(lambda timestamp: date(timestamp, signed, days=3))
    victim.installs(mirror, OLD)
    operator.timestamp(lambda timestamp: date(timestamp, signed, days=1))
    said = ("out of date: timestamp, version 5, expired at", "2 days ago")
    victim.refuses(mirror, 8, *said, f"{NEW} is not in it, and a newer one may have it", "pacball trust refresh")
    victim.installs(mirror, OLD, note=said[0])
    operator.timestamp(lambda timestamp: date(timestamp, time.time(), days=1))
    victim.installs(mirror, OLD)

"""Pacballs and files of releases over HTTP, put together from packs: every byte, every condition, every wrong path."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import socket
import struct
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import zstandard

from pacmirror.config import AccessConfig, PacballConfig, ScrubConfig, SyncConfig, UpstreamConfig
from pacmirror.limits import PacballLimits, ScrubLimits, ServerLimits, SyncLimits
from pacmirror.token_file import create_token
from pacstore.ledger import damage, pacballs
from pacstore.pacball.building import build
from pacstore.pacball.digests import PacballKey
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.store import Store
from pacstore.subscription import Subscription
from pacstore.trust.targets import Withdrawal
from tests.e2e.site import wait_until
from tests.mirror.daemons import Daemon, parse_answer, receive_all, running
from tests.store.releases import NAME, NEXT, NOW, Origin, flip, make_tree, noise

TABLE = 0xE75B9E112F17417D
METALINK = "{urn:ietf:params:xml:ns:metalink}"
QUICK = PacballLimits(look_seconds=0.1, digests_wait_seconds=20, digested_file_bytes=2_000_000)
PROMPT = ScrubLimits(first_pause_seconds=3600, look_seconds=0.05, retry_seconds=3600)


@dataclass(frozen=True)
class World:
    """A store with one release, its tree, and the pacball that is built of it."""

    origin: Origin
    tree: Path
    name: str
    data: bytes

    @property
    def path(self) -> str:
        return f"/pacballs/{self.name}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    top = tmp_path_factory.mktemp("served")
    tree = make_tree(top / "tree", kib=6000)
    (tree / "odd name ?#%&<b>.txt").write_bytes(b"odd")
    (tree / "lib/up").symlink_to("../../../outside")
    (tree / "lib/loop").symlink_to("loop")
    (tree / "libs").symlink_to("lib/python")
    origin = Origin.make(top)
    origin.publish(tree)
    built = build(tree, Release.parse(NAME), top / "built.sh", progress=Silent())
    yield World(origin, tree, built.stub.file_name, (top / "built.sh").read_bytes())
    origin.store.close()


@pytest.fixture(scope="module")
def daemon(world):
    with running(world.origin.store.path, ServerLimits(pacballs=QUICK)) as one:
        one.get(world.path)  # from then on there are digests
        yield one


@pytest.fixture
def store(world, tmp_path):
    """A copy that a test may damage, without digests."""
    shutil.copytree(world.origin.store.path, tmp_path / "store")
    for left in (tmp_path / "store/private").glob("ledger.sqlite*"):
        left.unlink()
    return tmp_path / "store"


def test_the_whole_of_it_bit_for_bit(daemon, world):
    status, headers, body = daemon.request(world.path, timeout=20)
    assert (status, body) == (200, world.data)
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert headers["repr-digest"] == f"sha-256=:{digest}:"
    assert headers["content-disposition"] == f'attachment; filename="{world.name}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["last-modified"] == formatdate(NOW, usegmt=True)
    assert headers["link"].startswith(f"<{world.name}.meta4>; rel=describedby")
    head, headers_alone, nothing = daemon.request(world.path, method="HEAD")
    assert (head, nothing) == (200, b"")
    own = {"date", "x-request-id", "connection"}
    assert {k: v for k, v in headers_alone.items() if k not in own} == {
        k: v for k, v in headers.items() if k not in own
    }


def test_it_is_found_by_its_name_in_rucio(daemon, world):
    status, headers, body = daemon.request(f"/rucio/sw/{world.name}", timeout=20)
    assert (status, body) == (200, world.data)
    assert headers["etag"] == daemon.request(world.path, method="HEAD")[1]["etag"]


@pytest.mark.parametrize(
    ("said", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=16383-16384", STUB_BYTES - 1, STUB_BYTES + 1),
        ("bytes=16384-", STUB_BYTES, None),
        ("bytes=-1500", -1500, None),
        ("bytes=1000000-2500000", 1_000_000, 2_500_001),
        ("bytes=20000-99999999999", 20_000, None),
        (f"bytes=20000-{1 << 64}", 20_000, None),
        (f"bytes=-{1 << 100}", 0, None),
    ],
)
def test_any_range_of_it(daemon, world, said, begin, end):
    status, headers, body = daemon.request(world.path, f"Range: {said}")
    assert (status, body) == (206, world.data[begin:end])
    first = len(world.data[:begin])
    assert headers["content-range"] == f"bytes {first}-{first + len(body) - 1}/{len(world.data)}"
    assert "repr-digest" in headers


@pytest.mark.parametrize("said", ["bytes=99999999999-", f"bytes={1 << 64}-", f"bytes={'9' * 900}-", "bytes=-0"])
def test_there_is_nothing_behind_its_end(daemon, world, said):
    status, headers, _ = daemon.request(world.path, f"Range: {said}")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(world.data)}")


def test_conditions(daemon, world):
    _, headers, _ = daemon.request(world.path, method="HEAD")
    etag, date = headers["etag"], headers["last-modified"]
    earlier, later = (formatdate(NOW + days * 86_400, usegmt=True) for days in (-1, 1))
    for said, status in (
        ([f"If-None-Match: {etag}"], 304),
        (['If-None-Match: "other"'], 200),
        ([f"If-Modified-Since: {date}"], 304),
        ([f"If-Modified-Since: {later}"], 304),
        ([f"If-Modified-Since: {earlier}"], 200),
        (["If-Modified-Since: yesterday"], 200),
        (['If-None-Match: "other"', f"If-Modified-Since: {date}"], 200),
        (['If-Match: "other"'], 412),
        ([f"If-Match: {etag}"], 200),
        ([f"If-Unmodified-Since: {earlier}"], 412),
        ([f"If-Unmodified-Since: {date}"], 200),
    ):
        assert daemon.request(world.path, *said, method="HEAD")[0] == status, said
    for said, status in (
        ([f"If-Range: {etag}"], 206),
        ([f"If-Range: {date}"], 206),
        ([f"If-Range: {earlier}"], 200),
        (['If-Range: "other"'], 200),
    ):
        found, _, body = daemon.request(world.path, "Range: bytes=0-9", *said)
        assert (found, len(body)) == (status, 10 if status == 206 else len(world.data)), said
    status, headers, _ = daemon.request(world.path, f"Range: bytes={len(world.data)}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(world.data)}")


def test_digests_as_tools_of_grids_ask(daemon, world):
    def digest(*said):
        return daemon.request(world.path, *said, method="HEAD")[1].get("digest")

    md5 = base64.b64encode(hashlib.md5(world.data).digest()).decode()
    sha = base64.b64encode(hashlib.sha256(world.data).digest()).decode()
    adler32 = f"{zlib.adler32(world.data):08x}"
    assert digest() is None
    assert digest("Want-Digest: adler32") == f"adler32={adler32}"
    assert digest("Want-Digest: MD5;q=0.3, SHA-256;q=1, unixsum") == f"sha-256={sha},md5={md5}"
    assert digest("Want-Digest: adler32;q=0, md5") == f"md5={md5}"
    assert digest("Want-Digest: crc32c,;;q=,\t") is None


def test_a_metalink_of_it(daemon, world):
    status, headers, body = daemon.request(f"{world.path}.meta4")
    assert (status, headers["content-type"]) == (200, "application/metalink4+xml")
    assert headers["cache-control"].startswith("private")
    file = ET.fromstring(body).find(f"{METALINK}file")
    assert file.get("name") == world.name
    assert int(file.findtext(f"{METALINK}size")) == len(world.data)
    whole = {one.get("type"): one.text for one in file.findall(f"{METALINK}hash")}
    assert whole == {"sha-256": hashlib.sha256(world.data).hexdigest(), "md5": hashlib.md5(world.data).hexdigest()}
    pieces = file.find(f"{METALINK}pieces")
    length = int(pieces.get("length"))
    cut = [world.data[at : at + length] for at in range(0, len(world.data), length)]
    assert len(cut) > 1
    assert [one.text for one in pieces] == [hashlib.sha256(piece).hexdigest() for piece in cut]
    assert [one.text for one in file.findall(f"{METALINK}url")] == [f"http://x{world.path}"]
    assert daemon.request(f"{world.path}.meta4", f"If-None-Match: {headers['etag']}", method="HEAD")[0] in (200, 304)
    assert daemon.request(f"{world.path}.meta4", "Range: bytes=5-9")[2] == body[5:10]


@pytest.mark.parametrize("host", ["\xff\xfe", "a b", 'x"><y>&', "a/../b", "u:p@h", "h:x"])
def test_an_address_that_is_none_is_not_written_into_a_metalink(daemon, world, host):
    request = f"GET {world.path}.meta4 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    status, _, body = parse_answer(daemon.exchange(request.encode("latin-1")))
    assert (status, b"names no host" in body) == (400, True)


def read_index(body):
    """The end and the id of each chunk, by the text of casync's format alone."""
    words = struct.unpack("<8Q", body[:64])
    assert (words[:3], len(set(words[3:6])), words[6:]) == ((48, 0x96824D9C7B129FF9, 0), 1, (2**64 - 1, TABLE))
    assert struct.unpack("<5Q", body[-40:]) == (0, 0, 48, len(body) - 48, 0x4B4F050E5549ECD1)
    return [(struct.unpack("<Q", body[at : at + 8])[0], body[at + 8 : at + 40]) for at in range(64, len(body) - 40, 40)]


def test_casync_finds_an_index_and_every_chunk_of_it(daemon, world):
    status, headers, body = daemon.request(f"{world.path}.caibx")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert daemon.request(f"{world.path}.caibx", f"If-None-Match: {headers['etag']}")[0] == 304
    chunks, whole = read_index(body), b""
    assert len(chunks) > 1
    for end, name in chunks:
        path = f"{world.path}.castr/{name.hex()[:4]}/{name.hex()}.cacnk"
        status, headers, chunk = daemon.request(path)
        assert (status, int(headers["content-length"])) == (200, len(chunk))
        plain = zstandard.ZstdDecompressor().decompress(chunk)
        assert hashlib.sha256(plain).digest() == name
        whole += plain
        assert len(whole) == end
        assert daemon.request(path, "Range: bytes=131070-131090")[2] == chunk[131070:131091]
        assert daemon.request(path, method="HEAD")[1]["content-length"] == str(len(chunk))
    assert whole == world.data


def test_there_are_no_other_chunks(daemon, world):
    _, name = read_index(daemon.get(f"{world.path}.caibx"))[0]
    good = name.hex()
    wrong = f"{int(good[0], 16) ^ 1:x}{good[1:]}"
    for path in (
        f"{world.path}.castr/{wrong[:4]}/{wrong}.cacnk",
        f"{world.path}.castr/0000/{good}.cacnk",
        f"{world.path}.castr/{good[:4]}/{good}",
        f"{world.path}.castr/{good[:4]}/{good.upper()}.cacnk",
        f"{world.path}/{good[:4]}/{good}.cacnk",
        f"/pacballs/default.castr/{good[:4]}/{good}.cacnk",
        f"{world.path}.castr/{good[:4]}",
    ):
        assert daemon.request(path)[0] == 404, path


def test_known_mirrors_are_named(world):
    named = PacballConfig(url="https://a.example/x", mirrors=("http://b.example", "https://c.example/y"))
    with running(world.origin.store.path, ServerLimits(pacballs=QUICK), pacballs=named) as daemon:
        file = ET.fromstring(daemon.get(f"{world.path}.meta4")).find(f"{METALINK}file")
        urls = [one.text for one in file.findall(f"{METALINK}url")]
        assert urls == [f"{base}{world.path}" for base in (named.url, *named.mirrors)]
        _, headers, _ = daemon.request(world.path, method="HEAD")
        assert f"<http://b.example{world.path}>; rel=duplicate; pri=1" in headers["link"]
        assert f"<https://c.example/y{world.path}>; rel=duplicate; pri=2" in headers["link"]
        assert headers["digest"].startswith("sha-256=")


def test_the_lists_for_people_lead_to_everything(daemon, world):
    status, headers, body = daemon.request("/pacballs/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script" not in body.decode()
    links = re.findall(r'href="\.\.([^"]+)"', body.decode())
    assert links == [world.path, f"{world.path}.meta4", f"/files/{NAME}/"]
    for path in links:
        assert daemon.request(path, method="HEAD")[0] == 200
    top = daemon.get(f"/files/{NAME}/").decode()
    assert "odd name ?#%&amp;&lt;b&gt;.txt" in top
    assert "abs</a> -&gt; /etc/passwd" in top
    odd = re.search(r'href="\./(odd[^"]+)"', top)[1]
    assert daemon.get(f"/files/{NAME}/{odd}") == b"odd"
    for path in ("/pacballs", "/files", f"/files/{NAME}", f"/files/{NAME}/lib"):
        status, headers, _ = daemon.request(path)
        assert (status, headers["location"]) == (308, f"./{path.rpartition('/')[2]}/")


def test_files_of_a_release(daemon, world):
    for path in ("version", "none", "lib/shared.so", "lib/text-again", "lib/Gr%C3%BC%C3%9Fe", "bin/run"):
        status, headers, body = daemon.request(f"/files/{NAME}/{path}")
        file = world.tree / path.replace("%C3%BC%C3%9F", "üß")
        assert (status, body) == (200, file.read_bytes()), path
        assert headers["content-type"] == "application/octet-stream"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith("attachment; filename=")
        assert headers["last-modified"] == formatdate(int(file.stat().st_mtime), usegmt=True)
    assert (
        "filename*=UTF-8''Gr%C3%BC%C3%9Fe"
        in daemon.request(f"/files/{NAME}/lib/Gr%C3%BC%C3%9Fe")[1]["content-disposition"]
    )
    status, headers, body = daemon.request(f"/files/{NAME}/lib/shared.so", "Range: bytes=1000000-1000009")
    assert (status, body) == (206, (world.tree / "lib/shared.so").read_bytes()[1_000_000:1_000_010])
    assert daemon.request(f"/files/{NAME}/lib/shared.so", f"If-None-Match: {headers['etag']}")[0] == 304


def test_digests_of_single_files_for_who_asks_for_them(daemon, world):
    for path in ("lib/own.so", "none", "lib/link", "lib/text-again"):
        data = (world.tree / path).read_bytes()
        sha = base64.b64encode(hashlib.sha256(data).digest()).decode()
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        for method, body in (("HEAD", b""), ("GET", data)):
            status, headers, found = daemon.request(
                f"/files/{NAME}/{path}", "Want-Repr-Digest: sha-512=10, sha-256=1", method=method
            )
            assert (status, found, headers["repr-digest"]) == (200, body, f"sha-256=:{sha}:")
            assert "digest" not in headers
        _, headers, _ = daemon.request(f"/files/{NAME}/{path}", "Want-Digest: adler32, md5;q=0.5", method="HEAD")
        assert headers["digest"] == f"adler32={zlib.adler32(data):08x},md5={md5}"
        _, headers, _ = daemon.request(f"/files/{NAME}/{path}", "Want-Digest: sha-256")
        assert headers["digest"] == f"sha-256={sha}"
    own = f"/files/{NAME}/lib/own.so"
    status, headers, body = daemon.request(own, "Range: bytes=5-9", "Want-Repr-Digest: sha-256=3")
    assert (status, body) == (206, (world.tree / "lib/own.so").read_bytes()[5:10])
    digest = base64.b64encode(hashlib.sha256((world.tree / "lib/own.so").read_bytes()).digest()).decode()
    assert headers["repr-digest"] == f"sha-256=:{digest}:"
    for path, wanted in (
        (own, "X-None: 1"),
        (own, "Want-Repr-Digest: sha-256=0"),
        (own, "Want-Digest: unixsum, sha-256;q=0"),
        (f"/files/{NAME}/lib/shared.so", "Want-Repr-Digest: sha-256=9"),
    ):
        status, headers, _ = daemon.request(path, wanted, method="HEAD")
        assert (status, "digest" in headers, "repr-digest" in headers) == (200, False, False), wanted


def test_symbolic_links_are_followed_inside_of_the_release_alone(daemon, world):
    assert daemon.get(f"/files/{NAME}/lib/link") == (world.tree / "bin/run").read_bytes()
    assert daemon.get(f"/files/{NAME}/libs/f07.py") == (world.tree / "lib/python/f07.py").read_bytes()
    assert daemon.request(f"/files/{NAME}/libs/")[0] == 200
    for path, why in (("abs", "/etc/passwd"), ("lib/up", "leads out"), ("lib/loop", "loop")):
        status, _, body = daemon.request(f"/files/{NAME}/{path}")
        assert status == 404
        assert why in body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "../store.json",
        "..%2fstore.json",
        "lib/../version",
        "lib/%2e%2e/version",
        "lib//shared.so",
        "%00",
        "version%00",
        "lib%2fshared.so",
        "version/",
        "version/x",
        "lib/%zz",
        "%ff",
        "missing",
        "none/../version",
        "x" * 300,
        "a/" * 400,
    ],
)
def test_wrong_paths_lead_nowhere(daemon, path):
    status, _, body = daemon.request(f"/files/{NAME}/{path}")
    assert status == 404, body
    assert b"Traceback" not in body


def test_wrong_names_of_pacballs_and_releases(daemon, world):
    other = world.name.replace(world.name[-12:-3], "000000000")
    for path in (
        "/pacballs/x",
        f"/pacballs/{other}",
        f"/pacballs/{world.name}.gz",
        f"/pacballs/{world.name.replace(NAME, NEXT)}",
        f"/pacballs/..%2f{world.name}",
        f"/pacballs/%41{world.name[1:]}",
        f"/files/{NEXT}/version",
        "/files/../version",
        "/files//version",
    ):
        assert daemon.request(path)[0] == 404, path
    assert daemon.request(world.path, method="PUT")[0] == 405
    assert world.name in daemon.request(f"/pacballs/{other}")[2].decode()


@pytest.mark.slow
def test_digests_are_taken_once_and_kept(store, world):
    with running(store, ServerLimits(pacballs=QUICK)) as daemon:
        wait_until(lambda: daemon.status()["pacballs"]["digests_taken"] == 1)
        assert daemon.metrics()["pacball_pacballs_without_digests"] in (0, 1)
    with Store.open(store, writable=False) as opened, opened.ledger.reading() as connection:
        kept = pacballs.find(connection, PacballKey.of(world.origin.entry()))
    assert kept.sha256 == hashlib.sha256(world.data).digest()
    with running(store, ServerLimits(pacballs=QUICK)) as daemon:
        assert daemon.get(world.path) == world.data
        assert daemon.status()["pacballs"]["digests_taken"] == 0


def test_who_asks_before_the_digests_are_there_gets_what_needs_none(store, world):
    hasty = PacballLimits(digests_wait_seconds=0.01, look_seconds=3600)
    with running(store, ServerLimits(pacballs=hasty), pacballs=PacballConfig(ahead=False)) as daemon:
        status, headers, _ = daemon.request(world.path, method="HEAD")
        assert (status, int(headers["content-length"])) == (200, len(world.data))
        assert "repr-digest" not in headers
        assert daemon.request(world.path, "Range: bytes=16384-")[2] == world.data[STUB_BYTES:]
        status, headers, body = daemon.request(world.path)
        if status == 503:
            assert int(headers["retry-after"]) >= 5
            assert b"still being computed" in body
        wait_until(lambda: daemon.request(world.path)[0] == 200)
        assert daemon.request(world.path)[2] == world.data


@pytest.mark.slow
def test_a_store_that_cannot_be_written_serves_them_too(store, world):
    shutil.rmtree(store / "private/staging")
    with running(store, ServerLimits(pacballs=QUICK)) as daemon:
        assert daemon.get(world.path) == world.data


@contextmanager
def _stuck(daemon, path, headers=""):
    """A client that has asked, and reads nothing."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(daemon.address)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        yield sock


def _assembling(daemon: Daemon) -> int:
    return daemon.status()["pacballs"]["assembling"]


@pytest.mark.slow
def test_no_more_than_so_many_at_once(store, world):
    few = PacballLimits(assemblies=2, look_seconds=0.1, tick_seconds=0.05, digests_wait_seconds=20)
    with running(store, ServerLimits(pacballs=few, write_seconds=60)) as daemon:
        daemon.get(world.path)
        with _stuck(daemon, world.path), _stuck(daemon, world.path):
            wait_until(lambda: _assembling(daemon) == 2)
            status, headers, _ = daemon.request(world.path)
            assert (status, "retry-after" in headers) == (503, True)
            assert daemon.request(world.path, method="HEAD")[0] == 200
            assert daemon.request("/store.json")[0] == 200
            assert daemon.status()["pacballs"]["refused"] == 1
        # Who goes away makes room.
        wait_until(lambda: _assembling(daemon) == 0)
        assert daemon.get(world.path) == world.data


@pytest.mark.slow
def test_long_pages_and_documents_are_sent_to_a_few_at_once_too(store, world):
    few = PacballLimits(assemblies=1, look_seconds=0.1, tick_seconds=0.05, digests_wait_seconds=20, unseated_bytes=0)
    with running(store, ServerLimits(pacballs=few, write_seconds=60)) as daemon:
        daemon.get(world.path)
        paths = [f"/files/{NAME}/", f"{world.path}.meta4"]
        for path in paths:
            status, headers, body = daemon.request(path)
            assert (status, int(headers["content-length"])) == (200, len(body))
            status, headers, nothing = daemon.request(path, method="HEAD")
            assert (status, int(headers["content-length"]), nothing) == (200, len(body), b"")
        assert daemon.request(paths[1], "Range: bytes=7-1999")[2] == body[7:2000]
        with _stuck(daemon, world.path):
            wait_until(lambda: _assembling(daemon) == 1)
            for path in paths:
                assert daemon.request(path)[0] == 503
        wait_until(lambda: _assembling(daemon) == 0)
        assert daemon.request(paths[0])[0] == 200


@pytest.mark.slow
def test_who_does_not_read_is_cut_off(store, world):
    brief = ServerLimits(pacballs=PacballLimits(look_seconds=0.1, tick_seconds=0.05), write_seconds=0.3)
    with running(store, brief) as daemon:
        wait_until(lambda: daemon.request(world.path, method="HEAD")[1].get("repr-digest"))
        with _stuck(daemon, world.path):
            wait_until(lambda: _assembling(daemon) == 1)
            wait_until(lambda: _assembling(daemon) == 0)


@pytest.mark.slow
def test_a_stop_ends_what_waits_for_a_reader(store, world):
    begun = time.monotonic()
    patient = ServerLimits(pacballs=QUICK, write_seconds=3600, drain_seconds=1)
    with running(store, patient) as daemon:
        daemon.get(world.path)
        with _stuck(daemon, world.path):
            wait_until(lambda: _assembling(daemon) == 1)
            begun = time.monotonic()
        # The context ends with the daemon, which waits for nobody for an hour.
    assert time.monotonic() - begun < 60


def _damage(store: Path) -> list[Path]:
    """Damage the middle of the largest pack."""
    pack = max((store / "public/packs").rglob("??*/*"), key=lambda path: path.stat().st_size)
    flip(pack, pack.stat().st_size // 2)
    return [pack]


@pytest.mark.slow
def test_damage_is_never_sent_and_leads_to_repair(store, world, tmp_path):
    """What is right before it is sent, what is wrong never, nor an end that looks like one; then it is repaired from a peer."""
    with running(world.origin.store.path) as peer:
        limits = ServerLimits(pacballs=QUICK, scrub=PROMPT)
        upstream = UpstreamConfig(peers=(peer.url,))
        with running(store, limits, upstream=upstream, scrub=ScrubConfig(enabled=False)) as daemon:
            daemon.get(world.path)
            _damage(store)
            status, headers, body = daemon.request(world.path)
            assert status in (200, 503)
            if status == 200:
                assert len(body) < int(headers["content-length"])
                assert world.data.startswith(body)
            wait_until(lambda: daemon.status()["scrub"]["repaired"] > 0, seconds=40)
            wait_until(lambda: daemon.request(world.path, method="HEAD")[0] == 200, seconds=40)
            assert daemon.get(world.path) == world.data
            assert daemon.status()["scrub"]["damaged"] == 0


@pytest.mark.slow
def test_damage_met_while_digests_are_taken_is_told_and_written_down(store, world):
    with running(store, ServerLimits(pacballs=QUICK, scrub=PROMPT)) as daemon:
        daemon.get(world.path)
        for pack in (store / "public/packs").rglob("??*/*"):
            for at in range(1000, pack.stat().st_size, 20_000):
                flip(pack, at)
        status, headers, body = daemon.request(f"/files/{NAME}/lib/own.so", "Want-Digest: md5", method="GET")
        assert (status, "digest" in headers, b"is damaged here" in body) == (503, False, True)
        wait_until(lambda: daemon.status()["scrub"]["damaged"])


def test_what_is_damaged_for_good_is_not_offered_and_not_said_to_be_absent(store, world):
    with running(store, ServerLimits(pacballs=QUICK, scrub=PROMPT)) as daemon:
        daemon.get(world.path)
        _damage(store)
        daemon.request(world.path)
        wait_until(lambda: daemon.status()["scrub"]["damaged"] == 1)
        status, _, body = daemon.request(world.path)
        assert status == 503
        assert b"is damaged here" in body
        wait_until(lambda: world.name not in daemon.get("/pacballs/").decode())


@pytest.mark.slow
def test_what_is_not_damaged_is_served_until_the_rest_is_repaired(store, world):
    with running(store, ServerLimits(pacballs=QUICK, scrub=PROMPT)) as daemon:
        daemon.get(world.path)
        _damage(store)
        daemon.request(world.path)
        wait_until(lambda: daemon.status()["scrub"]["withdrawn"] == 1, seconds=40)
        wait_until(lambda: world.name not in daemon.get("/pacballs/").decode())
        for method in ("GET", "HEAD"):
            assert daemon.request(world.path, method=method)[0] == 503
        assert ET.fromstring(daemon.get(f"{world.path}.meta4")).find(f"{METALINK}file") is not None
        length, seen = 100_000, []
        for begin in range(0, len(world.data), length):
            status, _, body = daemon.request(world.path, f"Range: bytes={begin}-{begin + length - 1}")
            assert (status == 503 and b"is damaged here" in body) or body == world.data[begin : begin + length]
            seen.append(status)
        assert set(seen) == {206, 503}
        assert seen.count(206) > len(seen) // 2
        statuses = set()
        for path in ("lib/shared.so", "lib/again.so", "lib/own.so", "lib/changed.so", "version"):
            status, _, body = daemon.request(f"/files/{NAME}/{path}")
            assert status == 503 or body == (world.tree / path).read_bytes()
            statuses.add(status)
        assert statuses == {200, 503}
        assert daemon.request(f"/files/{NAME}/lib/")[0] == 200


@pytest.mark.slow
def test_a_pack_that_is_gone(store, world):
    with running(store, ServerLimits(pacballs=QUICK, scrub=PROMPT)) as daemon:
        daemon.get(world.path)
        for pack in (store / "public/packs").rglob("??*/*"):
            pack.unlink()
        status, _, body = daemon.request(world.path, "Range: bytes=1000000-1000999")
        assert status == 503
        assert b"is damaged here" in body


@pytest.mark.slow
def test_what_is_dropped_while_it_is_sent_is_cut_off_and_not_taken_for_damage(store, world):
    with running(store, ServerLimits(pacballs=QUICK, scrub=PROMPT)) as daemon:
        daemon.get(world.path)
        with _stuck(daemon, world.path) as sock:
            wait_until(lambda: _assembling(daemon) == 1)
            (store / "public/holdings" / NAME).unlink()
            for pack in (store / "public/packs").rglob("??*/*"):
                pack.unlink()
            sock.settimeout(20)
            _, headers, body = parse_answer(receive_all(sock))
            assert world.data.startswith(body)
            assert len(body) < int(headers["content-length"])
        assert daemon.request(world.path)[0] == 404
    with Store.open(store, writable=False) as opened, opened.ledger.reading() as connection:
        assert damage.unrepaired(connection, limit=10) == []


@pytest.mark.slow
def test_a_release_that_was_withdrawn_says_so(store, world, tmp_path):
    origin = Origin(tmp_path, Store.open(store, writable=True), world.origin.catalog, world.origin.keys).again()
    withdrawal = Withdrawal(int(NOW), "wrong <b>jets</b>")
    origin.catalog.withdraw(Release.parse(NAME), withdrawal, origin.keys, now=NOW)
    origin.store.close()
    with running(store, ServerLimits(pacballs=QUICK)) as daemon:
        assert "WITHDRAWN: wrong &lt;b&gt;jets&lt;/b&gt;" in daemon.get("/pacballs/").decode()
        assert daemon.get(world.path) == world.data


@pytest.mark.slow
def test_a_new_release_appears(store, world, tmp_path):
    tree = make_tree(tmp_path / "next", version="2", kib=300)
    (tree / "big").write_bytes(noise("big", 300_000))
    with running(store, ServerLimits(pacballs=QUICK, catalog_pause_seconds=0.01)) as daemon:
        assert NEXT not in daemon.get("/pacballs/").decode()
        origin = Origin(tmp_path, Store.open(store, writable=True), world.origin.catalog, world.origin.keys).again()
        origin.publish(tree, NEXT)
        origin.store.close()
        wait_until(lambda: NEXT in daemon.get("/pacballs/").decode())
        built = build(tree, Release.parse(NEXT), tmp_path / "next.sh", progress=Silent())
        assert daemon.get(f"/pacballs/{built.stub.file_name}") == (tmp_path / "next.sh").read_bytes()


@pytest.mark.slow
def test_a_mirror_has_them_once_it_holds_the_release_whole(world, tmp_path):
    limits = ServerLimits(pacballs=QUICK, sync=SyncLimits(look_seconds=0.1))
    with running(world.origin.store.path, ServerLimits(pacballs=QUICK)) as origin:
        upstream = UpstreamConfig(urls=(origin.url,))
        with running(tmp_path / "mirror", limits, upstream=upstream) as mirror:
            wait_until(lambda: mirror.status()["replication"]["version"])
            status, _, body = mirror.request(world.path)
            assert (status, b"is not held whole here" in body) == (404, True)
            page = mirror.get("/pacballs/").decode()
            assert (world.name in page, "A mirror offers only those that it holds whole" in page) == (False, True)
        wanted = SyncConfig(subscriptions=(Subscription("Demo-*"),))
        with running(tmp_path / "mirror", limits, upstream=upstream, sync=wanted) as mirror:
            wait_until(lambda: mirror.request(world.path, method="HEAD")[0] == 200, seconds=60)
            assert mirror.get(world.path) == world.data
            # One may be continued at another.
            etags = [daemon.request(world.path, method="HEAD")[1]["etag"] for daemon in (origin, mirror)]
            assert etags[0] == etags[1]


def test_tokens_are_asked_for_here_too(store, world, tmp_path):
    _, text = create_token(tmp_path / "tokens", name="site", role="read", now=0, expires=None)
    access = AccessConfig(read="token", status="token", token_file=tmp_path / "tokens")
    with running(store, ServerLimits(pacballs=QUICK), access=access) as daemon:
        for path in ("/pacballs/", world.path, f"{world.path}.meta4", f"/files/{NAME}/version"):
            assert daemon.request(path)[0] == 401
        status, headers, _ = daemon.request(f"/files/{NAME}/version", f"Authorization: Bearer {text}")
        assert status == 200
        assert headers["cache-control"].startswith("private")

"""Reading from storage elements as Rucio's clients do: what breaks goes on, what is short never counts, errors say why."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rucio.common import exception

from pacmirror.delivery.rucio.protocol import Default, Docroot
from tests.mirror.authority import Authority

DATA = bytes(os.urandom(1 << 16)) * 20
OTHER = DATA[::-1] + b"more"
ID = "ab" + "1" * 62
_RANGE = re.compile(r"bytes=([0-9]+)-\Z")


@dataclass
class Server:
    """One file at any path. `answers` are how the next requests are answered; after the last of them, well."""

    data: bytes = DATA
    etag: str = '"1"'
    answers: list[Callable[[Handler], None]] = field(default_factory=list)
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    sent: int = 0
    port: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        told = tuple(self.headers.get(name, "") for name in ("Range", "If-Range"))
        self.server_of.asked.append((self.command, self.path, *told))
        answers = self.server_of.answers
        with contextlib.suppress(OSError):
            (answers.pop(0) if answers else well)(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def file(self, share: float = 1.0, **changed: object) -> None:
        """The file, or its part, of which only `share` is sent."""
        data, etag = self.server_of.data, self.server_of.etag
        asked = _RANGE.match(self.headers.get("Range", ""))
        first = int(asked[1]) if asked and self.headers.get("If-Range", etag) == etag else 0
        headers = {"Content_Length": len(data) - first, **({"ETag": etag} if etag else {})}
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self.head(206 if first else 200, **{**headers, **changed})
        if self.command == "HEAD":
            return
        end = first + int((len(data) - first) * share)
        self.wfile.write(data[first:end])
        self.server_of.sent += end - first
        self.close_connection = self.close_connection or share < 1

    def log_message(self, *_: object) -> None:
        pass


def well(handler: Handler) -> None:
    handler.file()


def half(handler: Handler) -> None:
    handler.file(0.5)


def saying(status: int, **headers: object) -> Callable[[Handler], None]:
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def broken(handler: Handler) -> None:
    handler.close_connection = True


@contextlib.contextmanager
def serving(tls=None, **options: object) -> Iterator[Server]:
    served = Server(**options)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"server_of": served}))
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    httpd.handle_error = lambda *_: None
    served.port = httpd.server_port
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextlib.contextmanager
def element(
    port: int, *, kind: type[Default] = Default, scheme: str = "http", prefix: str = "/base/", **credentials: str
):
    """A connected storage element."""
    attributes = {"auth_token": None, "scheme": scheme, "hostname": "127.0.0.1", "port": port, "prefix": prefix}
    one = kind(attributes, {"rse": "ORIGIN", "deterministic": False, "sign_url": None})
    one.connect(credentials)
    try:
        yield one
    finally:
        one.close()


def left(where):
    return sorted(path.name for path in where.iterdir())


def test_a_file_comes_whole(tmp_path):
    with serving() as server, element(server.port) as rse:
        rse.get(rse.path2pfn(f"packs/ab/{ID}"), str(tmp_path / "file"))
        assert rse.stat("x") == {"filesize": len(DATA)}
    assert (tmp_path / "file").read_bytes() == DATA
    assert left(tmp_path) == ["file"]
    assert server.asked == [("GET", f"/base/packs/ab/{ID}", "", ""), ("HEAD", "/base/x", "", "")]


def test_rucio_does_not_resume_inside_a_file_but_this_does(tmp_path):
    with serving(answers=[half, half, broken, half]) as server, element(server.port) as rse:
        rse.get("x", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.sent < len(DATA) * 1.2
    begins = [re.sub(r"\D", "", asked) for _, _, asked, _ in server.asked]
    assert begins[0] == ""
    assert sorted(begins, key=lambda text: int(text or 0)) == begins
    assert {etag for _, _, asked, etag in server.asked if asked} == {'"1"'}


def test_a_file_that_changed_meanwhile_is_not_mixed(tmp_path):
    def change(handler):
        half(handler)
        handler.server_of.data, handler.server_of.etag = OTHER, '"2"'

    with serving(answers=[change, half]) as server, element(server.port) as rse:
        rse.get("x", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == OTHER


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_strong_etag_it_begins_again(tmp_path, etag):
    with serving(etag=etag, answers=[half]) as server, element(server.port) as rse:
        rse.get("x", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == DATA
    assert {asked for _, _, asked, _ in server.asked} == {""}


def other_part(handler):
    handler.file(Content_Range=f"bytes 5-{len(DATA) - 1}/{len(DATA)}")


def all_of_it(handler):
    del handler.headers["Range"]
    handler.file()


@pytest.mark.parametrize(
    "odd", [other_part, all_of_it, saying(416), saying(206), saying(503, Retry_After=1), saying(429)]
)
def test_odd_answers_on_the_way_do_no_harm(tmp_path, odd):
    with serving(answers=[half, odd]) as server, element(server.port) as rse:
        rse.get("x", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_server_without_lengths(tmp_path):
    def chunked(handler):
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(b"5\r\nabcde\r\n")
        if len(handler.server_of.asked) == 1:
            handler.close_connection = True  # before the end is said
        else:
            handler.wfile.write(b"0\r\n\r\n")

    with serving(answers=[chunked, chunked]) as server, element(server.port) as rse:
        rse.get("x", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"abcde"
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "error", "message", "seconds"),
    [
        (saying(404), exception.SourceNotFound, "is not there", 60.0),
        (saying(410), exception.SourceNotFound, "is not there", 60.0),
        (saying(401), exception.SourceAccessDenied, "wants a token", 60.0),
        (saying(403), exception.SourceAccessDenied, "forbids it", 60.0),
        (saying(418), exception.ServiceUnavailable, "418", 60.0),
        (saying(301, Location="/base/x"), exception.ServiceUnavailable, "redirects", 60.0),
        (saying(200, Content_Encoding="gzip"), exception.ServiceUnavailable, "encoded", 60.0),
        (saying(500), exception.ServiceUnavailable, "the server answers 500", 1.5),
        (broken, exception.ServiceUnavailable, "does not answer", 1.5),
        (lambda handler: handler.file(0.0), exception.ServiceUnavailable, "the connection broke", 1.5),
    ],
)
def test_a_short_file_never_counts(tmp_path, answer, error, message, seconds):
    (tmp_path / "file").write_bytes(b"what was there")
    with (
        serving(answers=[answer] * 50) as server,
        element(server.port) as rse,
        pytest.raises(error, match=message) as caught,
    ):
        rse.get("x", str(tmp_path / "file"), transfer_timeout=seconds)
    assert f"http://127.0.0.1:{server.port}/base/x" in str(caught.value)
    assert left(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"what was there"


def test_nobody_there(tmp_path):
    with serving() as server:
        pass
    with element(server.port) as rse:
        with pytest.raises(exception.ServiceUnavailable, match="does not answer"):
            rse.get("x", str(tmp_path / "file"), transfer_timeout=0.35)
        assert left(tmp_path) == []
        with pytest.raises(exception.ServiceUnavailable, match="does not answer"):
            rse.exists("x")


def test_a_server_that_is_silent_ends_with_the_time_that_rucio_gives(tmp_path):
    gone = threading.Event()
    with serving(answers=[lambda _: gone.wait(60)]) as server, element(server.port) as rse:
        with pytest.raises(exception.ServiceUnavailable):
            rse.get("x", str(tmp_path / "file"), transfer_timeout=0.5)
        gone.set()


def test_where_nothing_can_be_written(tmp_path):
    with serving() as server, element(server.port) as rse:
        with pytest.raises(exception.DestinationNotAccessible, match="No such file or directory"):
            rse.get("x", str(tmp_path / "no/file"))
        (tmp_path / "directory").mkdir()
        with pytest.raises(exception.DestinationNotAccessible, match="directory"):
            rse.get("x", str(tmp_path / "directory"))
    assert left(tmp_path) == ["directory"]


def test_unknown_is_not_absent():
    with (
        serving(answers=[well, saying(404), saying(410), saying(500), saying(403)]) as server,
        element(server.port) as rse,
    ):
        assert [rse.exists("x") for _ in range(3)] == [True, False, False]
        with pytest.raises(exception.ServiceUnavailable, match="500"):
            rse.exists("x")
        with pytest.raises(exception.SourceAccessDenied):
            rse.exists("x")


def test_tls_by_the_authorities_that_are_given_and_never_back_to_plain_http(tmp_path):
    authority = Authority(tmp_path / "ca")
    with serving() as plain:
        elsewhere = saying(302, Location=f"http://127.0.0.1:{plain.port}/x")
        with serving(authority.serve("127.0.0.1"), answers=[well, elsewhere]) as server:
            with element(server.port, scheme="https", ca_cert=str(authority.ca_file)) as rse:
                rse.get("x", str(tmp_path / "file"))
                assert (tmp_path / "file").read_bytes() == DATA
                with pytest.raises(exception.ServiceUnavailable, match="without TLS"):
                    rse.get("x", str(tmp_path / "file"))
            with (
                element(server.port, scheme="https") as rse,
                pytest.raises(exception.ServiceUnavailable, match="not trusted"),
            ):
                rse.get("x", str(tmp_path / "file"))


@pytest.mark.parametrize("verb", ["put", "delete", "rename"])
def test_a_store_is_not_changed_by_rucio(verb):
    with element(1) as rse, pytest.raises(exception.RSEOperationNotSupported, match="is not changed by Rucio"):
        getattr(rse, verb)("a", "b")


@pytest.mark.parametrize(
    ("prefix", "url"),
    [("", "/p/q"), ("/", "/p/q"), ("base", "/base/p/q"), ("/base", "/base/p/q"), ("/a/b/", "/a/b/p/q")],
)
def test_urls(prefix, url):
    with element(81, prefix=prefix) as rse:
        assert rse.path2pfn("p/q") == rse.path2pfn("/p/q") == f"http://127.0.0.1:81{url}"
        assert rse.path2pfn("https://elsewhere/p") == "https://elsewhere/p"


def test_the_paths_of_a_docroot():
    pacball = f"Demo-1.0-x86_64.b3-{ID}.sh"
    with element(1, kind=Docroot) as rse:
        assert rse._get_path("sw", f"{ID}.pack") == f"packs/ab/{ID}"
        assert rse._get_path("sw", f"{ID}.manifest") == f"manifests/ab/{ID}"
        assert rse._get_path("sw", f"{ID}.bundle") == f"bundles/ab/{ID}"
        assert rse._get_path("sw", pacball) == f"pacballs/{pacball}"
        for name in (
            ID,
            f"{ID}.packs",
            f"../{ID}.pack",
            f"{ID[1:]}.pack",
            f"{ID.upper()}.pack",
            "x.sh",
            f"a/b.b3-{ID}.sh",
        ):
            with pytest.raises(exception.RSEFileNameNotSupported, match="no file of a pacball store"):
                rse._get_path("sw", name)

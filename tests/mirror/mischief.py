"""A mirror that serves real files with ranges, well or badly: what it does wrong is chosen for each request."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]+)\Z")
PAGE = b"<!doctype html><title>Sign in</title>"


@dataclass
class Request:
    """What was asked for, and the answer that would be right."""

    path: str
    number: int
    status: int
    offset: int
    body: bytes
    total: int
    length: int = 0


@dataclass
class Mirror:
    """A server over `files`. `fault` is asked for each request: None to answer well."""

    files: Mapping[str, bytes]
    fault: Callable[[Request], Fault | None]
    bytes_per_second: float | None = None
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    bytes_sent: int = 0
    largest_sum: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    connections: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _free_at: float = 0.0

    def packs_asked(self) -> list[Request]:
        """The requests for ranges of packs."""
        return [request for request in self.requests if request.path.startswith("packs/")]

    def count(self, length: int) -> None:
        """Count bytes as sent, and wait as the line's rate demands."""
        with self._lock:
            self.bytes_sent += length
            if self.bytes_per_second is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + length / self.bytes_per_second
            pause = self._free_at - now
        self.stopped.wait(pause)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def setup(self) -> None:
        super().setup()
        self.mirror.connections.add(self.connection)

    def finish(self) -> None:
        self.mirror.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        request = self._request()
        fault = self.mirror.fault(request) if request is not None else missing
        with contextlib.suppress(OSError):
            if fault is None:
                self.answer(request)
            else:
                fault(self, request)

    def _request(self) -> Request | None:
        path = self.path.lstrip("/")
        data = self.mirror.files.get(path)
        with self.mirror._lock:
            found = _RANGE.match(self.headers.get("Range", ""))
            size = len(data or b"")
            first, last = (int(found[1] or 0), int(found[2])) if found else (0, size - 1)
            if found and not found[1]:  # the last bytes
                first, last = max(size - last, 0), size - 1
            number = len(self.mirror.requests)
            body = (data or b"")[first : last + 1]
            request = Request(path, number, 206 if found else 200, first, body, len(data or b""), len(body))
            self.mirror.requests.append(replace(request, body=b""))
        return request if data is not None else None

    def header(self, status: int, headers: Mapping[str, object]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def right(self, request: Request) -> dict[str, object]:
        """The headers of a right answer."""
        headers: dict[str, object] = {"Content-Length": len(request.body)}
        if request.status == 206:
            last = request.offset + len(request.body) - 1
            headers["Content-Range"] = f"bytes {request.offset}-{last}/{request.total}"
        return headers

    def answer(self, request: Request, body: bytes | None = None) -> None:
        """The right headers, and `body` or the right one."""
        self.header(request.status, self.right(request))
        self.send(request.body if body is None else body)

    def send(self, body: bytes) -> None:
        for at in range(0, len(body), 16384):
            piece = body[at : at + 16384]
            self.mirror.count(len(piece))
            self.wfile.write(piece)

    def hold(self) -> None:
        """Say nothing until the test ends."""
        self.mirror.stopped.wait(60)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


Fault = Callable[[Handler, Request], None]


def missing(handler: Handler, _request: Request | None) -> None:
    handler.header(404, {"Content-Length": 0})


def flip(handler: Handler, request: Request) -> None:
    at = len(request.body) // 2
    handler.answer(request, request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 :])


def truncate(handler: Handler, request: Request) -> None:
    handler.answer(request, request.body[: len(request.body) // 2])
    handler.close_connection = True


def stall_at(share: float) -> Fault:
    """Sends so much of the body, and then nothing; 0 for nothing at all, 1 for all but the last byte."""

    def stall(handler: Handler, request: Request) -> None:
        if share:
            handler.answer(request, request.body[: int((len(request.body) - 1) * share)])
            handler.wfile.flush()
        handler.hold()

    return stall


def drip(handler: Handler, request: Request) -> None:
    handler.header(request.status, handler.right(request))
    for at in range(len(request.body)):
        handler.wfile.write(request.body[at : at + 1])
        if handler.mirror.stopped.wait(0.02):
            return


def endless(handler: Handler, request: Request) -> None:
    headers = handler.right(request)
    del headers["Content-Length"]
    handler.header(request.status, {**headers, "Transfer-Encoding": "chunked"})
    while not handler.mirror.stopped.is_set():
        handler.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")


def longer(handler: Handler, request: Request) -> None:
    handler.header(request.status, {**handler.right(request), "Content-Length": len(request.body) + 10})
    handler.send(request.body + b"0123456789")


def shorter(handler: Handler, request: Request) -> None:
    handler.header(request.status, {**handler.right(request), "Content-Length": len(request.body) - 1})
    handler.send(request.body[:-1])


def saying(status: int, headers: Mapping[str, object] | None = None) -> Fault:
    return lambda handler, _request: handler.header(status, {"Content-Length": 0, **(headers or {})})


def other_range(handler: Handler, request: Request) -> None:
    last = request.offset + len(request.body)
    content_range = f"bytes {request.offset + 1}-{last}/{request.total}"
    handler.header(206, {"Content-Length": len(request.body), "Content-Range": content_range})
    handler.send(request.body)


def whole(handler: Handler, request: Request) -> None:
    body = handler.mirror.files[request.path]
    handler.header(200, {"Content-Length": len(body)})
    handler.send(body)


def page(handler: Handler, _request: Request) -> None:
    handler.header(200, {"Content-Type": "text/html", "Content-Length": len(PAGE)})
    handler.wfile.write(PAGE)


def die(handler: Handler, _request: Request) -> None:
    handler.close_connection = True


redirect = saying(302, {"Location": "http://127.0.0.1:1/elsewhere"})
busy = saying(503, {"Retry-After": 1})


def waiting_for(go_on: threading.Event) -> Callable[[Request], Fault | None]:
    """Answer well, and nothing before that."""

    def fault(request: Request) -> Fault | None:
        go_on.wait(60)
        return None

    return fault


def of_packs(fault: Fault, *, first: int = 0, last: int = 1 << 30) -> Callable[[Request], Fault | None]:
    """`fault` for ranges of packs, from the `first` to the `last` that is asked for."""
    seen = 0

    def choose(request: Request) -> Fault | None:
        nonlocal seen
        if not request.path.startswith("packs/"):
            return None
        seen += 1
        return fault if first < seen <= last else None

    return choose


@contextlib.contextmanager
def serving(
    files: Mapping[str, bytes],
    fault: Callable[[Request], Fault | None] = lambda _: None,
    *,
    bytes_per_second: float | None = None,
) -> Iterator[Mirror]:
    """A mirror over `files` on a free port."""
    mirror = Mirror(files, fault, bytes_per_second)
    handler = type("Bound", (Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # so that nothing is left open when the block has ended
    server.handle_error = lambda *_: None  # clients that go away
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield mirror
    finally:
        mirror.stopped.set()
        server.shutdown()
        thread.join()
        for connection in list(mirror.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()

"""A line in front of a server that counts what passes, and can be cut and mended."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

PIECE_BYTES = 256 * 1024
_RESET = struct.pack("ii", 1, 0)


class Line:
    """A relay on 127.0.0.1. `passed` counts all bytes that it gave to clients, whether or not they took them."""

    def __init__(self, server: tuple[str, int], listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.passed = 0
        self._server = server
        self._listener = listener
        self._moved = threading.Condition()
        self._open: set[socket.socket] = set()
        self._is_cut = False

    def wait_for(self, passed: int, unless: Callable[[], object], *, seconds: float = 60.0) -> bool:
        """Return when so many bytes have passed, or `unless` holds, and False then; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._moved:
            while self.passed < passed:
                assert time.monotonic() < deadline, "waited in vain"
                self._moved.wait(0.05)
                if unless():
                    return False
        return True

    def cut(self) -> None:
        """Break every connection, and refuse new ones from now on."""
        with self._moved:
            self._is_cut = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def accept(self) -> None:
        """Serve until the listener is shut down."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._is_cut:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            with socket.create_connection(self._server) as server, self._listed(client, server):
                upward = threading.Thread(target=_pass_on, args=(client, server), daemon=True)
                upward.start()
                self._pass_down(client, server)
                upward.join(5)

    @contextlib.contextmanager
    def _listed(self, *ends: socket.socket) -> Iterator[None]:
        with self._moved:
            self._open.update(ends)
        try:
            yield
        finally:
            with self._moved:
                self._open.difference_update(ends)

    def _pass_down(self, client: socket.socket, server: socket.socket) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        try:
            while count := server.recv_into(buffer):
                client.sendall(buffer[:count])
                with self._moved:
                    self.passed += count
                    self._moved.notify_all()
        finally:
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def line_to(url: str) -> Iterator[Line]:
    """A line to the server at `url`."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = Line((host, int(port)), listener)
        thread = threading.Thread(target=line.accept, daemon=True)
        thread.start()
        try:
            yield line
        finally:
            line.cut()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)

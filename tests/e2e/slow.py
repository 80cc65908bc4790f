"""A line of limited rate in front of a server, so that something can happen while bytes are under way."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

PIECE_BYTES = 16 * 1024


@contextlib.contextmanager
def slowed(url: str, *, bytes_per_second: int) -> Iterator[str]:
    """The URL of a relay to `url` that lets `bytes_per_second` through towards the client, all connections together."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = _Line((host, int(port)), bytes_per_second)
        thread = threading.Thread(target=line.accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            line.closed = True
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


class _Line:
    def __init__(self, server: tuple[str, int], bytes_per_second: int) -> None:
        self._server = server
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.closed = False

    def accept(self, listener: socket.socket) -> None:
        while not self.closed:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE_BYTES)
            upward = threading.Thread(target=self._pass_on, args=(client, server), daemon=True)
            upward.start()
            while not self.closed and (piece := server.recv(PIECE_BYTES)):
                self._wait(len(piece))
                client.sendall(piece)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            upward.join(5)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(PIECE_BYTES):
                server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _wait(self, length: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + length / self._rate
            pause = self._free_at - now
        time.sleep(pause)

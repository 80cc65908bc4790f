"""What systemd and the daemon tell each other: sd_notify(3), and the sockets of sd_listen_fds(3).

Both are a few lines of the environment, and nothing where it is not set: then there is no systemd, or it does not want to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping

from pacstore.errors import Refused

_FIRST_DESCRIPTOR = 3
_LEAST_WATCHDOG_SECONDS = 0.05


class Supervisor:
    """The systemd, if there is any, that started this process. For use in one event loop."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._descriptors = _numbers(environment, "LISTEN_FDS", "LISTEN_PID") or 0
        microseconds = _numbers(environment, "WATCHDOG_USEC", "WATCHDOG_PID")
        self._watchdog_seconds = microseconds / 1e6 if microseconds else None
        self.describe: Callable[[], str] = lambda: "starting"
        """What the daemon does, in a line for `systemctl status`."""

    def take_socket(self) -> socket.socket | None:
        """The listening socket that was handed over, or None. Raises Refused for several, or for one of another kind."""
        if not self._descriptors:
            return None
        if self._descriptors > 1:
            hint = "write one ListenStream= into the socket unit"
            raise Refused(f"{self._descriptors} sockets were handed over", place="LISTEN_FDS", hint=hint)
        sock = socket.socket(fileno=_FIRST_DESCRIPTOR)
        stream = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        if not stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            hint = "write ListenStream=PORT or ListenStream=ADDRESS:PORT, and not Accept=yes, into the socket unit"
            raise Refused("the socket that was handed over does not listen for TCP", place="LISTEN_FDS", hint=hint)
        os.set_inheritable(_FIRST_DESCRIPTOR, False)
        sock.setblocking(False)
        return sock

    def tell(self, **values: str) -> None:
        """Tell these, such as `READY="1"`. It is no error if nobody listens."""
        if not self._address:
            return
        lines = "\n".join(f"{key}={value}" for key, value in values.items())
        # A name that begins with @ has no file: then a zero byte is in its place.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(lines.encode(), address)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside, the watchdog is told, twice in its time, that this event loop is alive, and what it does."""
        task = asyncio.create_task(self._keep_telling())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _keep_telling(self) -> None:
        if self._watchdog_seconds is None:
            return
        while True:
            self.tell(WATCHDOG="1", STATUS=self.describe())
            await asyncio.sleep(max(self._watchdog_seconds / 2, _LEAST_WATCHDOG_SECONDS))


def _numbers(environment: Mapping[str, str], name: str, process: str) -> int | None:
    """The number in the variable `name`, if the one in `process` is this process, or is not there."""
    value, meant = environment.get(name, ""), environment.get(process, str(os.getpid()))
    return int(value) if value.isascii() and value.isdigit() and meant == str(os.getpid()) else None

"""Runs the daemon: listens, guards its connections, and stops cleanly.

What aiohttp leaves open is closed here: its keep-alive timer, which since 3.14 also ends half-sent headers, gets a sensible
time; connections are counted (`listener`); and the kernel drops peers that acknowledge nothing (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.app import make_app
from pacmirror.config import format_address
from pacmirror.config_rules import check_config
from pacmirror.listener import Gate
from pacmirror.logs import configure_logs
from pacmirror.routes import SERVICES, TRAFFIC
from pacmirror.status import pacball_version
from pacmirror.supervisor import Supervisor
from pacmirror.traffic import make_request_log
from pacstore.errors import PacballError, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pacmirror.config import Config
    from pacmirror.limits import ServerLimits

_log = logging.getLogger(__name__)


def serve(config: Config, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end the requests in progress; a second SIGINT ends at once.

    `ready` is called with the base URL, real port included, once connections are accepted. Runs in the main thread.
    Raises Refused or Unavailable, as `run`.
    """
    configure_logs(config.log)
    asyncio.run(_run_until_signal(config, ready))


async def run(
    config: Config, *, ready: Callable[[str], None], stop: asyncio.Event, supervisor: Supervisor | None = None
) -> None:
    """Serve until `stop` is set; at most `drain_seconds` later every connection is closed.

    Raises Refused if the address cannot be listened on, Unavailable if it is in use, or what `make_app` raises.
    """
    supervisor = supervisor or Supervisor({})
    with contextlib.closing(supervisor.take_socket() or listen(config)) as sock:
        # What may be said of tokens depends on who can connect, also to a socket that was handed over.
        check_config(replace(config, host=sock.getsockname()[0]))
        _allow_descriptors(config.limits)
        _drop_stuck_peers(sock, config.limits)
        # The watchdog is told of the end as well: that may take longer than it waits.
        async with supervisor.watching(), _running(config, sock) as app:
            supervisor.describe = lambda: _describe(app)
            host, port = sock.getsockname()[:2]
            ready(f"http://{format_address(host, port)}")
            supervisor.tell(READY="1", STATUS=supervisor.describe())
            _log.info("pacball %s serves %s, %s", pacball_version(), config.store, _kind(config))
            await stop.wait()
            _log.info("stops: what is in progress has %g seconds to end", config.limits.drain_seconds)
            supervisor.describe = lambda: "ending what is in progress"
            supervisor.tell(STOPPING="1", STATUS=supervisor.describe())


def _kind(config: Config) -> str:
    if config.is_mirror:
        return f"a mirror of {', '.join(config.upstream.urls)}"
    rse = config.delivery.rucio.rse
    return f"the RSE {rse} of a Rucio" if rse else "an origin"


def _describe(app: web.Application) -> str:
    """One line for `systemctl status`."""
    warnings = len(app[SERVICES].warnings())
    return f"{app[TRAFFIC].open_connections} connections, {warnings} warnings"


async def _run_until_signal(config: Config, ready: Callable[[str], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stop_once() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # the next one is a KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once)
    await run(config, ready=ready, stop=stop, supervisor=Supervisor())


@contextlib.asynccontextmanager
async def _running(config: Config, sock: socket.socket) -> AsyncIterator[web.Application]:
    limits, app = config.limits, make_app(config)
    runner = web.AppRunner(
        app,
        access_log_class=make_request_log(config, app[TRAFFIC]),
        keepalive_timeout=limits.header_seconds,
        lingering_time=limits.body_seconds,
        max_line_size=limits.header_line_bytes,
        max_field_size=limits.header_line_bytes,
        max_headers=limits.header_fields,
        shutdown_timeout=limits.drain_seconds / 2,  # aiohttp waits for it twice
    )
    try:
        await runner.setup()
        gate = Gate(config, app[TRAFFIC], _server(runner))
        server = await asyncio.get_running_loop().create_server(gate.make_protocol, sock=sock, backlog=limits.backlog)
        try:
            yield app
        finally:
            await _stop_accepting(sock)
            server.close()
            await runner.cleanup()
            await gate.end()
    finally:
        await runner.cleanup()


async def _stop_accepting(sock: socket.socket) -> None:
    """Let what was accepted already become connections: asyncio loses those, unclosed, that its server no longer awaits."""
    asyncio.get_running_loop().remove_reader(sock)
    for _ in range(2):
        await asyncio.sleep(0)


def _server(runner: web.AppRunner) -> web.Server:
    if runner.server is None:
        raise PacballError("the daemon was not set up")
    return runner.server


def listen(config: Config) -> socket.socket:
    """A listening socket for the configured address. Raises Refused or Unavailable, which say what is wrong with it."""
    address = format_address(config.host, config.port)
    try:
        sock = _bind(config)
    except OSError as error:
        raise _explain(error, address) from error
    return sock


def _drop_stuck_peers(sock: socket.socket, limits: ServerLimits) -> None:
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Accepted sockets inherit it; it also ends peers that never read what is left in a closed socket's buffer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.write_seconds * 1000))


def _bind(config: Config) -> socket.socket:
    found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name for both loopbacks means 127.0.0.1: most of what people will type next.
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    both = config.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(
        (str(address[0]), config.port), family=family, backlog=config.limits.backlog, dualstack_ipv6=both
    )


def _explain(error: OSError, address: str) -> PacballError:
    if isinstance(error, socket.gaierror):
        return Refused("the host name is not known", place=address, hint="write an address of this machine")
    if error.errno == errno.EADDRINUSE:
        return Unavailable("the address is in use", place=address, hint="stop the other server, or take another port")
    if error.errno == errno.EACCES:
        return Refused("may not be listened on by this user", place=address, hint="take a port from 1024 on")
    if error.errno == errno.EADDRNOTAVAIL:
        return Refused("is no address of this machine", place=address, hint="0.0.0.0 or [::] means all of them")
    return Unavailable(f"cannot be listened on: {error.strerror}", place=address)


def _allow_descriptors(limits: ServerLimits) -> None:
    """Each connection may need a socket and a file, each pack being filled one more; many systems allow 1,024 until asked."""
    wanted = 2 * limits.connections + limits.cache.packs + limits.backlog
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

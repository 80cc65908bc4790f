"""The addresses of a host, looked up in threads that nobody waits for: a dead name server must not keep a command from ending."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver

from pacmirror.threads import start_thread

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult


class Resolver(AbstractResolver):
    """What the system's resolver says (/etc/hosts, DNS), as aiohttp wants it."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`, in the order in which they are to be tried. Raises OSError."""
        found = await start_thread(lambda: look_up(host, port, family), name="pacball-resolver")
        return [
            {"hostname": host, "host": address, "port": port, "family": kind, "proto": protocol, "flags": _NUMERIC}
            for kind, protocol, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


_NUMERIC = int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)


def look_up(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[tuple[int, int, str]]:
    """Family, protocol and numeric address of each address of `host`, each once. Blocks; raises OSError."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    found = []
    for kind, _, protocol, _, address in infos:
        # A link-local address is of use with the interface alone, which only this spelling keeps.
        text, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        found.append((int(kind), int(protocol), text))
    return list(dict.fromkeys(found))

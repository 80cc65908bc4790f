"""Places that are apart: network namespaces with lines between them that are thin, or long, or fall silent.

Nothing of it is seen outside: all names are new, every device lives in a namespace, and all of them end with their block. A
line is a bridge in a namespace of its own, so that neither end notices what happens to it, as with a line of a provider's.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.e2e.site import END_S, READY_S, Outcome, Site
from tests.peers.programs import call, program, require_root

PORT = 8080
_MBIT = 125_000


def _in(namespace: str) -> tuple[str, ...]:
    return (program("nsenter"), f"--net=/run/netns/{namespace}")


class Place(Site):
    """A site in a namespace of its own."""

    def __init__(self, home: Path, namespace: str) -> None:
        super().__init__(home)
        self.namespace = namespace
        self.addresses: list[str] = []

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command there."""
        return _in(self.namespace)

    def start(self, *words: object, before: Sequence[object] = ()) -> subprocess.Popen:
        """Start the command there."""
        return super().start(*words, before=(*self.inside, *before))

    def call(self, *words: object, check: bool = True) -> subprocess.CompletedProcess:
        """Run a program there to its end."""
        return call("nsenter", self.inside[1], "--", program(str(words[0])), *words[1:], check=check)

    def get(self, url: str) -> bytes:
        """The body of a small file, asked for from there."""
        return self.call("curl", "-sSf", "--max-time", "30", url).stdout.encode()

    def status(self, url: str) -> dict:
        """What the daemon at `url` says of itself."""
        return json.loads(self.get(f"{url}/v1/status"))

    @contextlib.contextmanager
    def daemon(self, store: Path, *words: object) -> Iterator[subprocess.Popen]:
        """A daemon on all addresses of this place, which must end cleanly if it still runs."""
        with self.serving_process(store, "--listen", f"0.0.0.0:{PORT}", *words) as (_, process):
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert Outcome.of(process, timeout=END_S + 40).code == 0

    def url(self, line: Line) -> str:
        """Where others reach this place's daemon over `line`."""
        return f"http://{line.addresses[self.namespace]}:{PORT}"


class Line:
    """Between `far` and `near`; what it carries towards `near` has a limit, and is counted."""

    def __init__(self, namespace: str, device: str, far: Place, near: Place, addresses: dict[str, str]) -> None:
        self.namespace = namespace
        self.device = device
        self.far = far
        self.near = near
        self.addresses = addresses

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._ip("link", "set", "middle", "down")

    def mend(self) -> None:
        """Let pass again."""
        self._ip("link", "set", "middle", "up")

    def limit(self, mbit: float) -> None:
        """Carry so many megabits a second, with a small queue, towards `near`."""
        burst = max(int(mbit * _MBIT / 100), 8_000)
        rate = ("rate", f"{int(mbit * 1000)}kbit", "burst", str(burst), "latency", "60ms")
        # Not changed but made anew: what waits in the queue could be too long for the new one, and would wait for ever.
        self._tc("del", check=False)
        self._tc("add", "tbf", *rate)

    def narrow(self, mtu: int) -> None:
        """Lose all larger packets silently, as tunnels do where ICMP is filtered; the far end does not try smaller ones."""
        self.far.call("sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_mtu_probing")
        # Packets that the kernel would only cut later have no size as yet, and would pass.
        _ip("-n", self.far.namespace, "link", "set", self.device, "gso_max_segs", "1")
        for port in ("near", "far"):
            self._ip("link", "set", port, "mtu", str(mtu))

    def carried(self) -> int:
        """Bytes towards `near` so far, with all headers."""
        shown = json.loads(self._ip("-j", "-s", "link", "show", "near"))
        return int(shown[0]["stats64"]["tx"]["bytes"])

    @property
    def _inside(self) -> tuple[str, ...]:
        return _in(self.namespace)[1:]

    def _tc(self, verb: str, *words: str, check: bool = True) -> None:
        argv = ("qdisc", verb, "dev", "near", "root", *words)
        call("nsenter", *self._inside, "--", program("tc"), *argv, check=check)

    def _ip(self, *words: str) -> str:
        return call("nsenter", *self._inside, "--", program("ip"), *words).stdout


class Network:
    """Makes places and lines below `home`."""

    def __init__(self, home: Path, ending: contextlib.ExitStack) -> None:
        self._home = home
        self._ending = ending
        self._id = f"pacball-{secrets.token_hex(4)}"
        self._lines = 0

    def place(self, name: str) -> Place:
        """A place with a home of its own."""
        return Place(self._home / name, self._namespace(name))

    def line(self, far: Place, near: Place, *, mbit: float | None = None, seconds: float = 0.0) -> Line:
        """A line between two places; a packet takes `seconds` for one way."""
        self._lines += 1
        number, device = self._lines, f"line{self._lines}"
        middle = self._namespace(device)
        _ip("-n", middle, "link", "add", "middle", "type", "bridge", "forward_delay", "0")
        addresses = {}
        for end, port, host in ((far, "far", 1), (near, "near", 2)):
            self._wire(end.namespace, device, middle, port, seconds if end is far else 0.0)
            addresses[end.namespace] = f"10.77.{number}.{host}"
            _ip("-n", end.namespace, "address", "add", f"{addresses[end.namespace]}/24", "dev", device)
            _ip("-n", end.namespace, "link", "set", device, "up")
            _ip("-n", middle, "link", "set", port, "master", "middle", "up")
        _ip("-n", middle, "link", "set", "middle", "up")
        made = Line(middle, device, far, near, addresses)
        if mbit is not None:
            made.limit(mbit)
        return made

    def remove(self, place: Place) -> None:
        """The place is gone, with all that ran there, as a machine without power: no connection is ended by it."""
        for device in json.loads(call("ip", "-n", place.namespace, "-j", "link", "show").stdout):
            if device["ifname"] != "lo":
                _ip("-n", place.namespace, "link", "delete", device["ifname"])
        for process in call("ip", "netns", "pids", place.namespace).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        self._delete(place.namespace)

    def _namespace(self, name: str) -> str:
        namespace = f"{self._id}-{name}"
        _ip("netns", "add", namespace)
        self._ending.callback(self._delete, namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _delete(self, namespace: str) -> None:
        if Path(f"/run/netns/{namespace}").exists():
            _ip("netns", "delete", namespace)

    def _wire(self, first: str, first_name: str, second: str, second_name: str, seconds: float) -> None:
        if not seconds:
            _ip("link", "add", first_name, "netns", first, "type", "veth", "peer", "name", second_name, "netns", second)
            return
        words = [sys.executable, "-m", "tests.peers.distance", first, first_name, second, second_name, str(seconds)]
        root = Path(__file__).parents[2]
        process = self._ending.enter_context(subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True))
        self._ending.callback(process.kill)
        assert select.select([process.stdout], [], [], READY_S)[0], "the distance does not begin"
        assert process.stdout.readline() == "ready\n"


@contextlib.contextmanager
def network(home: Path) -> Iterator[Network]:
    """An empty network; all that is made in it ends with the block."""
    require_root()
    with contextlib.ExitStack() as ending:
        yield Network(home, ending)


def _ip(*words: str) -> None:
    call("ip", *words)

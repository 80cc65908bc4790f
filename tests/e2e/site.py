"""A place with the real command: scratch directories, processes of its own, daemons that end with their block."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACBALL = Path(sys.executable).with_name("pacball")
READY_S = 30.0
END_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed; `json` is its last line where that is an object."""

    code: int
    out: str
    err: str
    json: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, process: subprocess.Popen, *, timeout: float) -> Outcome:
        """Wait for `process`. Whatever happened, no command of ours may end with a traceback or a warning of Python's."""
        out, err = process.communicate(timeout=timeout)
        assert "Traceback" not in err, err
        assert "Warning" not in err, err
        last = out.rstrip("\n").rpartition("\n")[2]
        return cls(process.returncode, out, err, json.loads(last) if last.startswith("{") else {})


class Site:
    """A user with a home of its own below `home`: configuration, keys, state. Sites share nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "PYTHONWARNINGS": "error",
            "XDG_CONFIG_HOME": str(home / "config"),
            "PACBALL_SYSTEM_CONFIG_DIR": str(home / "etc"),
            "XDG_STATE_HOME": str(home / "state"),
            "PACBALL_SERVE_LOG_LEVEL": "warning",  # what daemons print then is wrong, or at least strange
        }

    def start(self, *words: object, before: Sequence[object] = ()) -> subprocess.Popen:
        """Start the command with --json; `before` is a program that runs it, such as strace."""
        argv = [*map(str, before), str(PACBALL), *map(str, words), "--json"]
        return subprocess.Popen(
            argv,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: object, before: Sequence[object] = (), timeout: float = 90.0) -> Outcome:
        """Run the command to its end."""
        with self.start(*words, before=before) as process:
            try:
                return Outcome.of(process, timeout=timeout)
            finally:
                process.kill()

    def ok(self, *words: object, before: Sequence[object] = ()) -> Mapping[str, object]:
        """The result of a command that must succeed."""
        done = self.run(*words, before=before)
        assert done.code == 0, (words, done.code, done.err, done.json)
        return done.json

    def fails(self, code: int, *words: object, before: Sequence[object] = ()) -> Outcome:
        """A command that must end with `code`, and say why in one sentence, for people and for programs."""
        done = self.run(*words, before=before)
        assert done.code == code, (words, done.code, done.err)
        assert done.json["exit_code"] == code
        last = done.err.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("pacball: "), done.err
        assert str(done.json["message"]) in last
        return done

    def publish(self, tree: Path, release: str, store: Path, *words: object) -> Mapping[str, object]:
        """Publish `tree`; the command's result."""
        return self.ok("publish", tree, release, "--to", store, *words)

    def root_keys(self, store: Path) -> Path:
        """The root.json that this site made for `store`."""
        found = [
            path
            for path in (self.home / "config/pacball/keys").glob("*/root.json")
            if path.read_bytes() == (store / "public/catalog/1.root.json").read_bytes()
        ]
        assert len(found) == 1, found
        return found[0]

    @contextlib.contextmanager
    def serving(self, store: Path, *words: object) -> Iterator[str]:
        """The base URL of a daemon over `store`, which must end cleanly."""
        with self.serving_process(store, *words) as (url, process):
            yield url
            process.send_signal(signal.SIGTERM)
            done = Outcome.of(process, timeout=END_S)
            assert (done.code, done.err) == (0, ""), (done.code, done.err)

    @contextlib.contextmanager
    def mirroring(self, store: Path, upstream: str) -> Iterator[str]:
        """The base URL of a mirror, which must end cleanly. It warns, as it should, of a root that it was not told to trust."""
        with self.serving_process(store, "--upstream", upstream) as (url, process):
            yield url
            process.send_signal(signal.SIGTERM)
            assert Outcome.of(process, timeout=END_S).code == 0

    @contextlib.contextmanager
    def serving_process(self, store: Path, *words: object) -> Iterator[tuple[str, subprocess.Popen]]:
        """The base URL and the process of a daemon over `store`; killed at the end if it still runs."""
        with self.start("serve", "--store", store, "--listen", "127.0.0.1:0", *words) as process:
            try:
                assert select.select([process.stdout], [], [], READY_S)[0], "the daemon does not say its URL"
                line = process.stdout.readline()
                assert line.startswith("{"), process.stderr.read()
                yield json.loads(line)["url"], process
            finally:
                process.kill()


@dataclass(frozen=True)
class Origin:
    """A publisher's site, its store with an old and a new release, and their trees."""

    site: Site
    store: Path
    old: Path
    new: Path

    @property
    def root_keys(self) -> Path:
        """The root.json that installers are to pin."""
        return self.site.root_keys(self.store)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(argv: Sequence[object], *, port: int, log: Path) -> Iterator[str]:
    """The base URL of a foreign server, from when it answers on `port` of 127.0.0.1 until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), seconds=READY_S)
        assert process.poll() is None, log.read_text(errors="replace")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Return when `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with lower-case names, and body of a GET that follows nothing."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request("GET", f"/{path}", headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()

"""A real Rucio for a run of tests: PostgreSQL with a fresh database, the server, and the configuration that clients need.

install.sh makes what is started here. Nothing is shared between two of them, and nothing outlives the process that started them,
however that ends. For experiments by hand, until ^C: `python -m tests.peers.rucio.server DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rucio.client import Client
from rucio.common.config import clean_cached_config

from tests.e2e.site import END_S, free_port, get, wait_until

_HERE = Path(__file__).parent
_MIRROR = _HERE.parents[2] / "mirror"
_START_S = 60.0
_SERVER = """
[common]
logdir = {home}
loglevel = WARNING
mailtemplatedir = {place}/server/rucio/etc/mail_templates
[database]
default = postgresql+psycopg://rucio@/rucio?host={home}/socket
[policy]
permission = generic
schema = generic
[api]
endpoints_add = archives
"""
_CLIENT = """
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = ddmlab
password = secret
account = {account}
auth_token_file_path = {home}/token
[policy]
permission = generic
schema = generic
"""
# A worker dies with its master, even while it is stopped.
_GUNICORN = """
import ctypes, signal
def post_fork(server, worker):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
"""


@dataclass
class Rucio:
    """A running Rucio server at `url`, below `home`. It dies with the thread that started it: let that be the main thread."""

    place: Path
    home: Path
    url: str
    _server: subprocess.Popen | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the server, again after `stop`, and return when it answers."""
        assert self._server is None, "the server runs"
        port = self.url.rpartition(":")[2]
        argv = [
            self.place / "server/bin/gunicorn",
            "--no-control-socket",
            "-c",
            self.home / "gunicorn.conf.py",
            "-w",
            2,
        ]
        argv += ["--threads", 4, "--graceful-timeout", 2, "-b", f"127.0.0.1:{port}", "rucio.web.rest.main:application"]
        environment = {**os.environ, "RUCIO_HOME": str(self.home / "server"), "PYTHONPATH": str(_MIRROR)}
        environment.pop("PYTHONWARNINGS", None)
        self._server = _spawn(argv, log=self.home / "server.log", env=environment, signal_name="KILL")
        _wait_for(self._server, self._answers, self.home / "server.log")

    def stop(self) -> None:
        """Stop the server at once. Its database stays; whoever asks now is refused the connection."""
        assert self._server is not None, "the server does not run"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._server = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let the server accept connections and never answer, until `thaw`."""
        assert self._server is not None, "the server does not run"
        os.killpg(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._server is not None, "the server does not run"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGCONT)

    def client_home(self, account: str = "root") -> Path:
        """The RUCIO_HOME of a client that acts as `account`, which the identity "ddmlab" must be allowed to be."""
        home = self.home / f"client-{account}"
        (home / "etc").mkdir(parents=True, exist_ok=True)
        (home / "etc/rucio.cfg").write_text(_CLIENT.format(url=self.url, account=account, home=home))
        return home

    def environment(self, account: str = "root") -> Mapping[str, str]:
        """What Rucio's own programs need in their environment."""
        home = self.client_home(account)
        return {
            "PATH": f"{self.place}/client/bin:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "RUCIO_HOME": str(home),
            "PYTHONPATH": str(_MIRROR),
            "LC_ALL": "C.UTF-8",
        }

    def run(
        self, *words: object, check: bool = True, cwd: Path | None = None, account: str = "root", **environment: str
    ):
        """Run one of Rucio's own client programs (`rucio`, `rucio-admin`, `python`) to its end, with its output as text."""
        argv = [self.place / "client/bin" / str(words[0]), *map(str, words[1:])]
        env = {**self.environment(account), **environment}
        done = subprocess.run(
            argv, env=env, cwd=cwd or self.home, capture_output=True, text=True, timeout=90, check=False
        )
        assert not check or done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
        return done

    def client(self, account: str = "root") -> Client:
        """Rucio's own client in Python, as `account`."""
        before = os.environ.get("RUCIO_HOME")
        os.environ["RUCIO_HOME"] = str(self.client_home(account))
        clean_cached_config()  # which is read once
        try:
            return Client()
        finally:
            os.environ.pop("RUCIO_HOME")
            if before is not None:
                os.environ["RUCIO_HOME"] = before

    def daemon(self, name: str, *words: object) -> None:
        """Let one of Rucio's daemons, such as "rucio-judge-cleaner", do once what it has to do."""
        argv = [self.place / "server/bin" / name, "--run-once", *map(str, words)]
        env = {**os.environ, "RUCIO_HOME": str(self.home / "server"), "PYTHONPATH": str(_MIRROR)}
        env.pop("PYTHONWARNINGS", None)
        done = subprocess.run(argv, env=env, cwd=self.home, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return get(f"{self.url}/ping")[0] == 200
        return False


@contextlib.contextmanager
def running_rucio(place: Path | None = None) -> Iterator[Rucio]:
    """A Rucio with an empty database, until the block ends. `place` is what install.sh printed, called where it is None."""
    place = place or installed()
    _sweep()
    with tempfile.TemporaryDirectory(
        prefix=f"pacball-rucio-{os.getpid()}-", dir="/tmp", ignore_cleanup_errors=True
    ) as made:
        home = Path(made)
        home.chmod(0o755)  # the user of PostgreSQL must come to its directory
        rucio = Rucio(place, home, f"http://127.0.0.1:{free_port()}")
        (home / "server/etc").mkdir(parents=True)
        (home / "server/etc/rucio.cfg").write_text(_SERVER.format(home=home, place=place))
        (home / "gunicorn.conf.py").write_text(_GUNICORN)
        with _database(place, home):
            rucio.start()
            try:
                yield rucio
            finally:
                if rucio._server is not None:
                    rucio.stop()


def installed() -> Path:
    """What install.sh makes, made where it is missing."""
    done = subprocess.run([_HERE / "install.sh"], stdout=subprocess.PIPE, text=True, timeout=1200, check=True)
    return Path(done.stdout.strip())


@contextlib.contextmanager
def _database(place: Path, home: Path) -> Iterator[None]:
    data, socket = home / "data", home / "socket"
    shutil.copytree(place / "database", data)
    socket.mkdir()
    become = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres", data, socket], check=True)
        become = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
    quick = [
        "-c",
        "fsync=off",
        "-c",
        "full_page_writes=off",
        "-c",
        "synchronous_commit=off",
        "-c",
        "shared_buffers=32MB",
    ]
    program = f"{(place / 'postgres').read_text().strip()}/postgres"
    argv = [program, "-D", data, "-k", socket, "-c", "listen_addresses=", *quick]
    process = _spawn(
        argv, log=home / "database.log", env={**os.environ, "LC_ALL": "C"}, signal_name="QUIT", become=become
    )
    try:
        _wait_for(process, lambda: "ready to accept" in (home / "database.log").read_text(), home / "database.log")
        yield
    finally:
        _end(process, signal.SIGQUIT)


def _spawn(
    argv, *, log: Path, env: Mapping[str, str], signal_name: str, become: list[str] | None = None
) -> subprocess.Popen:
    words = ["setpriv", *(become or []), f"--pdeathsig={signal_name}", "--", *map(str, argv)]
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            env=dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait_for(process: subprocess.Popen, ready, log: Path) -> None:
    try:
        wait_until(lambda: process.poll() is not None or ready(), seconds=_START_S)
        assert process.poll() is None, log.read_text(errors="replace")
    except BaseException:
        process.kill()
        process.wait()
        raise


def _end(process: subprocess.Popen, number: int) -> None:
    process.send_signal(number)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _sweep() -> None:
    """Remove what processes that were killed left behind."""
    for left in Path("/tmp").glob("pacball-rucio-[0-9]*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)


def _by_hand(directory: Path) -> None:
    with running_rucio() as rucio:
        directory.mkdir(parents=True, exist_ok=True)
        lines = [f"export {name}={rucio.environment()[name]}" for name in ("PATH", "RUCIO_HOME", "PYTHONPATH")]
        (directory / "env.sh").write_text("\n".join(lines) + "\n")
        print(f"{rucio.url} runs; in another shell: . {directory}/env.sh; rucio whoami", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    _by_hand(Path(sys.argv[1]))

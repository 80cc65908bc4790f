"""Figures of publishing over HTTP: to a daemon that has nothing of the release, and to one that has the version before; beside
curl, which sends the same tree to nginx (WebDAV PUT) as a plain tar, and as one that zstd compresses.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, trees
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.daemons import Daemon, free_port, healthy, nginx
from benchmarks.measure import Command, run_untimed, tree_cpu_s
from benchmarks.ours import PROGRAM
from benchmarks.report import Outcome

OLD, NEW = "A1", "A2"
FIRST, NEXT = "pacball publish --to URL (A1)", "pacball publish --to URL (A2, then)"
PLAIN, PACKED = "curl -T (tar A1)", "curl -T (tar A1, zstd -3)"
SERVER, SENT = "server's CPU", "sent"
COLUMNS = {**COSTS, SERVER: "s", SENT: "MB"}
_CONFIG = """[refresh]
keys = "{keys}"
[access]
token_file = "{tokens}"
trusted_proxies = ["127.0.0.1"]
[uploads]
enabled = true
[pacballs]
ahead = false
"""


def measure(bench: Bench, outcome: Outcome) -> None:
    """Adds these rows to ``outcome``, whose columns must be among others COLUMNS."""
    tally = Tally(bench, outcome)
    if bench.wanted([FIRST]):
        with bench.fresh(need_bytes=4 * bench.room(OLD)) as path:
            tally.rounds([FIRST, PLAIN, PACKED], lambda name, _: _once(bench, tally, path, name))
    tally.finish([FIRST, NEXT, PLAIN, PACKED])
    for name in (FIRST, NEXT):
        own, peer = outcome.value(name, "wall"), outcome.value(PLAIN, "wall")
        if own and peer:
            outcome.notes.append(f"{name}, wall: {own / peer:.2f} of {PLAIN}")


def _once(bench: Bench, tally: Tally, path: Path, name: str) -> None:
    home = path / "sent"
    if name == FIRST:
        with _origin(home) as origin:
            for row, label in ((FIRST, OLD), (NEXT, NEW)):
                _publish(bench, tally, origin, row=row, label=label)
    else:
        _put(bench, tally, home, name=name)
    shutil.rmtree(home)


@dataclass(frozen=True, slots=True)
class _Origin:
    """A daemon that takes uploads, and the home of a publisher with the line's key and a token."""

    daemon: Daemon
    home: Path


@contextmanager
def _origin(home: Path) -> Iterator[_Origin]:
    tree, store, keys, publisher = home / "tree", home / "store", home / "keys", home / "publisher"
    tree.mkdir(parents=True)
    (tree / "first").write_text("the line's first release\n")
    own = ours.environment(home)
    run_untimed(
        Command([PROGRAM, "publish", str(tree), ours.release("0"), "--to", str(store), "--keys", str(keys)], own)
    )
    words = ["--role", "publish", "--line", "Bench", "--file", str(home / "tokens"), "--json"]
    token = str(ours.last_object(run_untimed(Command([PROGRAM, "token", "create", "b", *words], own)))["token"])
    (home / "pacball.toml").write_text(_CONFIG.format(keys=keys, tokens=home / "tokens"))
    port = free_port()
    serve = [
        PROGRAM,
        "serve",
        "--store",
        str(store),
        "--listen",
        f"127.0.0.1:{port}",
        "--config",
        str(home / "pacball.toml"),
    ]
    with healthy(Command(serve, own), port=port, log=home / "serve.out") as daemon:
        _equip(publisher, keys=keys, url=daemon.url, token=token)
        yield _Origin(daemon, publisher)


def _equip(publisher: Path, *, keys: Path, url: str, token: str) -> None:
    """What a publisher has: the line's key, the catalog's root, a token and its place in the configuration."""
    (publisher / "line").mkdir(mode=0o700, parents=True)
    for name in ("line-Bench.pem", "line-Bench.pub", "root.json"):
        shutil.copy(keys / name, publisher / "line" / name)
    (publisher / "token").write_text(token)
    (publisher / "token").chmod(0o600)
    config = publisher / "config/pacball/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[tokens]\n"{url}" = "{publisher}/token"\n')


def _publish(bench: Bench, tally: Tally, origin: _Origin, *, row: str, label: str) -> None:
    tree, daemon = bench.tree(label), origin.daemon
    argv = [
        PROGRAM,
        "publish",
        str(tree),
        ours.release(label),
        "--to",
        daemon.url,
        "--keys",
        f"{origin.home}/line",
        "--json",
    ]
    before = tree_cpu_s(daemon.pid)
    command = Command(argv, ours.environment(origin.home))
    cost, output = bench.measure(command, synced=origin.home, warm=[tree], what=row)
    spent = tree_cpu_s(daemon.pid) - before
    sent = int(str(ours.last_object(output)["bytes_sent"]))
    tally.add(row, cost, **{SERVER: spent, SENT: sent / MB})


def _put(bench: Bench, tally: Tally, home: Path, *, name: str) -> None:
    """The tar goes to the server as it is made, in one request."""
    target, tree = home / "public", bench.tree(OLD)
    target.mkdir(parents=True)
    with nginx(target, home / "nginx", accepts_put=True) as web:
        squeeze = "| zstd -q -3 -T0 " if name == PACKED else ""
        line = f"tar -C {tree} -cf - . {squeeze}| curl -sSf -T - {web.url}/a.tar"
        before = tree_cpu_s(web.pid)
        command = Command(["bash", "-o", "pipefail", "-c", line])
        cost, _output = bench.measure(command, synced=home, warm=[tree], what=name)
        spent = tree_cpu_s(web.pid) - before
    tally.add(name, cost, **{SERVER: spent, SENT: trees.stored_bytes(target) / MB})

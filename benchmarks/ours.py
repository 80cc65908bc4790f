"""The commands of pacball as the benchmarks use them. Keys and trust live under ``home``, so nothing of the user's is touched."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.daemons import Daemon, free_port, healthy
from benchmarks.measure import Command, CommandFailedError, run_untimed
from benchmarks.trees import stored_bytes

PROGRAM = next(
    (path for name in (str(Path(sys.executable).with_name("pacball")), "pacball") if (path := shutil.which(name))),
    "pacball",
)


@dataclass(frozen=True, slots=True)
class Moved:
    """What `pacball install` says it did."""

    downloaded_bytes: int
    reused_bytes: int
    requests: int

    @classmethod
    def parse(cls, output: str) -> Self:
        said = last_object(output)
        try:
            return cls(*(int(str(said[key])) for key in ("bytes_downloaded", "bytes_reused", "requests")))
        except (KeyError, ValueError) as problem:
            raise CommandFailedError(f"pacball install --json: no number {problem} in {said}") from None


class Pacball:
    """As an archiver: a store at ``home/store``, its keys beside it."""

    name = "pacball"

    def __init__(self, *publish_options: str) -> None:
        self.publish_options = publish_options

    def prepare(self, home: Path) -> None:
        home.mkdir()

    def ingest(self, home: Path, tree: Path, label: str) -> Command:
        where = ["--to", str(home / "store"), "--json", *self.publish_options]
        return Command([PROGRAM, "publish", str(tree), release(label), *where], environment(home))

    def restore(self, home: Path, label: str, target: Path) -> Command:
        """Straight from the store; the tree is then `installed` under ``target``."""
        return install(str(home / "store"), label, target, home=home)

    def stored(self, home: Path) -> int:
        """Packs, manifests, attributes, placements, holdings, catalog; not the index, which is in private/."""
        return stored_bytes(home / "store" / "public")


def release(label: str) -> str:
    """A1 -> Bench-A1-any: the trees are versions of one project."""
    return f"Bench-{label}-any"


def installed(root: Path, label: str) -> Path:
    return root / "releases" / release(label)


def install(source: str, label: str, root: Path, *, home: Path) -> Command:
    """Installs into ``root``; ``home`` is the installing user's, not the publisher's."""
    options = ["--from", source, "--root", str(root), "--trust-on-first-use", "--json"]
    return Command([PROGRAM, "install", release(label), *options], environment(home))


def verify(label: str, root: Path, *, home: Path) -> Command:
    """Verifies what is installed in ``root``."""
    return Command([PROGRAM, "verify", release(label), "--root", str(root), "--json"], environment(home))


@contextmanager
def served(home: Path) -> Iterator[Daemon]:
    """`pacball serve` over the store of ``home``."""
    port = free_port()
    argv = [PROGRAM, "serve", "--store", str(home / "store"), "--listen", f"127.0.0.1:{port}"]
    with healthy(Command(argv, environment(home)), port=port, log=home / "serve.out") as daemon:
        yield daemon


def environment(home: Path) -> dict[str, str]:
    names = {"XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"}
    return {"HOME": str(home), **{name: str(home / folder) for name, folder in names.items()}}


def available() -> str | None:
    """Why pacball cannot be run, or None. Also makes Python compile it, so that no measurement pays for that."""
    try:
        for words in (["--help"], ["publish", "--help"], ["install", "--help"], ["serve", "--help"]):
            run_untimed(Command([PROGRAM, *words], {"HOME": "/nonexistent"}))
    except (CommandFailedError, OSError) as problem:
        return str(problem)
    return None


def last_object(output: str) -> dict[str, object]:
    """The JSON object that is the last line of ``output``."""
    lines = output.strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise CommandFailedError(f"pacball --json did not end with one JSON object: {output[-300:]!r}") from None
    if not isinstance(said, dict):
        raise CommandFailedError(f"pacball --json ended with {lines[-1][:100]!r}, which is not an object")
    return said

"""Figures of mirrors: a whole release synchronised, many clients at once through a cold mirror, and everything read again."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import ours
from benchmarks.bench import COSTS, Bench, Tally
from benchmarks.daemons import Daemon, Nginx, free_port, healthy, nginx
from benchmarks.measure import Command, Watch, run_untimed
from benchmarks.ours import PROGRAM, Pacball
from benchmarks.report import MIB, Outcome, Target

LARGE, SMALL, SCRUBBED = "R", "H", "A1"
LARGE_BYTES, SMALL_BYTES, FILE_BYTES = 2_200_000_000, 190_000_000, 20_000_000
SYNC, CURL = "pacball serve (sync)", "curl + b3sum"
SCRUB, TEST = "pacball serve (scrub)", "zstd -t + b3sum"
HERD = f"pacball serve (cold, {SMALL})"
CLIENTS, INSTALLERS = 200, 16
SYNC_SPEED, SCRUB_SPEED, COPIES, HERD_MIB = 0.7, 0.6, 1.02, 300
HERE = Path(__file__).resolve().parent.parent


def measure(bench: Bench) -> Outcome:
    outcome = Outcome("mirrors", {**COSTS, "copies": "x"})
    tally = Tally(bench, outcome)
    if bench.wanted([SYNC]):
        with bench.fresh(need_bytes=6 * LARGE_BYTES) as path:
            _measure_sync(bench, tally, path)
            _measure_herd(bench, tally, path)
        with bench.fresh(need_bytes=3 * bench.room(SCRUBBED)) as path:
            _measure_scrub(bench, tally, path)
    tally.finish([SYNC, CURL, HERD, SCRUB, TEST])
    outcome.aim("sync, wall, against curl and b3sum", "wall", ours=SYNC, peers=[CURL], limit=1 / SYNC_SPEED)
    outcome.aim("scrub, CPU, against zstd -t and b3sum", "CPU", ours=SCRUB, peers=[TEST], limit=1 / SCRUB_SPEED)
    who = f"{CLIENTS} clients at a cold mirror"
    outcome.targets += [
        Target(f"{who}: copies from upstream", "x", outcome.value(HERD, "copies"), None, "", COPIES),
        Target(f"{who}: peak memory", "MiB", outcome.value(HERD, "peak"), None, "", HERD_MIB),
    ]
    outcome.notes.append(
        f"{LARGE}: {LARGE_BYTES / 1e9:.1f} GB that does not compress; sync includes the daemon's start"
    )
    outcome.notes.append(
        f"{INSTALLERS} of the {CLIENTS} clients are pacball install, the others curl, each for all packs"
    )
    return outcome


def _measure_sync(bench: Bench, tally: Tally, path: Path) -> None:
    public = published(path, LARGE, LARGE_BYTES)
    with nginx(public, path / "nginx") as web:

        def once(name: str, _: int) -> None:
            target = path / "target"
            target.mkdir()
            command = _sync(web, target) if name == SYNC else _curl(web, public, target)
            cost, _output = bench.measure(command, synced=path, warm=[public / "packs"], what=name)
            tally.add(name, cost)
            shutil.rmtree(target)

        tally.rounds([SYNC, CURL], once)


def _sync(web: Nginx, home: Path) -> Command:
    argv = [sys.executable, "-m", "benchmarks.mirrored", "sync", str(home), web.url, ours.release(LARGE)]
    return Command(argv, ours.environment(home), cwd=HERE)


def _curl(web: Nginx, public: Path, target: Path) -> Command:
    config = target / "urls"
    urls = [f'url = "{web.url}/{pack.relative_to(public)}"\noutput = "{pack.name}"\n' for pack in _packs(public)]
    config.write_text("".join(urls))
    return Command(["sh", "-c", "curl -sfZ --parallel-max 4 -K urls && rm urls && b3sum * >/dev/null"], cwd=target)


def _measure_herd(bench: Bench, tally: Tally, path: Path) -> None:
    public = published(path, SMALL, SMALL_BYTES)
    copy = sum(pack.stat().st_size for pack in _packs(public))
    with nginx(public, path / "herd-nginx") as web:

        def once(name: str, _: int) -> None:
            home = path / "herd"
            home.mkdir()
            with _mirror(home, web) as mirror, Watch(mirror.pid) as watch:
                before = web.traffic()
                command = _clients(mirror, public, home)
                cost, _output = bench.measure(command, synced=path, warm=[public / "packs"], what=name)
                sent = web.traffic(after=before.requests).sent_bytes
            peak = watch.peak_bytes / MIB
            tally.add(name, cost, copies=sent / copy, peak=peak)
            shutil.rmtree(home)

        tally.rounds([HERD], once)


@contextmanager
def _mirror(home: Path, web: Nginx) -> Iterator[Daemon]:
    port = free_port()
    argv = [PROGRAM, "serve", "--store", str(home / "store"), "--upstream", web.url, "--listen", f"127.0.0.1:{port}"]
    with healthy(Command(argv, ours.environment(home)), port=port, log=home / "serve.out") as daemon:
        yield daemon


def _clients(mirror: Daemon, public: Path, home: Path) -> Command:
    """All at once; each curl takes the packs in an order of its own. Fails if one of them does."""
    shuffle = random.Random(1)
    packs = [f"{mirror.url}/{pack.relative_to(public)}" for pack in _packs(public)]
    lines = []
    for number in range(CLIENTS):
        if number < INSTALLERS:
            install = ours.install(mirror.url, SMALL, home / f"root{number}", home=home / f"user{number}")
            names = [f"{name}={value}" for name, value in install.env.items()]
            lines.append(" ".join(["env", *names, *install.argv]))
        else:
            lines.append(" ".join(["curl", "-sf", *shuffle.sample(packs, len(packs))]))
    (home / "clients").write_text("\n".join(lines) + "\n")
    run = f"xargs -P {CLIENTS} -I CLIENT sh -c 'CLIENT >/dev/null' <clients"
    return Command(["sh", "-c", run], cwd=home)


def _measure_scrub(bench: Bench, tally: Tally, path: Path) -> None:
    archiver, home, frames = Pacball(), path / "pacball", path / "frames"
    archiver.prepare(home)
    run_untimed(archiver.ingest(home, bench.tree(SCRUBBED), SCRUBBED))
    store = home / "store"
    run_untimed(_mirrored("frames", str(store), str(frames)))
    test = Command(["sh", "-c", "zstd -tq *.zst && b3sum *.zst >/dev/null"], cwd=frames)
    commands = {SCRUB: _mirrored("scrub", str(store)), TEST: test}

    def once(name: str, _: int) -> None:
        cost, _output = bench.measure(commands[name], synced=path, warm=[frames], what=name)
        tally.add(name, cost)

    tally.rounds([SCRUB, TEST], once)


def _mirrored(*words: str) -> Command:
    return Command([sys.executable, "-m", "benchmarks.mirrored", *words], cwd=HERE)


def published(path: Path, label: str, total_bytes: int) -> Path:
    """The docroot of a store with one release, of files that do not compress."""
    tree, home, noise = path / f"tree-{label}", path / f"pacball-{label}", random.Random(label)
    tree.mkdir()
    for number in range(-(-total_bytes // FILE_BYTES)):
        (tree / str(number)).write_bytes(noise.randbytes(min(FILE_BYTES, total_bytes - number * FILE_BYTES)))
    archiver = Pacball()
    archiver.prepare(home)
    run_untimed(archiver.ingest(home, tree, label))
    shutil.rmtree(tree)
    return home / "store" / "public"


def _packs(public: Path) -> list[Path]:
    return sorted(pack for pack in (public / "packs").rglob("*") if pack.is_file())

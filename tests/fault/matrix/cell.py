"""One cell of the matrix: some clients, a pattern, a fault; and what must hold while it strikes, and afterwards."""

from __future__ import annotations

import asyncio
import io
import random
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pacstore.frame_list import FrameList
from pacstore.pack import read_table
from pacstore.store import Store
from tests.e2e import trees
from tests.e2e.line import line_to
from tests.e2e.site import Site
from tests.e2e.slow import slowed
from tests.fault.matrix.clients import Answer, Asked, Client, Crowd
from tests.fault.matrix.daemon import MEMORY_BYTES, Daemon
from tests.fault.matrix.faults import FAULTS, Fault, Flips, FullDisk, PublicFiles, World
from tests.fault.matrix.oracle import Oracle, public_packs
from tests.fault.matrix.origin import HELD, LATER, PULLED, Origin
from tests.peers.programs import call
from tests.seeds import seeded

TRIES = 200
"""Half a second apart: how often a client may ask, once the fault is over."""
SETTLING_S = 180.0
CURL_TIMED_OUT = 28
ENDS = (0, 4, 6)
"""How an installer may end: well, or since what it got was wrong, or since nothing came."""
_DAY_S = 86_400.0
_LAYOUT = re.compile(
    r"public/(store\.json|catalog/[^/]+\.json|holdings/[^/]+|placements/[^/]+\.[0-9]+"
    r"|(packs|manifests|attributes|provenance)/[0-9a-f]{2}/[0-9a-f]{64}|releases/[^/]+/[^/]+/[^/]+\.[a-z]+)"
    r"|private/((settings|served|superseded)\.json|(catalog|sweep|scrub)\.lock|ledger\.sqlite(-wal|-shm)?|reserve)"
)


@dataclass(frozen=True)
class Cell:
    """`seconds`: for how long the fault strikes; `with_curl`: whether that is a client, too."""

    clients: int
    pattern: str
    fault: str
    seconds: float
    with_curl: bool = False

    def __str__(self) -> str:
        return f"{self.clients} clients, {self.pattern}, {self.fault}"


def run(cell: Cell, template: Origin, where: Path) -> None:
    """Run it. Fails where anything is wrong; what random it does depends on the round alone."""
    site, dice = Site(where / "home"), seeded(str(cell))
    origin = template.copy(where / "origin")
    with ExitStack() as stack:
        fault = FAULTS[cell.fault](stack, where)
        upstream = stack.enter_context(Site(where / "origin-home").serving(origin.store))
        # What is cold must not be warm before the fault has begun.
        total = sum(path.stat().st_size for path in origin.public.glob("packs/*/*"))
        rate = int(total / cell.seconds * 1.5) if cell.pattern != "warm" else 1 << 30
        line = stack.enter_context(line_to(stack.enter_context(slowed(upstream, bytes_per_second=rate))))
        upstreams = fault.upstreams(line, origin, _other(dice))
        daemon = Daemon(site, fault.where, origin.root_keys, upstreams, fault.before)
        stack.callback(daemon.let_go)
        files = list(dict.fromkeys(origin.needs(HELD) + origin.needs(PULLED)))
        world = World(origin, daemon, Oracle(origin, files), line, _other(dice), cell.seconds)
        asyncio.run(_Trial(cell, world, fault, site, dice).run())


def _other(dice: random.Random) -> random.Random:
    """Dice of one's own: what each does is the same in each run, whoever else throws his meanwhile."""
    return random.Random(dice.random())


class _Trial:
    def __init__(self, cell: Cell, world: World, fault: Fault, site: Site, dice: random.Random) -> None:
        self.cell = cell
        self.world = world
        self.fault = fault
        self.site = site
        self.oracle = world.oracle
        self.daemon = world.daemon
        lengths = {path: len(data) for path, data in self.oracle.expected.items()}
        self.crowd = Crowd(self.daemon.url, cell.pattern, cell.clients, lengths, _other(dice))
        self.publish_after_s = dice.uniform(0, cell.seconds / 2)
        self.curl_dice = _other(dice)

    async def run(self) -> None:
        await self.daemon.start()
        if self.cell.pattern == "warm":
            await self._warm_up()
        await self._strike()
        self.oracle.learn()
        if isinstance(self.fault, Flips):
            await self._mend(self.fault)
        await self._all_is_well()
        await self._nothing_but_the_mirror_is_needed()
        self._nothing_is_left_over()
        print(f"{self.cell}: {dict(self.oracle.counts)}, {self.daemon.most_memory_bytes >> 20} MiB, "
              f"{self.daemon.most_descriptors} descriptors, {self.daemon.slowest_start_s:.1f} s to start")  # fmt: skip

    async def _warm_up(self) -> None:
        """Everything is here before the fault begins."""
        warmer = Crowd(self.daemon.url, "warm", 1, self.crowd.files, random.Random(0))
        await warmer.satisfy(self.oracle.judge, tries=TRIES)
        await self._until(lambda: public_packs(self.world.store) >= _packs(self.oracle))
        await self._until_complete({HELD})
        self.oracle.counts.clear()

    async def _strike(self) -> None:
        """The clients ask, a release is published, and the fault strikes; every answer is judged as it comes."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.crowd.run(self.oracle.judge, stop))
            group.create_task(self._watch(stop))
            group.create_task(self._publish())
            if self.cell.clients == 8:
                group.create_task(self._install(stop))
            if self.cell.with_curl:
                group.create_task(self._curl(stop))
            try:
                await self.fault.strike(self.world)
            finally:
                stop.set()
        assert self.oracle.counts, "nobody asked for anything"

    async def _publish(self) -> None:
        await asyncio.sleep(self.publish_after_s)
        await asyncio.to_thread(self.world.origin.publish, LATER)

    async def _install(self, stop: asyncio.Event) -> None:
        """An installer like any other: it may fail, but what it has installed is right."""
        for number in range(100):
            code = await asyncio.to_thread(self._install_once, PULLED, f"root{number}")
            assert code in ENDS, (code, self._said)
            self.oracle.counts[f"installs ended with {code}"] += 1
            if stop.is_set():
                return

    async def _curl(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            path, began = self.curl_dice.choice(list(self.crowd.files)), time.monotonic()
            done = await asyncio.to_thread(self._curl_once, path)
            self.oracle.judge(Answer(Asked(path), *done, began, time.monotonic()))
            self.oracle.counts["times of curl"] += 1
            await asyncio.sleep(0.1)

    def _curl_once(self, path: str) -> tuple[int, bytes | None, str]:
        to = self.site.home / "curled"
        done = call(
            "curl", "-sS", "--max-time", 50, "-o", to, "-w", "%{http_code}", f"{self.daemon.url}/{path}", check=False
        )
        assert done.returncode != CURL_TIMED_OUT, path
        return int(done.stdout), to.read_bytes() if done.returncode == 0 else None, done.stderr

    def _install_once(self, name: str, root: str) -> int:
        at = self.site.home / root
        words = ("install", name, "--from", self.daemon.url, "--root-keys", self.world.origin.root_keys, "--root", at)
        done = self.site.run(*words, timeout=300)
        if done.code == 0:
            trees.assert_same(at / "releases" / name, self.world.origin.tree(name))
            shutil.rmtree(at)
        self._said = done.err
        return done.code

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.daemon.look()
            self.oracle.learn()
            self.oracle.note(self.world.store)
            self.oracle.complete |= await self.daemon.complete()
            await asyncio.sleep(0.2)

    async def _all_is_well(self) -> None:
        """The fault is over: all clients get everything, what was published arrives, and what was acknowledged is there."""
        await self.crowd.satisfy(self.oracle.judge, tries=TRIES)
        await self._until_complete({HELD, LATER})
        self.oracle.note(self.world.store)
        if not isinstance(self.fault, FullDisk):  # where what was only pulled through makes room for the rest
            self.oracle.check_disk(self.world.store)
        for name in (PULLED, LATER):
            assert await asyncio.to_thread(self._install_once, name, "last") == 0, self._said
        most = self.daemon.first_descriptors + len(self.oracle.expected) + 16
        await self._until(lambda: self.daemon.descriptors() <= most)
        await self.daemon.end()
        assert self.daemon.most_memory_bytes < MEMORY_BYTES, self.daemon.most_memory_bytes
        assert self.daemon.most_descriptors < most + 8 * self.cell.clients + 64, self.daemon.most_descriptors

    async def _nothing_but_the_mirror_is_needed(self) -> None:
        """After a restart without any upstream, all that was acknowledged can be read."""
        self.world.line.cut()
        await self.daemon.start()
        await self._until_complete({HELD, LATER})
        paths = {path for name in (HELD, LATER) for path in self.world.origin.needs(name)}
        paths |= public_packs(self.world.store)
        client = Client(self.daemon.url)
        for path in sorted(paths):
            answer = await client.ask(Asked(path))
            assert self.oracle.judge(answer), (path, answer.status, answer.error)
        client.close()
        await self.daemon.end()
        report = self.site.ok("store", "check", "--store", self.world.store)
        assert report["intact"] is True, report
        log = self.daemon.log.read_text()
        assert "Traceback" not in log, log

    def _nothing_is_left_over(self) -> None:
        with Store.open(self.world.store, writable=True) as store:
            store.drop_stale_staging(time.time() + 10 * _DAY_S)
        found = [str(path.relative_to(self.world.store)) for path in self.world.store.rglob("*") if not path.is_dir()]
        strange = [path for path in found if not _LAYOUT.fullmatch(path)]
        assert not strange, strange

    async def _mend(self, flips: Flips) -> None:
        """A check lists exactly what was flipped; a repair heals it."""
        await self.daemon.end()
        store, origin = self.world.store, self.world.origin
        words = ("store", "check", "--store", store)
        damaged, done = damaged_parts(store, origin, flips.flipped), self.site.run(*words)
        listed = {_part(one["place"]) for one in done.json["damage"]} - {(name, None) for name in origin.published}
        assert (done.code, listed) == (1 if damaged else 0, damaged), (damaged, flips.flipped, done.out)
        repaired = self.site.ok(*words, "--repair", "--from", origin.store)
        assert repaired["intact"] is True, repaired
        assert self.site.ok(*words)["intact"] is True
        await self.daemon.start()

    async def _until_complete(self, names: set[str]) -> None:
        end = time.monotonic() + SETTLING_S
        while not names <= await self.daemon.complete():
            assert time.monotonic() < end, (names, await self.daemon.json("v1/status"), self.daemon.log.read_text())
            await asyncio.sleep(0.1)

    async def _until(self, condition) -> None:
        end = time.monotonic() + SETTLING_S
        while not condition():
            assert time.monotonic() < end, (await self.daemon.json("v1/status"), self.daemon.log.read_text())
            await asyncio.sleep(0.1)


def _packs(oracle: Oracle) -> set[str]:
    return {path for path in oracle.expected if path.startswith("packs/")}


def damaged_parts(store: Path, origin: Origin, paths: Iterable[str]) -> set[tuple[str, int | None]]:
    """What differs of these files from the origin's, if it is there: of packs each frame by its offset, otherwise with None."""
    found: set[tuple[str, int | None]] = set()
    for path in paths:
        data, right = PublicFiles(store / "public").get(path), origin.content(path)
        if data is not None and path.startswith("packs/"):
            found |= {(path, begin) for begin in _bad_frames(data, right, path)}
        elif data not in (None, right):
            found.add((path, None))
    return found


def _bad_frames(data: bytes, right: bytes, place: str) -> set[int | None]:
    """None alone if the table cannot be believed."""
    frames = FrameList.of(read_table(io.BytesIO(right), place=place))
    ends = frames.begin(0), frames.begin(len(frames))
    if data[: ends[0]] != right[: ends[0]] or data[ends[1] :] != right[ends[1] :]:
        return {None}
    bounds = ((frames.begin(number), frames.begin(number + 1)) for number in range(len(frames)))
    return {begin for begin, end in bounds if data[begin:end] != right[begin:end]}


def _part(place: str) -> tuple[str, int | None]:
    """A place as `store check` names it."""
    path, _, offset = place.partition(", frame at ")
    return path, int(offset) if offset else None

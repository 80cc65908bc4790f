"""The faults of the matrix: each strikes a running mirror for some seconds, and is over then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pacstore.reserve import RESERVE_NAME
from tests.e2e.line import Line
from tests.fault.matrix.daemon import Daemon
from tests.fault.matrix.oracle import Oracle
from tests.fault.matrix.origin import Origin
from tests.mirror import mischief
from tests.peers.faketime import Clock
from tests.peers.programs import program
from tests.peers.volumes import memory_volume

DISK = "size=48m"
KILLS = 2


@dataclass
class World:
    """What a fault can reach. `line` leads to the origin's daemon."""

    origin: Origin
    daemon: Daemon
    oracle: Oracle
    line: Line
    dice: random.Random
    seconds: float

    @property
    def store(self) -> Path:
        """The mirror's."""
        return self.daemon.store

    async def wait(self, least: float, most: float) -> None:
        """Some time between these, in seconds."""
        await asyncio.sleep(self.dice.uniform(least, most))


class Fault(ABC):
    """One for each cell, made before anything runs. Where nothing is said otherwise, clients get right bytes all the while."""

    before: tuple[str, ...] = ()
    """What the mirror runs under."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        """What it needs lasts as long as `stack`. The mirror's store is to be below `self.where`."""
        self.stack = stack
        self.where = where

    def upstreams(self, line: Line, origin: Origin, dice: random.Random) -> list[str]:
        """What the mirror fetches from."""
        del origin, dice
        return [line.url]

    @abstractmethod
    async def strike(self, world: World) -> None:
        """Do it for about `world.seconds`; it is over when this returns."""


class Kills(Fault):
    """kill -9 again and again, and a new start each time."""

    async def strike(self, world: World) -> None:
        end = time.monotonic() + world.seconds
        while time.monotonic() < end or world.oracle.counts["kills"] < KILLS:
            await world.wait(0.2, 2.0)
            world.oracle.note(world.store)
            world.daemon.kill()
            world.oracle.counts["kills"] += 1
            world.oracle.check_disk(world.store)
            await world.daemon.start()
            # It may have lain: what it said last must be true after the restart.
            world.oracle.check_disk(world.store)


class Flips(Fault):
    """A bit flips in a file of the store each second; `flipped` has them all."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        super().__init__(stack, where)
        self.flipped: dict[str, dict[int, int]] = {}

    async def strike(self, world: World) -> None:
        world.oracle.excuse = lambda path, offset, body: self._explains(world.oracle.expected[path], path, offset, body)
        end = time.monotonic() + world.seconds
        while time.monotonic() < end:
            await world.wait(0.5, 1.0)
            kinds = [sorted(path for path in world.store.glob(kind) if path.is_file()) for kind in _FLIPPED]
            if files := world.dice.choice(kinds):
                with contextlib.suppress(FileNotFoundError):  # a partial pack that has become public just now
                    self._flip(world.dice.choice(files), world.store, world.dice)
                    world.oracle.counts["flips"] += 1

    def _flip(self, path: Path, store: Path, dice: random.Random) -> None:
        offset, bit = dice.randrange(path.stat().st_size), 1 << dice.randrange(8)
        inside = path.relative_to(store)
        name = "/".join(("packs" if inside.parts[0] == "private" else inside.parts[1], *inside.parts[2:]))
        path.chmod(path.stat().st_mode | 0o200)
        descriptor = os.open(path, os.O_RDWR)
        try:
            (byte,) = os.pread(descriptor, 1, offset)
            # Recorded before: a client may be sent it at once.
            bits = self.flipped.setdefault(name, {})
            bits[offset] = bits.get(offset, 0) ^ bit
            os.pwrite(descriptor, bytes((byte ^ bit,)), offset)
        finally:
            os.close(descriptor)

    def _explains(self, data: bytes, path: str, offset: int, body: bytes) -> bool:
        """Whether nothing but these flips makes the difference. Frames and documents are verified by whoever takes them."""
        bits = self.flipped.get(path, {})
        wrong = [at for at, byte in enumerate(body) if byte != data[offset + at]]
        return all(offset + at in bits for at in wrong)


_FLIPPED = ("public/packs/*/*", "public/packs/*/*", "private/partial/*/*", "public/manifests/*/*", "public/attributes/*/*",
            "public/placements/*", "public/holdings/*")  # fmt: skip


class FullDisk(Fault):
    """Others fill the disk to the last byte, and free it again; meanwhile the mirror may have to start anew."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        super().__init__(stack, where)
        self.where = stack.enter_context(memory_volume(where, DISK))

    async def strike(self, world: World) -> None:
        end = time.monotonic() + world.seconds
        while time.monotonic() < end:
            await world.wait(0.1, 1.0)
            has_reserve = (world.store / "private" / RESERVE_NAME).exists()
            ballast = await asyncio.to_thread(_fill, self.where / "ballast")
            # It is given up then, and made again only some time after there is room.
            if has_reserve and world.dice.random() < 0.5:
                world.daemon.kill()
                await world.daemon.start()
                world.oracle.counts["starts on a full disk"] += 1
            await world.wait(1.0, 2.0)
            said = await world.daemon.json("v1/status")
            world.oracle.counts["times it knew that the disk is full"] += bool(said and said["cache"]["disk"])
            ballast.unlink()
            await world.wait(0.0, 1.0)


def _fill(path: Path) -> Path:
    for size in (1 << 20, 4096):
        with path.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(size))
    return path


class FailingSync(Fault):
    """fsync and fdatasync fail now and then, as on a dying disk, while strace is attached to the running mirror."""

    async def strike(self, world: World) -> None:
        first, step = world.dice.randint(1, 3), world.dice.randint(1, 3)
        log = self.where / "strace.log"
        argv = [program("strace"), "-f", "-qq", "-o", str(log), "-p", str(world.daemon.pid)]
        argv += ["-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={first}+{step}"]
        process = await asyncio.to_thread(subprocess.Popen, argv, stdin=subprocess.DEVNULL)
        try:
            await asyncio.sleep(world.seconds)
            assert process.poll() is None, "strace has ended"
        finally:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait, 20)
        failed = log.read_text().count("(INJECTED)")
        assert failed, "nothing was synced"
        world.oracle.counts["failed syncs"] += failed


class Jumps(Fault):
    """The clock jumps an hour and a year, ahead and back."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        super().__init__(stack, where)
        self.clock = Clock(where / "clock", cached_seconds=1)
        self.before = self.clock.before

    async def strike(self, world: World) -> None:
        jumps = ["+1h", "-1h", "+1y", "-1y"]
        world.dice.shuffle(jumps)
        for jump in jumps:
            self.clock.set(jump)
            await asyncio.sleep(max(world.seconds / len(jumps), 1.5))
        self.clock.set("+0")


class Flapping(Fault):
    """The line to the upstream is cut for 3 s, and there for 3 s; half of that in the short form."""

    async def strike(self, world: World) -> None:
        end, pause = time.monotonic() + world.seconds, min(3.0, world.seconds / 3)
        while time.monotonic() < end:
            world.line.cut()
            await asyncio.sleep(pause)
            world.line.mend()
            await asyncio.sleep(pause)


class Lies(Fault):
    """An upstream lies in all ways; it is the only one, or has an honest one beside it."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        super().__init__(stack, where)
        self._lies = False
        self.lies = 0

    def upstreams(self, line: Line, origin: Origin, dice: random.Random) -> list[str]:
        alone = dice.random() < 0.7
        # That something is absent is believed if all say so.
        lies = [*_LIES, *(() if alone else (mischief.missing,))]

        def choose(request: mischief.Request) -> mischief.Fault | None:
            del request
            if not self._lies or dice.random() < 0.4:
                return None
            self.lies += 1
            return dice.choice(lies)

        rate = 4e6
        liar = self.stack.enter_context(mischief.serving(PublicFiles(origin.public), choose, bytes_per_second=rate))
        return [liar.url] if alone else [liar.url, line.url]

    async def strike(self, world: World) -> None:
        self._lies = True
        await asyncio.sleep(world.seconds)
        self._lies = False
        world.oracle.counts["lies"] += self.lies


_LIES = (mischief.flip, mischief.truncate, mischief.longer, mischief.shorter, mischief.other_range, mischief.whole,
         mischief.page, mischief.die, mischief.redirect, mischief.busy, mischief.saying(500))  # fmt: skip


class PublicFiles(Mapping[str, bytes]):
    """The public files of a store, as they are now."""

    def __init__(self, public: Path) -> None:
        self._public = public

    def __getitem__(self, path: str) -> bytes:
        try:
            return (self._public / path).read_bytes()
        except OSError:
            raise KeyError(path) from None

    def __iter__(self) -> Iterator[str]:
        return (str(path.relative_to(self._public)) for path in self._public.rglob("*") if path.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


FAULTS: Mapping[str, type[Fault]] = {
    "kill -9": Kills,
    "bit flips": Flips,
    "disk full": FullDisk,
    "failing fsync": FailingSync,
    "clock jumps": Jumps,
    "flapping upstream": Flapping,
    "lying upstream": Lies,
}

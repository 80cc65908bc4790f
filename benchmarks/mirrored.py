"""Commands to be measured that are no commands of pacball: `python -m benchmarks.mirrored sync|scrub|frames`.

`sync HOME URL RELEASE`: a mirror is started, and ended as soon as it says that it holds the release, which is durable then.
`scrub STORE`: everything that the store holds is read once, as its daemon does it, but as fast as it goes.
`frames STORE DIR`: writes the frames of each pack into one file of DIR, which is what `zstd -t` can read of a pack.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from benchmarks.daemons import free_port
from benchmarks.ours import PROGRAM

DEADLINE_S = 600.0
LOOK_S = 0.01


def sync(home: Path, url: str, release: str) -> None:
    store, config = home / "store", home / "pacball.toml"
    config.write_text(
        f'store = "{store}"\nlisten = "127.0.0.1:{free_port()}"\n[upstream]\nurls = ["{url}"]\n'
        f'[[sync.subscriptions]]\nreleases = "{release}"\n'
    )
    with (home / "serve.out").open("wb") as said:
        daemon = subprocess.Popen([PROGRAM, "serve", "--config", str(config)], stdout=said, stderr=said)
        try:
            _await(store / "public" / "holdings" / release, daemon)
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()


def _await(path: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the mirror does not hold {path.name}")
        time.sleep(LOOK_S)


def scrub(path: Path) -> None:
    from pacstore.check import catalog_releases  # noqa: PLC0415 -- each command pays for its own imports
    from pacstore.rereading import Position  # noqa: PLC0415
    from pacstore.scrub import Scrub  # noqa: PLC0415
    from pacstore.store import Store  # noqa: PLC0415

    with Store.open(path, writable=False) as store, closing(Scrub(store, catalog_releases(store))) as reading:
        for step in reading.steps(Position()):
            if step.damage or step.unread:
                raise SystemExit(f"{step.damage} {step.unread}")


def frames(path: Path, target: Path) -> None:
    from pacstore.pack import FRAMES_BEGIN, read_table  # noqa: PLC0415

    target.mkdir()
    for pack in (path / "public" / "packs").rglob("*"):
        if pack.is_file():
            with pack.open("rb") as file, (target / f"{pack.name}.zst").open("wb") as copy:
                left = int(read_table(file, place=str(pack)).offsets[-1]) - FRAMES_BEGIN
                while left:
                    done = os.copy_file_range(
                        file.fileno(), copy.fileno(), left, FRAMES_BEGIN + copy.seek(0, os.SEEK_END)
                    )
                    left -= done


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "sync":
        sync(Path(words[0]), words[1], words[2])
    elif verb == "scrub":
        scrub(Path(words[0]))
    else:
        frames(Path(words[0]), Path(words[1]))

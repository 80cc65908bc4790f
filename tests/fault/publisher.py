"""Publishes as `pacball publish` does, with small packs: run as `publisher.py STORE KEYS`.

It reads lines `DIR RELEASE SECONDS`. Each is done by a child of its own, so that it begins at once; after so many seconds
the child is killed, unless they are 0. It prints `ack RELEASE` for what it published, and then `done STATUS` is printed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from paccli.keychain import open_or_create_catalog
from pacstore.limits import KIB, PackSizes
from pacstore.packing import PackingOptions
from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.store import Store

OPTIONS = PackingOptions(level=1, sizes=PackSizes(256 * KIB, 1024 * KIB))


def main() -> None:
    store, keys = Path(sys.argv[1]), Path(sys.argv[2])
    for line in iter(sys.stdin.readline, ""):
        directory, release, seconds = line.split()
        child = os.fork()
        if child == 0:
            work(store, keys, Path(directory), release)
            os._exit(0)
        if float(seconds):
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)
        say(f"done {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


def work(store: Path, keys: Path, directory: Path, release: str) -> None:
    with Store.create(store) as opened:
        catalog, ring = open_or_create_catalog(opened, keys, None, None, lambda _: None)
        publish(
            directory,
            Release.parse(release),
            opened,
            catalog,
            keys=ring,
            options=OPTIONS,
            progress=Silent(),
            now=time.time,
        )
    say(f"ack {release}")


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    main()

"""Makes the trees that are measured, from pinned wheels: A1 and A2, B, T01 to T10.

A tree is complete when it has its final name: it is unpacked beside it and renamed. Wheels are downloaded once and
kept; times and executable bits are those of the wheels, so the same pins give the same tree everywhere.
"""

from __future__ import annotations

import argparse
import calendar
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pins import HISTORY, LARGE, PAIR, STACKS, Stack

if TYPE_CHECKING:
    from collections.abc import Iterable

PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "any")
GROUPS = {"pair": PAIR, "large": (LARGE,), "history": HISTORY}


class CorpusMissing(Exception):
    """A tree is not there and cannot be made."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tree(name: str, *, work: Path, given: Path | None) -> Path:
    """The directory of the tree ``name``: from ``given`` if it holds it, else made under ``work`` if need be."""
    if given is not None and (given / name).is_dir():
        return given / name
    made = work / "trees" / name
    if not made.is_dir():
        build(STACKS[name], made, wheels=work / "wheels")
    return made


def build(stack: Stack, target: Path, *, wheels: Path) -> None:
    """Unpacks the wheels of ``stack`` into ``target``, downloading those that ``wheels`` lacks."""
    files = fetch(stack.wheels, wheels)
    say(f"corpus: unpacking {stack.name} ({len(files)} wheels)")
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    staging.mkdir(parents=True)
    try:
        for file in files:
            unpack(file, staging)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def fetch(pins: Iterable[str], wheels: Path) -> list[Path]:
    """The wheel of each pin, in order; those not in ``wheels`` are downloaded with pip."""
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = list(pins)
    missing = [pin for pin in wanted if cached(pin, wheels) is None]
    if missing:
        download(missing, wheels)
    found = [cached(pin, wheels) for pin in wanted]
    if None in found:
        raise CorpusMissing(f"pip did not leave a wheel of {wanted[found.index(None)]} in {wheels}")
    return [path for path in found if path is not None]


def download(pins: list[str], wheels: Path) -> None:
    say(f"corpus: downloading {' '.join(pins)}")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "311", "--implementation", "cp", "--disable-pip-version-check"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    partial = wheels / f".partial.{os.getpid()}"
    try:
        done = subprocess.run([*command, "-d", str(partial), *pins], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise CorpusMissing(f"pip could not download {' '.join(pins)}: {' '.join(errors[-2:])[-600:]}")
        for file in partial.iterdir():
            file.rename(wheels / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cached(pin: str, wheels: Path) -> Path | None:
    name, version = pin.split("==")
    for path in sorted(wheels.glob("*.whl")):
        parts = path.name.split("-")
        if normal(parts[0]) == normal(name) and parts[1] == version:
            return path
    return None


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unpack(wheel: Path, target: Path) -> None:
    """Unpacks one wheel with its modification times and executable bits."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, target))
            if entry.is_dir():
                continue
            path.chmod(0o755 if (entry.external_attr >> 16) & 0o111 else 0o644)
            stamp = calendar.timegm((*entry.date_time, 0, 0, 0))
            os.utime(path, (stamp, stamp))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="default: all", metavar="pair|large|history")
    parser.add_argument("--work", type=Path, default=Path(".bench"), help="where trees and wheels are kept")
    options = parser.parse_args()
    try:
        for group in options.groups or GROUPS:
            for stack in GROUPS[group]:
                print(tree(stack.name, work=options.work.resolve(), given=None))
    except CorpusMissing as problem:
        say(f"corpus: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

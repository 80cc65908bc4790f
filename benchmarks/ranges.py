"""A client that takes 16 MiB ranges one after another: ``python -m benchmarks.ranges PORT BYTES PATH=SIZE...``."""

from __future__ import annotations

import http.client
import itertools
import sys
from collections.abc import Iterator, Sequence

RANGE_BYTES = 16 << 20


def ranges(files: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """(path, first byte, last byte), for ever."""
    for path, size in itertools.cycle(files):
        for start in range(0, size, RANGE_BYTES):
            yield path, start, min(start + RANGE_BYTES, size) - 1


def fetch(port: int, total: int, files: Sequence[tuple[str, int]]) -> int:
    """Takes at least ``total`` bytes over one connection; returns how many."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    buffer = memoryview(bytearray(RANGE_BYTES))
    taken = 0
    for path, first, last in ranges(files):
        if taken >= total:
            break
        connection.request("GET", path, headers={"Range": f"bytes={first}-{last}"})
        answer = connection.getresponse()
        if answer.status != http.client.PARTIAL_CONTENT:
            raise SystemExit(f"{path}: {answer.status} instead of 206")
        got = 0
        while count := answer.readinto(buffer):
            got += count
        if got != last - first + 1:
            raise SystemExit(f"{path}: {got} bytes instead of {last - first + 1}")
        taken += got
    return taken


if __name__ == "__main__":
    print(
        fetch(
            int(sys.argv[1]),
            int(sys.argv[2]),
            [(path, int(size)) for path, size in (word.rsplit("=", 1) for word in sys.argv[3:])],
        )
    )

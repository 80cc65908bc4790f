"""Distance between two places: a program that carries Ethernet frames between two namespaces, each some time later.

Where the kernel has no netem, this is how a line gets long: connections have their real round trips, windows and slow starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000
_FRAME_BYTES = 1 << 16


def open_device(namespace: str, name: str) -> int:
    """A new device of this name in the namespace, as a descriptor that frames are read from and written to."""
    libc = ctypes.CDLL(None, use_errno=True)
    entered = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(entered, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"{namespace} cannot be entered")
    os.close(entered)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


class _Way:
    """One direction."""

    def __init__(self, source: int, target: int, seconds: float) -> None:
        self._source = source
        self._target = target
        self._seconds = seconds
        self._frames: deque[tuple[float, bytes]] = deque()

    def take_in(self) -> None:
        """Take what has come."""
        while True:
            try:
                frame = os.read(self._source, _FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the device is down
                return
            self._frames.append((time.monotonic() + self._seconds, frame))

    def give_out(self) -> float:
        """Hand on what has been under way for long enough; when the next one will have been, in seconds from now."""
        now = time.monotonic()
        while self._frames and self._frames[0][0] <= now:
            try:
                os.write(self._target, self._frames.popleft()[1])
            except OSError:  # the device is down, or full: lost, as on any line
                continue
        return self._frames[0][0] - now if self._frames else 60.0


def main(first: str, first_name: str, second: str, second_name: str, seconds: str) -> None:
    """Carry frames between both devices until killed; each direction takes `seconds`."""
    ends = open_device(first, first_name), open_device(second, second_name)
    ways = {ends[0]: _Way(ends[0], ends[1], float(seconds)), ends[1]: _Way(ends[1], ends[0], float(seconds))}
    print("ready", flush=True)
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    while True:
        left = min(way.give_out() for way in ways.values())
        for end, what in poll.poll(max(left * 1000, 0)):
            if what & select.POLLERR:  # not up yet, or gone
                time.sleep(0.01)
            ways[end].take_in()


if __name__ == "__main__":
    main(*sys.argv[1:])

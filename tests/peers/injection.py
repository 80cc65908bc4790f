"""System calls of a command that fail or kill it, by strace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.programs import program


def injecting(calls: str, what: str, number: int) -> tuple[str, ...]:
    """What runs a command so that the `number`-th of these system calls of each thread ends as `what` says."""
    # Faster with a filter in the kernel, but then strace 6.1 sends no signals.
    faster = () if what.startswith("signal") else ("--seccomp-bpf",)
    strace = (program("strace"), "-f", *faster, "-qq", "-o", "/dev/null")
    return (*strace, "-e", f"trace={calls}", "-e", f"inject={calls}:{what}:when={number}")


def counting(calls: Sequence[str], log: Path) -> tuple[str, ...]:
    """What runs a command and logs these system calls."""
    return (program("strace"), "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", f"trace={','.join(calls)}")


def counted(log: Path) -> Mapping[str, int]:
    """How often a thread made each system call: the most of any thread."""
    made = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE))
    most: Counter[str] = Counter()
    for (_, name), number in made.items():
        most[name] = max(most[name], number)
    return most

"""Running pacballs as their users do, with this shell and those tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = (
    *(
        "sh",
        "bash",
        "tar",
        "dd",
        "tee",
        "mkfifo",
        "mktemp",
        "find",
        "sed",
        "sort",
        "uniq",
        "cmp",
        "cat",
        "rm",
        "mkdir",
        "mv",
    ),
    *("df", "date", "uname", "readlink", "sync", "sleep", "head", "sha256sum", "openssl"),
)
"""What pacballs use, and the tests' own scripts."""


@dataclass(frozen=True)
class Ran:
    """How a pacball ended and what it said."""

    code: int
    out: str
    err: str


@dataclass
class Machine:
    """A shell with a PATH and a directory for temporary files of its own, which must be empty when a pacball has ended."""

    shell: tuple[str, ...]
    temporary: Path
    path: str = field(default_factory=lambda: os.environ["PATH"])

    def environment(self) -> dict[str, str]:
        self.temporary.mkdir(exist_ok=True)
        return {"PATH": self.path, "TMPDIR": str(self.temporary), "LANG": "C.UTF-8"}

    def start(self, pacball: Path | str, *words: str, cwd: Path, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.shell, str(pacball), *map(str, words)],
            cwd=cwd,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, pacball: Path | str, *words: str, cwd: Path, umask: int = 0o022) -> Ran:
        with self.start(pacball, *words, cwd=cwd, umask=umask) as process:
            out, err = process.communicate(timeout=100)
        assert list(self.temporary.iterdir()) == []
        return Ran(process.returncode, out, err)

    def ok(self, pacball: Path | str, *words: str, cwd: Path, umask: int = 0o022) -> Ran:
        done = self.run(pacball, *words, cwd=cwd, umask=umask)
        assert done.code == 0, done
        return done


def tools(where: Path, *, without: tuple[str, ...] = (), **instead: str) -> str:
    """A PATH with nothing but what pacballs say they need; `instead`: scripts by the names of tools."""
    where.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if name not in without and name not in instead and found:
            (where / name).symlink_to(os.path.realpath(found))
    for name, script in instead.items():
        (where / name).write_text(f"#!/bin/sh\n{script}\n")
        (where / name).chmod(0o755)
    return str(where)

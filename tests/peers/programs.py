"""The foreign programs that these tests use. A missing one is a failure, never a skipped test."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def program(name: str) -> str:
    """The path of the program `name`."""
    found = shutil.which(name, path=_PATH)
    assert found, f"{name} is not installed: run make test-peers, which installs it"
    return found


def call(name: str, *words: object, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a program to its end; what it printed is shown where it fails."""
    argv = [program(name), *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert not check or done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
    return done


def require_root() -> None:
    """Fail where the user is not root."""
    assert os.geteuid() == 0, "mounts file systems: run make test-peers as root"

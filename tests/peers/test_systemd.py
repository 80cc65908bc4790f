"""The systemd units of deploy/: read by systemd itself, and how much they close."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.peers

UNITS = Path(__file__).parents[2] / "deploy/systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
EXPOSURE = "25"
"""In tenths: of 100 for a service that closes nothing."""


@pytest.fixture
def units(tmp_path):
    """The units, with a pacball that is there."""
    pacball = tmp_path / "pacball"
    pacball.write_text("#!/bin/sh\n")
    pacball.chmod(0o755)
    for unit in UNITS.iterdir():
        text = unit.read_text()
        (tmp_path / unit.name).write_text(text.replace("/opt/pacball/bin/pacball", str(pacball)))
    return tmp_path


def test_systemd_finds_nothing_wrong(units):
    files = sorted(str(path) for path in units.iterdir() if path.suffix in (".service", ".socket", ".timer"))
    assert len(files) >= 8
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "pacball" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", SERVICES)
def test_units_are_hardened(name):
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNITS / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("name", SERVICES)
def test_the_commands_of_the_units_exist(name):
    (command,) = re.findall(r"^ExecStart=/opt/pacball/bin/pacball (.*)$", (UNITS / name).read_text(), re.MULTILINE)
    words = [word for word in command.split() if not word.startswith(("--", "/"))]
    environment = {**os.environ, "COLUMNS": "200"}
    program = shutil.which("pacball", path=str(Path(sys.executable).parent))
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=True, env=environment)
    for option in re.findall(r"--[a-z-]+", command):
        assert option in done.stdout, option

"""docs/operations.md: every command in it exists, with its options; every file and every setting that it names, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacmirror.config_file import KEYS, environment_variable

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs/operations.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:^|`|\s)pacball ((?:[a-z]+ )+[^`\n#]*)", GUIDE, re.MULTILINE)))


def test_there_are_commands():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_as_they_are_written(pacball, command):
    words = command.removeprefix("pacball ").split()
    names = [word for word in words if re.fullmatch("[a-z]+", word)][:2]
    said = pacball.run(*names, "--help")
    if said.exit_code:
        said = pacball.run(names[0], "--help")
    assert said.exit_code == 0, said.output
    for option in re.findall(r"--[a-z-]+", command):
        assert option in said.output, option


def test_files_are_there():
    names = re.findall(r"\bdeploy/[\w./-]+\w", GUIDE)
    assert len(names) > 5
    for name in names:
        assert (TOP / name).exists(), name


def test_settings_are_there():
    names = {key.name for key in KEYS}
    assert set(re.findall(r"PACBALL_SERVE_\w+", GUIDE)) <= {environment_variable(key) for key in KEYS}
    parts = {name.rpartition(".")[2] for name in names} | names | {name.partition(".")[0] for name in names}
    for name in re.findall(r"`\[([a-z.]+)\]`", GUIDE):
        assert name in parts or any(full.startswith(name + ".") for full in names) or name == "tokens", name

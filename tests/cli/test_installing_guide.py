"""docs/installing.md says what is so: its configuration is one, and every setting, step and event is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paccli.commands import doctor
from paccli.settings import KEYS, load_settings

GUIDE = (Path(__file__).parents[2] / "docs/installing.md").read_text()


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The configuration in the guide, as this user's."""
    for key in KEYS:
        for variable in key.variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PACBALL_SYSTEM_CONFIG_DIR", str(tmp_path / "etc"))
    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    path = tmp_path / "config/pacball/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_configuration_is_one_and_has_every_key(example):
    settings = load_settings()
    assert {key.name for key in KEYS} - set(settings.origins) == set()
    assert settings.origin("root") == str(example)
    assert settings.tokens


def test_every_variable_is_named():
    for key in KEYS:
        for variable in key.variables:
            assert variable.lower() in GUIDE.lower(), variable


def test_every_step_of_doctor_is_described(pacball, store, tmp_path, monkeypatch):
    told = set()
    real = doctor._Report.add
    monkeypatch.setattr(
        doctor._Report, "add", lambda self, subject, one: (told.add(one.step), real(self, subject, one))
    )
    root = tmp_path / "root"
    root.mkdir(mode=0o777)
    root.chmod(0o777)
    (root / "current").symlink_to("elsewhere")
    pacball.run(
        "doctor", "--from", f"{store},http://no-such-host.invalid", "--root", root, "--release", "Demo-1.0-x86_64"
    )
    assert len(told) > 15
    for step in told - {"time", "source"}:
        assert f"`{step}`" in GUIDE, step


def test_every_mode_and_event_is_described():
    for name in ("auto", "bar", "json", "none", "plan", "phase", "progress", "source", "warning", "result", "error"):
        assert f"| `{name}` |" in GUIDE, name
    for key in (
        "bytes_done",
        "bytes_total",
        "bytes_per_second",
        "seconds_left",
        "seconds",
        "at",
        "failures",
        "exit_code",
    ):
        assert f"`{key}`" in GUIDE, key

"""A release with commands of its own, through the command: publish, show, install, validate."""

import os
import pwd
from pathlib import Path

import pytest

from tests.store.install.acting import declaration, make_release

NAME = "Sample-1.0-any"
ME = pwd.getpwuid(os.geteuid()).pw_name
AS = ("--actions-as", ME)
GENERATED = ["lib/**/__pycache__/**", "etc/setup.sh"]


@pytest.fixture
def published(pacball, tmp_path):
    """A function that publishes a release with this declaration, and returns the words for an installation."""

    def published(text):
        tree = make_release(tmp_path / "tree", text)
        pacball.json("publish", tree, NAME, "--to", tmp_path / "store")
        return (NAME, "--from", tmp_path / "store", "--root", tmp_path / "root")

    return published


def test_a_broken_declaration_is_not_published(pacball, tmp_path):
    tree = make_release(tmp_path / "tree", "format = 1\n[[after_install]]\nname = 'a'\ncommand = 'true'\n")
    found = pacball.json("publish", tree, NAME, "--to", tmp_path / "store", code=7)
    assert found["place"] == f"{tree}/pacball.toml: after_install 1: command"
    assert found["message"] == "must be a list of texts"
    assert pacball.json("list", "--from", tmp_path / "store")["releases"] == []


def test_from_publish_to_validate(pacball, tmp_path, published):
    words = published(
        declaration(
            GENERATED, ["python3 -m compileall -q lib; echo x > etc/setup.sh"], ["echo fine; test -e etc/setup.sh"]
        )
    )
    assert pacball.json("show", NAME, "--from", tmp_path / "store")["has_actions"] is True
    assert "does not run the release's own commands" in pacball.text("install", *words, "--plan")
    assert "runs the release's own commands" in pacball.text("install", *words, "--plan", "--run-actions", *AS)
    assert "its own commands (pacball.toml) were not run; to run them: the same command" in pacball.text(
        "install", *words
    )
    planned = pacball.json("install", *words, "--plan", "--run-actions", *AS)
    assert (planned["already_installed"], planned["actions"]) == (False, "run")
    text = pacball.text("install", *words, "--run-actions", *AS)
    assert "after_install a0: ended with exit code 0" in text
    assert "validate v0: ended with exit code 0" in text
    done = pacball.json("install", *words, "--run-actions", *AS)
    assert (done["actions"], done["ran"], done["already_installed"]) == ("run_before", [], True)
    where = ("--root", tmp_path / "root")
    assert f"{NAME} is valid\n" in pacball.text("validate", NAME, *where, *AS)
    found = pacball.json("validate", NAME, *where, *AS)
    assert (found["passed"], found["changed"], [one["name"] for one in found["ran"]]) == (True, [], ["v0"])
    assert "fine\n" in Path(found["ran"][0]["log"]).read_text(encoding="utf-8")


def test_a_command_that_fails(pacball, tmp_path, published):
    words = published(declaration([], ["printf 'oh\\033[2Jno\\n' >&2; exit 3"]))
    found = pacball.run("install", *words, "--run-actions", *AS)
    assert found.exit_code == 10
    assert "pacball: warning: a0: oh\\x1b[2Jno" in found.stderr
    assert "\033" not in found.output
    last = found.stderr.splitlines()[-1]
    assert "the command a0 (after_install) of Sample-1.0-any ended with exit code 3; nothing was switched" in last
    assert f"{tmp_path}/root/.pacball/logs/{NAME}/" in last
    failed = pacball.json("install", *words, "--run-actions", *AS, code=10)
    assert failed["error"] == "action_failed"
    assert not (tmp_path / "root/current/Sample").exists()


def test_a_release_that_is_not_valid_any_more(pacball, tmp_path, published):
    flag = tmp_path / "good"
    flag.touch()
    words = published(declaration([], [], [f"test -e {flag}", "true"]))
    pacball.json("install", *words, "--run-actions", *AS)
    flag.unlink()
    found = pacball.json("validate", NAME, "--root", tmp_path / "root", *AS, code=1)
    assert (found["passed"], [one["passed"] for one in found["ran"]]) == (False, [False, True])
    text = pacball.text("validate", NAME, "--root", tmp_path / "root", *AS, code=1)
    assert text.startswith("FAILED: v0 ended with exit code 1, after ")
    assert text.endswith(f"{NAME} is NOT valid\n")


def test_nothing_to_validate(pacball, tmp_path, published):
    words = published(declaration())
    pacball.json("install", *words)
    found = pacball.json("validate", NAME, "--root", tmp_path / "root", *AS, code=3)
    assert found["message"] == "has no commands to validate it in its pacball.toml"


def test_whom_commands_run_as(pacball, published):
    words = published(declaration([], ["true"]))
    assert (
        pacball.json("install", *words, "--run-actions", "--actions-as", "no-such-user", code=3)["place"]
        == "--actions-as"
    )
    if os.geteuid() == 0:
        found = pacball.json("install", *words, "--run-actions", code=7)
        assert "as root, the commands of a release run only as a user that is named" in found["message"]
    else:
        found = pacball.json("install", *words, "--run-actions", "--actions-as", "root", code=7)
        assert found["message"] == "only root can run commands as root"
        assert pacball.json("install", *words, "--run-actions")["actions"] == "run"

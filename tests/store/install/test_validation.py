"""The checks of an installed release, run again: what they find, what they may do, and what the history says of them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pacstore.contain import landlock
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.install.actions.validation import validate
from pacstore.install.root.history import EventKind
from pacstore.install.root.layout import Root
from pacstore.release import Release
from tests.store.install.acting import Acting, declaration
from tests.store.install.test_actions import alive, gone
from tests.store.install.world import NAME, look

RELEASE = Release.parse(NAME)


@pytest.fixture(params=[landlock.version(), 0], ids=["landlock", "plain"])
def acting(request, tmp_path):
    return Acting(tmp_path, landlock=request.param)


def check(acting):
    return validate(
        acting.root, RELEASE, options=acting.options().actions, progress=acting.notes, now=lambda: 1_700_000_123.0
    )


def events(acting):
    with Root.existing(acting.root) as root:
        return [event for event in root.history() if event.kind is EventKind.VALIDATE]


def test_all_checks_are_run_and_reported(acting, tmp_path):
    flag = tmp_path / "good"
    flag.touch()
    acting.publish(declaration([], [], ["echo one", f"echo two; test -e {flag}", "echo three"]))
    acting.install()
    before = look(acting.top)
    found = check(acting)
    assert (found.passed, [one.passed for one in found.ran], found.changed) == (True, [True, True, True], ())
    flag.unlink()
    found = check(acting)
    assert (found.passed, [one.passed for one in found.ran]) == (False, [True, False, True])
    assert found.ran[1].ended == "ended with exit code 1"
    assert "\ntwo\npacball: it ended with exit code 1, after " in found.ran[1].log.read_text()
    assert "v1: two" in acting.notes.warnings
    assert [event.values["passed"] for event in events(acting)] == [True, False]
    last = events(acting)[-1]
    assert (last.time, last.release, last.text("as")) == (1_700_000_123.0, RELEASE, acting.user.name)
    assert [(one["name"], one["passed"], one["log"]) for one in last.values["commands"]] == [
        (one.name, one.passed, one.log.name) for one in found.ran
    ]
    assert look(acting.top) == before
    assert os.listdir(acting.root / ".pacball/staging") == []


def test_they_run_in_the_release(acting):
    acting.publish(
        declaration([], [], [["/bin/sh", "-c", "pwd; echo $PACBALL_PREFIX $PACBALL_STAGING {prefix} {staging}"]])
    )
    acting.install(run=False)
    assert check(acting).passed
    assert f"{acting.top}\n{' '.join([str(acting.top)] * 4)}\n" in acting.log()


def test_a_check_that_writes_to_the_release(acting):
    acting.publish(declaration(["etc/new"], ["true"], ["(echo x >> lib/data) || echo cannot; true"]))
    acting.install(run=False)
    found = check(acting)
    if acting.landlock:
        assert found.passed
        assert "cannot" in acting.log()
        assert acting.damage() == []
    else:
        assert (found.passed, found.changed) == (False, ("lib/data",))


def test_a_damaged_release_is_checked_as_well_as_it_goes(acting):
    acting.publish(declaration([], [], ["test -e lib/data"]))
    acting.install()
    (acting.top / "lib/data").unlink()
    found = check(acting)
    assert (found.passed, found.changed) == (False, ())


@pytest.mark.parametrize("text", ["format = 1\n", "gone", "format = 1\nsurprise = 1\n", "dir"])
def test_a_declaration_that_was_not_signed_is_not_followed(acting, text):
    acting.publish(declaration([], [], ["true"]))
    acting.install()
    path = acting.top / "pacball.toml"
    if text == "gone":
        path.unlink()
    elif text == "dir":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(Corrupt, match="is not what was signed"):
        check(acting)
    assert events(acting) == []


def test_a_changed_command_is_not_run(acting):
    acting.publish(declaration([], [], ["true"]))
    acting.install()
    (acting.top / "pacball.toml").write_text(declaration([], [], ["touch $TMPDIR/../../evil"]))
    with pytest.raises(Corrupt):
        check(acting)


def test_what_cannot_be_validated(acting, tmp_path):
    with pytest.raises((NotFound, Refused)):
        check(acting)
    acting.publish(declaration([], ["true"]))
    acting.install()
    with pytest.raises(NotFound, match="has no commands to validate it"):
        check(acting)
    with pytest.raises(NotFound):
        validate(
            acting.root,
            Release.parse("Other-1-any"),
            options=acting.options().actions,
            progress=acting.notes,
            now=time.time,
        )


CHECK = """
import sys
from pathlib import Path
from tests.store.install.acting import Acting
from tests.store.install.test_validation import check
check(Acting(Path(sys.argv[1]), landlock=int(sys.argv[2])))
"""


def test_killed_it_leaves_nothing(acting, tmp_path):
    marker = f"34{os.getpid()}.{tmp_path.stat().st_ino}"
    acting.publish(declaration([], ["true"], [f"test $PACBALL_STAGING != $PACBALL_PREFIX || sleep {marker}"]))
    acting.install()
    argv = [sys.executable, "-c", CHECK, str(tmp_path), str(acting.landlock)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not alive(f"sleep\0{marker}") and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert gone(f"sleep\0{marker}")
    assert acting.install(run=False).already_installed
    assert acting.damage() == []

"""A rollback leads back to what was current before, and once more further back."""

import json
import os
import shutil

import pytest

from pacstore.errors import NotFound, Refused
from pacstore.release import Release

ONE, TWO, THREE, FOUR = (f"App-{version}-any" for version in "1234")


@pytest.fixture
def three(site):
    for name in (ONE, TWO, THREE):
        site.install(name)
    return site


def test_each_goes_further_back_until_there_is_nothing(three):
    done = three.roll_back()
    assert (done.previous, done.release) == (THREE, Release.parse(TWO))
    assert three.current() == TWO
    assert (three.root / "current/App/any/file").read_bytes() == (three.root / "releases" / TWO / "file").read_bytes()
    three.roll_back()
    assert three.current() == ONE
    with pytest.raises(Refused, match="nothing was current before it") as caught:
        three.roll_back()
    assert f"{TWO}, {THREE}" in caught.value.hint
    assert "--to" in caught.value.hint
    lines = (three.root / ".pacball/history.jsonl").read_text().splitlines()
    assert [(e["event"], e["release"], e["previous"]) for e in map(json.loads, lines[-2:])] == [
        ("rollback", TWO, THREE),
        ("rollback", ONE, TWO),
    ]


def test_what_was_rolled_back_from_is_not_gone_back_to(three):
    three.roll_back()
    three.install(FOUR)
    three.roll_back()
    assert three.current() == TWO


def test_what_was_installed_again_is(three):
    three.roll_back()
    three.install(THREE)
    three.install(FOUR)
    three.roll_back()
    assert three.current() == THREE


def test_to_a_chosen_release_and_back(three):
    assert three.roll_back(to=ONE).previous == THREE
    assert three.current() == ONE
    three.roll_back(to=THREE)
    assert three.current() == THREE
    three.roll_back()
    assert three.current() == ONE


def test_removed_releases_are_passed_over(three):
    three.remove(TWO, grace=0)
    three.roll_back()
    assert three.current() == ONE


def test_all_that_was_before_is_removed(site):
    site.install(ONE)
    site.install(TWO)
    site.remove(ONE, grace=0)
    with pytest.raises(Refused, match="nothing to go back to") as caught:
        site.roll_back()
    assert caught.value.hint == "nothing else is installed"
    assert site.current() == TWO


def test_releases_whose_tree_or_record_is_gone_are_passed_over(three):
    shutil.rmtree(three.root / "releases" / TWO)
    three.roll_back()
    assert three.current() == ONE


def test_a_record_that_is_damaged_is_passed_over_and_refused(three):
    (three.root / f".pacball/manifests/{TWO}.manifest").write_bytes(b"?")
    with pytest.raises(NotFound):
        three.roll_back(to=TWO)
    three.roll_back()
    assert three.current() == ONE


def test_installed_without_a_switch_is_not_gone_back_to_but_can_be_chosen(site):
    site.install(ONE)
    site.install(TWO, switch=False)
    with pytest.raises(Refused):
        site.roll_back()
    site.roll_back(to=TWO)
    assert site.current() == TWO


def test_the_platform(site):
    for name in ("App-1-x86_64-linux", "App-2-x86_64-linux", "App-1-arm", "App-2-arm", "Tool-1-arm"):
        site.install(name)
    with pytest.raises(Refused, match="several platforms") as caught:
        site.roll_back("App")
    assert caught.value.hint == "name the platform too: arm, x86_64-linux"
    assert site.roll_back("App", "arm").release == Release.parse("App-1-arm")
    assert site.current("App/x86_64-linux") == "App-2-x86_64-linux"
    assert site.roll_back("App", "x86_64-linux").release == Release.parse("App-1-x86_64-linux")
    with pytest.raises(NotFound):
        site.roll_back("App", "riscv")
    with pytest.raises(NotFound):
        site.roll_back("Other")
    with pytest.raises(Refused, match="not a release of App"):
        site.roll_back("App", to="Tool-1-arm")
    with pytest.raises(Refused, match="not a release of App x86_64-linux"):
        site.roll_back("App", "x86_64-linux", to="App-2-arm")
    with pytest.raises(NotFound, match="not installed"):
        site.roll_back("App", to="App-7-arm")
    with pytest.raises(Refused, match="current already"):
        site.roll_back("App", to="App-1-arm")


def test_no_root(site, tmp_path):
    with pytest.raises(NotFound, match="not an install root"):
        site.roll_back()
    assert not site.root.exists()


def test_a_switch_that_is_in_the_history_but_never_was(three):
    # Killed between the two.
    line = {"event": "switch", "time": three.time, "release": FOUR, "previous": THREE}
    with (three.root / ".pacball/history.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    three.roll_back()
    assert three.current() == TWO


def test_a_rollback_that_is_in_the_history_but_never_was(three):
    line = {"event": "rollback", "time": three.time, "release": TWO, "previous": THREE}
    with (three.root / ".pacball/history.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    three.roll_back()
    assert three.current() == TWO


def test_a_history_without_events_and_one_that_is_gone(three):
    path = three.root / ".pacball/history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{key: value for key, value in line.items() if key != "event"} for line in lines if line["event"] == "switch"]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    three.roll_back()
    assert three.current() == TWO
    path.unlink()
    with pytest.raises(Refused, match="installed are too"):
        three.roll_back()


def test_current_that_is_gone_or_leads_nowhere(three):
    os.unlink(three.root / "current/App/any")
    three.roll_back()
    assert three.current() == THREE
    shutil.rmtree(three.root / "releases" / THREE)
    three.roll_back()
    assert three.current() == TWO

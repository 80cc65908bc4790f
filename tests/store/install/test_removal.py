"""Removal takes what is asked for, whole, and never what is current or was until just now."""

import errno
import json
import os
import re
import time

import pytest

from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.install.root.inventory import take_inventory
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import this_machine
from pacstore.install.root.trash import Trash, sweep_trash
from pacstore.install.upkeep.pruning import prune
from pacstore.install.upkeep.removal import remove
from pacstore.release import Release
from tests.store.install.site import DAY, START
from tests.store.install.world import Notes, noise

ONE, TWO, THREE, FOUR = (f"App-{version}-any" for version in "1234")


@pytest.fixture
def three(site):
    for name in (ONE, TWO, THREE):
        site.install(name)
    return site


def test_what_was_removed_is_gone_and_what_was_not_is_whole(three):
    three.time += 7 * DAY
    done = three.remove(ONE, TWO)
    assert [(one.release, one.files, one.bytes_freed >= 16_384) for one in done.removed] == [
        (Release.parse(ONE), 2, True),
        (Release.parse(TWO), 2, True),
    ]
    assert three.there() == [THREE]
    lines = (three.root / ".pacball/history.jsonl").read_text().splitlines()
    assert [(e["event"], e["release"]) for e in map(json.loads, lines[-2:])] == [("remove", ONE), ("remove", TWO)]
    three.install(ONE)
    assert three.there() == [ONE, THREE]
    assert three.current() == ONE


def test_its_logs_go_too(three):
    logs = three.root / ".pacball/logs"
    for name in (ONE, TWO):
        (logs / name).mkdir(parents=True)
        (logs / name / "log").write_text("printed")
    three.remove(ONE, grace=0)
    assert os.listdir(logs) == [TWO]
    assert three.there() == [TWO, THREE]


def test_the_current_one_is_refused(three):
    three.time += 100 * DAY
    with pytest.raises(Refused, match="current/App/any leads to it") as caught:
        three.remove(ONE, THREE, grace=0)
    assert "pacball rollback App any" in caught.value.hint
    assert three.there() == [ONE, TWO, THREE]


def test_a_link_of_another_line_keeps_it_too(three):
    (three.root / "current/Other").mkdir()
    (three.root / "current/Other/some").symlink_to(three.root / "releases" / ONE)
    with pytest.raises(Refused, match="current/Other/some"):
        three.remove(ONE, grace=0)


def test_what_is_not_installed(three, tmp_path):
    with pytest.raises(NotFound):
        three.remove(ONE, "App-9-any", grace=0)
    assert three.there() == [ONE, TWO, THREE]
    three.root = tmp_path / "nothing"
    with pytest.raises(NotFound, match="not an install root"):
        three.remove(ONE)


def test_the_grace_counts_from_when_it_was_replaced(three):
    # ONE was replaced on day 2, TWO on day 3.
    three.time = START + 9 * DAY - 1
    with pytest.raises(Refused, match="ceased to be current 7 days ago") as caught:
        three.remove(ONE)
    assert re.search(r"from 2023-11-23T22:13:20Z on; to remove it now: --grace 0", caught.value.hint)
    three.time += 1
    with pytest.raises(Refused, match="6 days ago"):
        three.remove(TWO)
    three.remove(ONE)
    three.remove(TWO, grace=DAY)
    assert three.there() == [THREE]


def test_the_grace_of_one_that_never_was_current_counts_from_its_installation(three):
    three.install(FOUR, switch=False)
    three.time += 3600
    with pytest.raises(Refused, match="was installed 60 minutes ago"):
        three.remove(FOUR)
    three.remove(FOUR, grace=3600)
    assert three.there() == [ONE, TWO, THREE]


def test_a_rollback_begins_the_grace_anew(three):
    three.time += 30 * DAY
    three.roll_back(days=0)
    with pytest.raises(Refused, match="0 seconds ago"):
        three.remove(THREE)
    three.remove(ONE)


def test_a_clock_that_was_ahead_removes_nothing_early(site):
    site.install(ONE)
    site.time += 400 * DAY
    site.install(TWO)
    site.time = START + 100 * DAY
    with pytest.raises(Refused, match=r"a time still to come, .*: a clock is or was wrong"):
        site.remove(ONE)
    site.remove(ONE, grace=0)


def test_a_clock_that_was_behind_removes_nothing_early(site):
    site.install(ONE)
    site.time = 5 * DAY  # of 1970
    site.install(TWO)
    site.time = START + 2 * DAY
    with pytest.raises(Refused, match="24 hours ago"):
        site.remove(ONE)
    site.time = START + 8 * DAY
    site.remove(ONE)


def test_a_lost_history_removes_nothing_early(three):
    (three.root / ".pacball/history.jsonl").unlink()
    three.time = (three.root / f".pacball/manifests/{ONE}.manifest").stat().st_mtime + 60
    with pytest.raises(Refused, match="ago"):
        three.remove(ONE)


def test_hard_links_that_others_share_are_not_freed(three):
    top = three.root / "releases"
    (top / TWO / "file").unlink()
    os.link(top / ONE / "file", top / TWO / "file")
    os.link(top / ONE / "same", top / ONE / "same again")
    before = (top / ONE / "same").stat().st_blocks * 512
    freed = three.remove(ONE, grace=0).removed[0]
    assert freed.files == 1
    assert before <= freed.bytes_freed < 2 * before + 16_384
    assert (top / TWO / "file").read_bytes() == noise(ONE, 5000)


def test_links_in_a_release_are_removed_not_followed(three, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("")
    (three.root / "releases" / ONE / "out").symlink_to(tmp_path / "outside")
    three.remove(ONE, grace=0)
    assert os.listdir(tmp_path / "outside") == ["kept"]


def test_a_very_deep_tree(three):
    at = os.open(three.root / "releases" / ONE, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    three.remove(ONE, grace=0)
    assert three.there() == [TWO, THREE]


def test_closed_directories(three):
    closed = three.root / "releases" / ONE / "closed"
    (closed / "more").mkdir(parents=True)
    (closed / "more").chmod(0)
    closed.chmod(0o500)
    three.remove(ONE, grace=0)
    assert three.there() == [TWO, THREE]


# -- interrupted, and beside others


def taken(site, name):
    """As one leaves it who is killed right after the first step."""
    with Root.open(site.root) as opened, Trash(opened) as trash:
        return trash.take(Release.parse(name))


def test_killed_when_the_tree_was_taken(three):
    taken(three, ONE)
    assert [str(one.release) for one in take_inventory(three.root).releases] == [TWO, THREE]
    assert take_inventory(three.root).trash_bytes > 16_000
    done = three.remove(TWO, grace=0)
    assert done.bytes_swept > 16_000
    assert three.there() == [THREE]


def test_killed_and_installed_again(three):
    taken(three, ONE)
    three.install(ONE)
    assert three.there() == [ONE, TWO, THREE]
    assert (three.root / "current/App/any/file").read_bytes() == noise(ONE, 5000)


def test_an_installation_sweeps_the_trash(three):
    taken(three, ONE)
    three.install(FOUR)
    assert three.there() == [TWO, THREE, FOUR]


def test_killed_when_the_records_of_a_new_tree_were_taken(three):
    name = taken(three, ONE)
    manifests, trash = three.root / ".pacball/manifests", three.root / ".pacball/trash"
    kept = {path.name: path.read_bytes() for path in manifests.iterdir()}
    three_again = three.root / "releases" / ONE
    three_again.mkdir()  # installed again, and then its records go
    for suffix in ("manifest", "attributes"):
        (manifests / f"{ONE}.{suffix}").rename(trash / f"{name}.{suffix}")
    with Root.open(three.root) as opened:
        sweep_trash(opened)
    assert {path.name: path.read_bytes() for path in manifests.iterdir()} == kept
    assert os.listdir(trash) == []


def test_an_installation_finds_records_in_the_trash(three):
    trash = three.root / ".pacball/trash"
    trash.mkdir(exist_ok=True)
    (three.root / f".pacball/manifests/{ONE}.manifest").rename(trash / f"{'0' * 16}.{ONE}.manifest")
    assert three.install(ONE).already_installed
    assert three.current() == ONE


def test_what_current_leads_to_is_put_back(three):
    taken(three, THREE)
    assert not (three.root / "current/App/any/").exists()
    with Root.open(three.root) as opened:
        sweep_trash(opened)
    assert three.there() == [ONE, TWO, THREE]
    assert three.current() == THREE


def test_half_deleted_trees_are_never_put_back(three):
    name = taken(three, THREE)
    (three.root / ".pacball/trash" / name).rename(three.root / ".pacball/trash" / ("0" * 32))
    with Root.open(three.root) as opened:
        sweep_trash(opened)
    assert os.listdir(three.root / ".pacball/trash") == []
    assert not (three.root / "releases" / THREE).exists()


def test_a_switch_to_what_is_removed_leads_back(three):
    with Root.open(three.root) as opened:
        tree = opened.recorded(Release.parse(ONE))
        taken(three, ONE)
        with pytest.raises(Unavailable, match="was removed while it was to become current"):
            opened.switch(Release.parse(ONE), tree=tree, source="", time=three.time)
        assert three.current() == THREE
        with pytest.raises(Unavailable):
            opened.switch(Release.parse("New-1-any"), tree=tree, source="", time=three.time)
    assert not os.listdir(three.root / "current/New")


# -- prune


def reasons(pruned):
    return {str(one.release): str(one.reason) for one in pruned.releases}


def test_prune_keeps_the_current_and_the_newest(three):
    three.install(FOUR)
    three.roll_back(days=0)
    three.time += 8 * DAY
    dry = three.prune(1, dry_run=True)
    assert reasons(dry) == {THREE: "current", FOUR: "new", TWO: "removed", ONE: "removed"}
    assert three.there() == [ONE, TWO, THREE, FOUR]
    done = three.prune(1)
    assert reasons(done) == reasons(dry)
    assert [one.bytes_freed > 16_000 for one in done.releases] == [False, False, True, True]
    assert three.there() == [THREE, FOUR]
    assert reasons(three.prune(0)) == {THREE: "current", FOUR: "removed"}
    assert reasons(three.prune(0)) == {THREE: "current"}


def test_prune_waits_for_the_grace(three):
    three.time = START + 9 * DAY
    done = three.prune(0)
    assert reasons(done) == {THREE: "current", TWO: "grace", ONE: "removed"}
    assert done.releases[1].until == START + 10 * DAY
    assert reasons(three.prune(0, grace=0)) == {THREE: "current", TWO: "removed"}


def test_prune_judges_each_project_and_platform_for_itself(site):
    for name in ("App-1-x", "App-2-x", "App-1-y", "App-2-y", "Tool-1-x", "Tool-2-x"):
        site.install(name)
    site.time += 30 * DAY
    assert reasons(site.prune(0, project="App", platform="y")) == {"App-2-y": "current", "App-1-y": "removed"}
    assert reasons(site.prune(0, project="Tool")) == {"Tool-2-x": "current", "Tool-1-x": "removed"}
    with pytest.raises(NotFound, match="nothing is installed of it for z"):
        site.prune(0, project="App", platform="z")
    site.prune(0)
    assert site.there() == ["App-2-x", "App-2-y", "Tool-2-x"]


def test_prune_leaves_what_it_does_not_understand(three):
    three.time += 30 * DAY
    (three.root / f".pacball/manifests/{ONE}.manifest").write_bytes(b"?")
    assert reasons(three.prune(0)) == {THREE: "current", TWO: "removed", ONE: "damaged"}
    three.remove(ONE)
    assert three.there() == [THREE]


def test_prune_sweeps_ended_attempts_and_trash(three):
    taken(three, ONE)
    staging = three.root / ".pacball/staging"
    for name, age, pid in (("old", 8, 0), ("young", 1, 0), ("running", 8, os.getpid())):
        (staging / name / "tree").mkdir(parents=True)
        owner = {
            "release": FOUR,
            "manifest_digest": "00" * 32,
            "machine": this_machine(),
            "pid": pid,
            "started": three.time - age * DAY,
        }
        (staging / name / "owner.json").write_text(json.dumps(owner))
        os.utime(staging / name / "owner.json", (time.time() - age * DAY,) * 2)
    (staging / "young/tree/file").write_bytes(bytes(10_000))
    found = take_inventory(three.root)
    assert [(one.release, one.ended, one.bytes > 10_000) for one in found.attempts] == [
        (FOUR, True, False),
        (FOUR, False, False),
        (FOUR, True, True),
    ]
    done = three.prune(5)
    assert (done.attempts, done.bytes_swept > 16_000) == (1, True)
    assert sorted(os.listdir(staging)) == ["running", "young"]
    assert three.prune(5, grace=0).attempts == 1


# -- the inventory


def test_the_inventory(three):
    three.roll_back()
    one, two, three_ = take_inventory(three.root).releases
    assert (one.release, one.current, one.installed, one.current_since, one.replaced) == (
        Release.parse(ONE),
        False,
        START + DAY,
        START + DAY,
        START + 2 * DAY,
    )
    assert (two.current, two.current_since, two.replaced) == (True, START + 4 * DAY, None)
    assert (three_.current, three_.replaced) == (False, START + 4 * DAY)
    assert one.tree_digest == three.world.catalog[ONE].tree_digest
    assert (one.bytes_total, one.files, one.source, one.damage) == (10_000, 2, "fake", "")


def test_the_inventory_of_a_damaged_record(three):
    (three.root / f".pacball/manifests/{ONE}.manifest").write_bytes(b"?" * 100)
    one = take_inventory(three.root).releases[0]
    assert (one.tree_digest, one.bytes_total, one.files) == (None, None, None)
    assert one.damage


def test_an_empty_root_and_none(site, tmp_path):
    with Root.open(site.root):
        pass
    found = take_inventory(site.root)
    assert (found.releases, found.attempts, found.trash_bytes, found.aside_bytes) == ((), (), 0, 0)
    with pytest.raises(NotFound):
        take_inventory(tmp_path / "none")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_link_that_cannot_be_read_is_not_taken_for_none(three, monkeypatch, number):
    def fails(name, **_):
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr(os, "readlink", fails)
    with pytest.raises(Unavailable):
        three.remove(THREE, grace=0)
    with pytest.raises(Unavailable):
        three.prune(0, grace=0)
    monkeypatch.undo()
    assert three.there() == [ONE, TWO, THREE]
    assert three.current() == THREE


def test_what_is_installed_again_while_it_is_removed_keeps_its_past(three):
    class Meddling(Notes):
        installed = False

        def advance(self, count_bytes):
            if not self.installed:
                self.installed = True
                three.install(ONE)

    remove(three.root, [Release.parse(ONE)], grace_seconds=0, now=three.now, progress=Meddling())
    assert three.current() == ONE
    as_installed = three.time
    os.utime(three.root / f".pacball/manifests/{ONE}.manifest", (START, START))
    three.install(TWO, days=30)
    (one,) = [found for found in take_inventory(three.root).releases if found.release == Release.parse(ONE)]
    assert (one.installed, one.current_since, one.replaced) == (as_installed, as_installed, three.time)
    with pytest.raises(Refused, match="0 seconds ago"):
        three.remove(ONE)


def test_one_of_which_the_history_says_only_that_it_was_replaced_has_its_grace(three):
    history = three.root / ".pacball/history.jsonl"
    history.unlink()
    three.install("App-4-any", days=30)
    os.utime(three.root / f".pacball/manifests/{THREE}.manifest", (START, START))
    with pytest.raises(Refused, match="0 seconds ago"):
        three.remove(THREE)


class Turning(Notes):
    """While the first release is deleted, the `other` becomes current for a moment."""

    def __init__(self, site, other):
        super().__init__()
        self.site = site
        self.other = other
        self.turned = False

    def advance(self, count_bytes):
        if not self.turned:
            self.turned = True
            self.site.roll_back(to=self.other)
            self.site.roll_back(to=THREE)


def test_what_was_current_for_a_moment_meanwhile_has_its_grace(three):
    three.time += 30 * DAY
    chosen = [Release.parse(name) for name in (ONE, TWO)]
    with pytest.raises(Refused, match="was current or installed meanwhile"):
        remove(three.root, chosen, grace_seconds=DAY, now=three.now, progress=Turning(three, TWO))
    assert three.there() == [TWO, THREE]


def test_prune_keeps_what_was_current_for_a_moment_meanwhile(three):
    three.time += 30 * DAY
    # The newest goes first.
    meddling = Turning(three, ONE)
    done = prune(three.root, keep=0, grace_seconds=DAY, dry_run=False, now=three.now, progress=meddling)
    found = [(str(one.release), str(one.reason), one.until) for one in done.releases]
    assert found == [(THREE, "current", None), (TWO, "removed", None), (ONE, "grace", three.time + DAY)]
    assert three.there() == [ONE, THREE]


def test_one_that_is_removed_while_all_are_listed_is_passed_over(three, monkeypatch):
    installed = Root.installed

    def removed_meanwhile(root):
        found = installed(root)
        (three.root / f".pacball/manifests/{ONE}.manifest").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Root, "installed", removed_meanwhile)
    assert [str(one.release) for one in take_inventory(three.root).releases] == [TWO, THREE]

"""What an attempt left is taken over when its owner certainly has ended, and only copied while it may live."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from pacstore.errors import Unavailable
from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions
from pacstore.install.root import staging
from pacstore.install.root.layout import Root
from pacstore.install.root.living import (
    SILENT_HERE_SECONDS,
    SILENT_SECONDS,
    process_started,
    signs_of_life,
    this_machine,
)
from pacstore.install.root.staging import Attempt, attempts, sweep, take_over
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, look, noise, put

SMALL = InstallOptions(range_bytes=300_000)
HOST, BOOT, SPACE = this_machine().split("/")


def broken_after(ranges):
    def spoil(number, _piece, data):
        if number > ranges:
            raise Unavailable("is gone", place="fake")
        return data

    return spoil


@pytest.fixture
def left(world, entry, root):
    """The directory of an attempt that failed after some ranges."""
    with pytest.raises(Unavailable):
        put(entry, FakeSource(world, broken_after(10)), root, options=SMALL)
    (attempt,) = (root / ".pacball/staging").iterdir()
    return attempt


def say(attempt, **owner):
    """Change what is said of the attempt's owner, and when it gave its last sign: `age` seconds ago."""
    path = attempt / "owner.json"
    age = owner.pop("age", 0.0)
    path.write_text(json.dumps({**json.loads(path.read_text()), **owner}))
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


def inodes(top):
    return {path.stat().st_ino for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def living():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        yield child
        child.kill()


def test_files_of_a_dead_attempt_are_moved(world, tree, entry, root, left):
    theirs = inodes(left / "tree")
    planned = plan(entry, source=FakeSource(world), root=root, progress=Notes(), options=SMALL)
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    # All but what was in one chunk and not whole, and of which nothing was there.
    assert len(theirs & inodes(done.path)) > 0.9 * len(theirs)
    assert os.listdir(root / ".pacball/staging") == []
    assert planned.disk_bytes < 0.7 * planned.disk_bytes_after


def test_a_large_file_that_is_half_there_stays_where_it_is(world, root, tmp_path):
    """Only what is missing is fetched, and what is there is not written again."""
    top = tmp_path / "large"
    top.mkdir()
    (top / "large").write_bytes(noise("large", 40 << 20))
    entry = world.publish(top)
    with pytest.raises(Unavailable):
        put(entry, FakeSource(world, broken_after(80)), root, options=SMALL)
    (attempt,) = (root / ".pacball/staging").iterdir()
    inode = (attempt / "tree/large").stat().st_ino
    with (attempt / "tree/large").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damaged")
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert (done.path / "large").stat().st_ino == inode
    assert look(done.path) == look(top)
    assert 15 << 20 < done.bytes_reused < 30 << 20
    assert done.bytes_downloaded < 26 << 20


def test_what_a_living_process_writes_is_only_copied(world, tree, entry, root, left, living):
    say(left, pid=living.pid, process_started=process_started(living.pid))
    before = look(left / "tree")
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert done.bytes_reused > 1_000_000
    assert look(left / "tree") == before
    assert not inodes(left / "tree") & inodes(done.path)


def test_a_stopped_process_lives(world, entry, root, left, living):
    living.send_signal(signal.SIGSTOP)
    say(left, pid=living.pid, process_started=process_started(living.pid))
    put(entry, FakeSource(world), root, options=SMALL)
    assert left.exists()


def test_another_process_with_the_same_number_is_not_the_owner(world, tree, entry, root, left, living):
    say(left, pid=living.pid, process_started=process_started(living.pid) - 1)
    assert look(put(entry, FakeSource(world), root, options=SMALL).path) == look(tree)
    assert not left.exists()


def test_a_zombie_has_ended(world, entry, root, left, living):
    started = process_started(living.pid)
    living.kill()
    os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
    say(left, pid=living.pid, process_started=started)
    put(entry, FakeSource(world), root, options=SMALL)
    assert not left.exists()


@pytest.mark.parametrize(
    ("machine", "age", "ended"),
    [
        ("other/BOOT/SPACE", 0, False),
        ("other/BOOT/SPACE", SILENT_SECONDS - 60, False),
        ("other/BOOT/SPACE", SILENT_SECONDS + 60, True),
        ("other//", SILENT_SECONDS - 60, False),
        ("other//", SILENT_SECONDS + 60, True),
        # Another container on this machine, whose host has our name.
        ("HOST/BOOT/pid:[1]", SILENT_HERE_SECONDS - 60, False),
        ("HOST/BOOT/pid:[1]", SILENT_HERE_SECONDS + 60, True),
        # Before this machine was started, under any name; nobody else can have this disk.
        ("HOST/other/SPACE", 0, True),
        ("renamed/other/SPACE", 0, True),
        ("", 0, False),
        ("///////", 0, False),
    ],
)
def test_of_other_machines_only_signs_of_life_are_known(world, tree, entry, root, left, machine, age, ended):
    for word, ours in (("HOST", HOST), ("BOOT", BOOT), ("SPACE", SPACE)):
        machine = machine.replace(word, ours)
    say(left, pid=os.getpid(), machine=machine, age=age)
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert done.bytes_reused > 1_000_000
    assert left.exists() is not ended


def test_a_sign_of_life_from_the_future_is_set_right(world, tree, entry, root, left):
    say(left, pid=1, machine=f"other/{BOOT}/{SPACE}", age=-10 * SILENT_SECONDS)
    assert look(put(entry, FakeSource(world), root, options=SMALL).path) == look(tree)
    now = (root / ".pacball/staging").stat().st_mtime
    assert abs((left / "owner.json").stat().st_mtime - now) < 60


def test_an_attempt_gives_signs_of_life(root, entry):
    with Root.open(root) as opened:
        attempt = Attempt.begin(opened, entry.release, entry.manifest.digest, 0.0)
        path = root / ".pacball/staging" / attempt.name / "owner.json"
        os.utime(path, (0, 0))
        given = threading.Event()

        def give():
            attempt.sign()
            given.set()
            raise OSError

        with signs_of_life(give, seconds=0.01):
            assert given.wait(20)
        assert path.stat().st_mtime > 1_000_000_000
        attempt.close()


def test_who_is_taken_over_cannot_publish(world, tree, entry, root, left):
    """Its tree has another name now; and a tree that was published first is not taken."""
    with Root.open(root) as opened:
        top = os.open(left / "tree", os.O_RDONLY)
        directory = os.open(left, os.O_RDONLY)
        assert take_over(opened, left.name, top)
        assert take_over(opened, left.name, top)
        with pytest.raises(FileNotFoundError):
            opened.admit(entry.release, directory, "tree")
        (found,) = attempts(opened)
        assert found.ended
        os.rename(left / "taken", left / "tree")
        assert opened.admit(entry.release, directory, "tree")
        assert not take_over(opened, left.name, top)
        os.close(top)
        os.close(directory)


def test_an_attempt_that_was_taken_over_half_is_taken_over_again(world, tree, entry, root, left):
    (left / "tree").rename(left / "taken")
    say(left, pid=os.getpid(), process_started=process_started(os.getpid()))
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert done.bytes_reused > 1_000_000
    assert os.listdir(root / ".pacball/staging") == []


def test_an_installation_that_is_taken_for_dead_begins_anew(world, tree, entry, root):
    """Its tree is taken away while it downloads."""

    def take(number, _piece, data):
        if number == 5:
            (attempt,) = (root / ".pacball/staging").iterdir()
            (attempt / "tree").rename(attempt / "taken")
        return data

    notes = Notes()
    done = put(entry, FakeSource(world, take), root, notes, options=SMALL)
    assert look(done.path) == look(tree)
    assert notes.warnings == ["another installation took this one for dead and took over its files; it begins anew"]
    assert os.listdir(root / ".pacball/staging") == []


def test_an_installation_that_is_taken_for_dead_each_time_ends(world, entry, root):
    def take(_number, _piece, data):
        for attempt in (root / ".pacball/staging").iterdir():
            if (attempt / "tree").exists():
                (attempt / "tree").rename(attempt / f"elsewhere{len(os.listdir(attempt))}")
        return data

    with pytest.raises(Unavailable):
        put(entry, FakeSource(world, take), root, options=SMALL)
    assert not (root / "releases" / NAME).exists()


def test_an_attempt_at_another_release_is_a_seed(world, tree, entry, root, left, tmp_path):
    """It is only read, and stays for who began it."""
    other_tree = tmp_path / "other"
    shutil.copytree(tree, other_tree, symlinks=True)
    (other_tree / "lib/deep/new").write_bytes(noise("more", 50_000))
    other = world.publish(other_tree, NEXT)
    before = look(left / "tree")
    planned = plan(other, source=FakeSource(world), root=root, progress=Notes(), options=SMALL)
    assert [seed.name for seed in planned.reuse] == [f"an interrupted attempt at {NAME}"]
    notes = Notes()
    done = put(other, FakeSource(world), root, notes, options=SMALL)
    assert look(done.path) == look(other_tree)
    assert done.bytes_reused > 1_000_000
    assert look(left / "tree") == before
    assert not inodes(left / "tree") & inodes(done.path)
    assert notes.warnings == []


@pytest.mark.parametrize("damage", [b"", b"PBMANI01", b"x" * 5000, None])
def test_an_attempt_whose_manifest_is_damaged_is_passed_over(world, tree, entry, root, left, damage):
    if damage is None:
        (left / "manifest").unlink()
    else:
        (left / "manifest").write_bytes(damage)
    done = put(world.publish(tree, NEXT), FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert done.bytes_reused == 0


def test_what_was_begun_of_another_release_is_kept_for_a_week(world, tree, entry, root, left):
    other = world.publish(tree, NEXT)
    put(other, FakeSource(world), root, options=SMALL)
    assert left.exists()
    say(left, age=8 * 24 * 3600)
    with Root.open(root) as opened:
        sweep(opened)
    assert not left.exists()


@pytest.mark.parametrize("owner", ["", "{}", "[]", '{"pid": "x"}', '{"pid": -1}'])
def test_what_cannot_be_told_whose_it_is_goes_when_it_is_old(root, owner):
    (root / ".pacball/staging/abc").mkdir(parents=True)
    (root / ".pacball/staging/abc/owner.json").write_text(owner)
    with Root.open(root) as opened:
        sweep(opened)
        assert os.listdir(opened.staging) == ["abc"]
        os.utime(root / ".pacball/staging/abc/owner.json", (0, 0))
        sweep(opened)
        assert os.listdir(opened.staging) == []


def test_a_file_with_other_names_is_not_touched(world, tree, entry, root, left, tmp_path):
    """An installed release may have it: neither its time nor its mode is changed, and it is not moved unless both are right."""
    linked = [path for path in (left / "tree").rglob("*") if path.is_file() and path.stat().st_size > 0]
    for path in linked:
        os.utime(path, (1, 1))
        os.link(path, tmp_path / path.name)
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert {(tmp_path / path.name).stat().st_mtime for path in linked} == {1}
    assert not inodes(done.path) & {(tmp_path / path.name).stat().st_ino for path in linked}
    assert done.bytes_reused > 1_000_000


def is_own(path):
    return path.is_file() and not path.is_symlink()


def test_what_the_disk_did_not_take_is_copied_not_moved(world, tree, entry, root, monkeypatch):
    def fails(_directory):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(staging, "sync_file_system", fails)
    with pytest.raises(Unavailable, match="Input/output error"):
        put(entry, FakeSource(world), root)
    monkeypatch.undo()
    (attempt,) = (root / ".pacball/staging").iterdir()
    before = {path.stat().st_ino: path for path in (attempt / "tree").rglob("*") if is_own(path)}
    kept = [os.open(path, os.O_RDONLY) for path in before.values()]  # so that no number is given again
    source = FakeSource(world)
    done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert source.calls == 0
    assert not set(before) & {path.stat().st_ino for path in done.path.rglob("*") if is_own(path)}
    assert os.listdir(root / ".pacball/staging") == []
    for descriptor in kept:
        os.close(descriptor)

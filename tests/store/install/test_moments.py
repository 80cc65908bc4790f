"""Removing, rolling back and repairing, killed or stopped at any moment, beside others: nothing is lost, nothing is mixed."""

import contextlib
import os
import shutil
import signal
import time

import pytest

from pacstore.errors import PacballError
from pacstore.install.root.layout import Root
from pacstore.install.root.trash import sweep_trash
from pacstore.install.upkeep.verify import verify
from tests.store.install.moments import moments
from tests.store.install.site import DAY
from tests.store.install.test_repair import FakeSupply, corrupt, mend
from tests.store.install.world import Notes, noise

ONE, TWO, THREE = (f"App-{version}-any" for version in "123")


@pytest.fixture
def three(site):
    for name in (ONE, TWO, THREE):
        site.install(name)
    site.time += 30 * DAY
    return site


def again(site, name=ONE):
    """Have `name` installed, and THREE current."""
    site.install(name, days=0, switch=False)
    if site.current() != THREE:
        site.install(THREE, days=0)


def assert_consistent(site):
    """Every tree is whole, whatever leads to it is there, and sweeping leaves nothing behind."""
    top = site.root / "current/App/any"
    with Root.open(site.root) as opened:
        sweep_trash(opened)
    assert top.exists(), os.readlink(top)
    there = site.there()
    assert there
    assert all(not one.findings for one in verify(site.root, [], Notes()))
    return there


def test_removal_killed_at_any_moment(three):
    states = set()
    for _ in moments(lambda: three.remove(ONE, grace=0), signal.SIGKILL, prepare=lambda: again(three)):
        tree = three.root / "releases" / ONE
        if tree.exists():
            assert sorted(os.listdir(tree)) == ["file", "same"]
        states.add(tree.exists())
        there = assert_consistent(three)
        assert there in ([ONE, TWO, THREE], [TWO, THREE])
    assert states == {True, False}


@pytest.mark.slow
def test_removal_killed_and_installed_again(three):
    for _ in moments(lambda: three.remove(ONE, grace=0), signal.SIGKILL, prepare=lambda: again(three)):
        three.install(ONE, days=0)
        assert (three.root / "current/App/any/file").read_bytes() == noise(ONE, 5000)
        assert assert_consistent(three) == [ONE, TWO, THREE]


def install_it(site):
    site.install(ONE, days=0)


def install_it_without_a_switch(site):
    site.install(ONE, days=0, switch=False)


def go_back_to_it(site):
    site.roll_back(to=ONE, days=0)


def remove_it(site):
    site.remove(ONE, grace=0)


def prune(site):
    site.prune(0, grace=0)


def sweep(site):
    with Root.open(site.root) as opened:
        sweep_trash(opened)


def repair_it(site):
    mend(site.root, FakeSupply(site.world), ONE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", [install_it, install_it_without_a_switch, go_back_to_it, remove_it, prune, sweep, repair_it]
)
def test_removal_stopped_at_any_moment_beside_others(three, other):
    for _ in moments(lambda: three.remove(ONE, grace=0), signal.SIGSTOP, prepare=lambda: again(three)):
        with contextlib.suppress(PacballError):
            other(three)
    assert_consistent(three)


@pytest.mark.slow
@pytest.mark.parametrize("other", [install_it, go_back_to_it])
def test_what_became_current_meanwhile_is_kept(three, other):
    for _ in moments(lambda: three.remove(ONE, grace=0), signal.SIGSTOP, prepare=lambda: again(three)):
        with contextlib.suppress(PacballError):
            other(three)
        current = three.current()
        if current == ONE:
            assert (three.root / "releases" / ONE / "file").exists() or os.listdir(three.root / ".pacball/trash")


@pytest.mark.slow
@pytest.mark.parametrize("other", [remove_it, sweep, prune])
def test_an_installation_stopped_at_any_moment_beside_others(three, other):
    def prepare():
        three.install(THREE, days=0)
        with contextlib.suppress(PacballError):
            three.remove(ONE, grace=0)

    for _ in moments(lambda: three.install(ONE, days=0), signal.SIGSTOP, prepare=prepare):
        with contextlib.suppress(PacballError):
            other(three)
    assert_consistent(three)


@pytest.mark.slow
def test_a_seed_that_is_removed_while_it_is_read(three):
    four = "App-4-any"
    three.publish(four, {"file": noise(ONE, 5000), "same": noise(TWO, 5000), "new": noise("new", 5000)})

    def prepare():
        again(three)
        again(three, TWO)
        with contextlib.suppress(PacballError):
            three.remove(four, grace=0)

    for _ in moments(lambda: three.install(four, days=0, switch=False), signal.SIGSTOP, prepare=prepare):
        for name in (ONE, TWO):
            three.remove(name, grace=0)
    assert four in assert_consistent(three)


def test_a_rollback_killed_at_any_moment(three):
    for _ in moments(lambda: three.roll_back(days=0), signal.SIGKILL, prepare=lambda: three.install(THREE, days=0)):
        assert three.current() in (TWO, THREE)
        assert assert_consistent(three) == [ONE, TWO, THREE]
        three.install(THREE, days=0)
        assert three.roll_back(days=0).previous == THREE
        assert three.current() == TWO


@pytest.mark.slow
def test_a_rollback_stopped_at_any_moment_beside_a_removal(three):
    def prepare():
        for name in (ONE, TWO, THREE):
            three.install(name, days=0)

    for _ in moments(lambda: three.roll_back(days=0), signal.SIGSTOP, prepare=prepare):
        with contextlib.suppress(PacballError):
            three.remove(TWO, grace=0)
    assert_consistent(three)


# -- repair


@pytest.fixture
def damaged(site):
    """One release with several files, and what damages it."""
    files = {f"d{n}/f{n}": noise(f"f{n}", 3000 + n) for n in range(6)}
    site.publish(ONE, files | {"same": noise("same", 4000), "d1/same": noise("same", 4000)})
    tree = site.trees / ONE
    (tree / "d1/same").unlink()
    os.link(tree / "same", tree / "d1/same")
    (tree / "link").symlink_to("d0/f0")
    site.world.publish(tree, ONE)
    site.install(ONE)
    top = site.root / "releases" / ONE

    def damage():
        for path in ("d0/f0", "same"):
            corrupt(top / path, 10)
        for path in ("d2/f2", "link"):
            if os.path.lexists(top / path):
                (top / path).unlink()
        shutil.rmtree(top / "d3", ignore_errors=True)
        (top / "d4/f4").chmod(0o600)
        if (top / "d5").is_dir():
            shutil.rmtree(top / "d5")
            (top / "d5").write_text("in the way")

    return site, damage


@pytest.mark.slow
def test_a_repair_killed_at_any_moment(damaged):
    site, damage = damaged
    supply = FakeSupply(site.world)
    for _ in moments(lambda: mend(site.root, supply), signal.SIGKILL, prepare=damage):
        (done,) = mend(site.root, supply)
        assert done.left == ()
        assert assert_consistent(site) == [ONE]


@pytest.mark.slow
def test_two_repairs_at_once(damaged):
    site, damage = damaged
    supply = FakeSupply(site.world)
    for _ in moments(lambda: mend(site.root, supply), signal.SIGSTOP, prepare=damage):
        mend(site.root, supply)
    mend(site.root, supply)
    assert assert_consistent(site) == [ONE]


# -- readers


def test_a_reader_never_sees_a_mixture(three, tmp_path):
    for name in (ONE, TWO, THREE):
        three.publish(f"Mix-{name[4]}-any", {"a/one": name.encode(), "b/two": name.encode()})
        three.install(f"Mix-{name[4]}-any")
    link = three.root / "current/Mix/any"
    stop = tmp_path / "stop"

    def read():
        seen = set()
        while not stop.exists():
            # As a job does it: once, and then only that path.
            top = os.open(link, os.O_RDONLY | os.O_DIRECTORY)
            first, second = (os.read(os.open(path, os.O_RDONLY, dir_fd=top), 100) for path in ("a/one", "b/two"))
            assert first == second, (first, second)
            os.close(top)
            resolved = os.path.realpath(link)
            assert open(f"{resolved}/a/one").read() == open(f"{resolved}/b/two").read()  # noqa: SIM115
            seen.add(first)
            os.closerange(20, 200)
        assert len(seen) > 1

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            read()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        three.roll_back("Mix", days=0)
        three.roll_back("Mix", days=0)
        three.install("Mix-2-any", days=0)
        three.install("Mix-3-any", days=0)
    stop.touch()
    _, status = os.waitpid(pid, 0)
    assert status == 0

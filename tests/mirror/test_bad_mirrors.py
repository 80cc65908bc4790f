"""Mirrors that fail or lie: alone they give a clear error in bounded time; beside a good one they cost time and nothing else."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import pytest

from pacmirror.limits import ClientLimits, MirrorLimits
from pacmirror.mirrors import MirrorList
from pacmirror.part import BlockingPart
from pacmirror.source import HttpSource
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable
from pacstore.source import Condition, PerhapsAbsent
from tests.mirror import mischief
from tests.mirror.mischief import of_packs, serving
from tests.store.install.world import Notes, World, look, make_tree, put

EACH = ClientLimits(
    connect_seconds=1.0,
    stall_seconds=1.0,
    answer_seconds=2.0,
    min_bytes_per_second=1_000_000,
    attempts=1,
    backoff_seconds=0.01,
)
ALONE = ClientLimits(
    connect_seconds=1.0,
    stall_seconds=0.3,
    answer_seconds=0.6,
    min_bytes_per_second=1_000_000,
    attempts=2,
    backoff_seconds=0.01,
)
TOGETHER = MirrorLimits(
    first_range_bytes=200_000,
    least_range_bytes=200_000,
    most_range_bytes=500_000,
    attempts=3,
    patience_seconds=1.0,
    pause_seconds=0.1,
    drought_pause_seconds=0.1,
    quiet_seconds=0.3,
    stalled_seconds=0.6,
    slow_after_seconds=0.5,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture(scope="module")
def world(tree):
    made = World(frame_bytes=200_000, pack_bytes=1_500_000)
    made.publish(tree)
    return made


@pytest.fixture(scope="module")
def entry(world):
    return world.catalog["Sample-1.0-any"]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def join(*mirrors, limits=TOGETHER):
    return MirrorList([HttpSource(mirror.url, limits=EACH) for mirror in mirrors], limits=limits)


STALLS = [mischief.stall_at(0), mischief.stall_at(0.5), mischief.stall_at(1)]
FAULTS = {
    "flips a bit": (mischief.flip, Corrupt, Condition.WRONG),
    "truncates": (mischief.truncate, Unavailable, Condition.FAILING),
    "stalls at once": (STALLS[0], Unavailable, Condition.FAILING),
    "stalls in the middle": (STALLS[1], Unavailable, Condition.FAILING),
    "stalls before the last byte": (STALLS[2], Unavailable, Condition.FAILING),
    "drips": (mischief.drip, Unavailable, None),
    "sends without end": (mischief.endless, TooLarge, Condition.WRONG),
    "announces more": (mischief.longer, Corrupt, Condition.WRONG),
    "announces less": (mischief.shorter, Corrupt, Condition.WRONG),
    "fails": (mischief.saying(500), Unavailable, Condition.FAILING),
    "is busy": (mischief.busy, Unavailable, Condition.FAILING),
    "gives another range": (mischief.other_range, Corrupt, Condition.WRONG),
    "ignores ranges": (mischief.whole, Corrupt, Condition.WRONG),
    "redirects": (mischief.redirect, Refused, Condition.REFUSED),
    "denies": (mischief.saying(403), Refused, Condition.REFUSED),
    "gives a web page": (mischief.page, Corrupt, Condition.WRONG),
    "closes the connection": (mischief.die, Unavailable, Condition.FAILING),
    "has nothing": (mischief.missing, NotFound, None),
}


@pytest.mark.parametrize(("fault", "kind", "_"), FAULTS.values(), ids=FAULTS.keys())
def test_alone(world, entry, root, fault, kind, _):
    with serving(world.public, of_packs(fault)) as bad, HttpSource(bad.url, limits=ALONE) as source:
        with pytest.raises(kind) as caught:
            put(entry, source, root)
        assert bad.url in str(caught.value)
        assert len(bad.requests) < 30
    assert os.listdir(root / "releases") == []


@pytest.mark.parametrize(("fault", "_", "condition"), FAULTS.values(), ids=FAULTS.keys())
def test_beside_a_good_one(world, tree, entry, root, fault, _, condition):
    with serving(world.public, of_packs(fault)) as bad, serving(world.public) as good, join(bad, good) as source:
        done = put(entry, source, root)
    assert look(done.path) == look(tree)
    told, other = done.sources
    assert (told.name, other.name) == (bad.url, good.url)
    assert not other.is_bad
    assert len(bad.packs_asked()) > 0
    if fault in STALLS and told.state is Condition.GOOD:
        # The other one was first with what it had not brought yet, before it was waited for too long.
        assert not told.failures
    elif condition is not None:
        assert told.state is condition
        assert told.failures
        assert told.error
    # What it does not have, or has so late that another one is first, is no more than that.
    elif fault is mischief.missing:
        assert not told.is_bad


@pytest.mark.parametrize(
    "name", ["flips a bit", "fails", "redirects", pytest.param("stalls in the middle", marks=pytest.mark.slow)]
)
def test_all_bad(world, entry, root, name):
    fault = FAULTS[name][0]
    with contextlib.ExitStack() as stack:
        bad = [stack.enter_context(serving(world.public, of_packs(fault))) for _ in range(3)]
        source = stack.enter_context(join(*bad))
        with pytest.raises(PacballError) as caught:
            put(entry, source, root)
        if fault is mischief.flip:
            assert type(caught.value) is Corrupt
            assert "2 times" in str(caught.value)
        else:
            assert all(mirror.url in str(caught.value) for mirror in bad)
            assert "none of 3 sources" in str(caught.value)
        assert sum(len(mirror.requests) for mirror in bad) < 60
    assert os.listdir(root / "releases") == []


def test_wrong_bytes_are_asked_of_another_one_and_the_giver_is_left_alone(world, tree, entry, root):
    notes = Notes()
    with serving(world.public, of_packs(mischief.flip)) as bad, serving(world.public) as good, join(bad, good) as both:
        done = put(entry, both, root, notes)
    assert look(done.path) == look(tree)
    assert len(bad.packs_asked()) < 10  # what was under way before the first was looked at
    assert len(good.packs_asked()) > len(bad.packs_asked())
    assert bad.url in notes.warnings[0]
    assert "is asked for again" in notes.warnings[0]


@pytest.mark.parametrize("kind", ["manifests", "attributes", "placements"])
@pytest.mark.parametrize(
    "name", ["flips a bit", "truncates", "stalls at once", "has nothing", "gives a web page", "announces less"]
)
def test_documents_come_from_another_one(world, tree, entry, root, kind, name):
    fault = FAULTS[name][0]
    with (
        serving(world.public, lambda request: fault if request.path.startswith(kind) else None) as bad,
        serving(world.public) as good,
        join(bad, good) as source,
    ):
        done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert any(request.path.startswith(kind) for request in good.requests)
    assert done.sources[0].is_bad == (name not in ("has nothing", "stalls at once"))


def test_mirrors_that_have_everything_only_together(world, tree, entry, root):
    packs = sorted(path for path in world.public if path.startswith("packs/"))
    assert len(packs) > 2
    halves = [{p: d for p, d in world.public.items() if p not in packs or packs.index(p) % 2 == n} for n in range(2)]
    with serving(halves[0]) as even, serving(halves[1]) as odd, join(even, odd) as source:
        done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert not any(one.is_bad for one in done.sources)
    assert all(one.bytes_downloaded for one in done.sources)


def test_absence_is_what_all_say(world, entry, root):
    packs = sorted(path for path in world.public if path.startswith("packs/"))
    less = {path: data for path, data in world.public.items() if path != packs[0]}
    with serving(less) as one, serving(less) as two, join(one, two) as source:
        with pytest.raises(NotFound) as caught:
            put(entry, source, root)
        assert one.url in str(caught.value)
        assert two.url in str(caught.value)


def test_an_error_is_no_absence(world, entry, root):
    packs = sorted(path for path in world.public if path.startswith("packs/"))
    less = {path: data for path, data in world.public.items() if path != packs[0]}
    with serving(less) as one, serving(world.public, of_packs(mischief.saying(500))) as two, join(one, two) as source:
        with pytest.raises(PerhapsAbsent) as caught:
            put(entry, source, root)
        assert isinstance(caught.value, Unavailable)
        assert not isinstance(caught.value, NotFound)
        assert two.url in str(caught.value)


@pytest.mark.parametrize("other", ["absent", "failing"])
def test_a_repacked_mirror_beside_one_that_cannot_help(world, tree, root, other):
    old = World(frame_bytes=200_000, pack_bytes=1_500_000)
    entry = old.publish(tree)
    newer = old.repack(tree)
    fault = mischief.missing if other == "absent" else mischief.saying(500)
    with serving(old.public) as good, serving({}, lambda _: fault) as bad, join(good, bad) as source:
        assert look(put(entry, source, root, refresh=lambda: newer).path) == look(tree)


@pytest.mark.slow
def test_twenty_mirrors_of_which_two_are_good(world, tree, entry, root):
    faults = [fault for fault, _, _ in FAULTS.values()]
    with contextlib.ExitStack() as stack:
        bad = [stack.enter_context(serving(world.public, of_packs(fault))) for fault in faults]
        good = [stack.enter_context(serving(world.public)) for _ in range(2)]
        source = stack.enter_context(join(*bad, *good))
        done = put(entry, source, root)
    assert len(done.sources) == 20
    assert look(done.path) == look(tree)
    assert not any(one.is_bad for one in done.sources[-2:])


def test_a_mirror_that_dies_and_one_that_comes_back(world, tree, entry, root):
    dies, comes = of_packs(mischief.die, first=2), of_packs(mischief.die, last=2)
    with serving(world.public, dies) as one, serving(world.public, comes) as two, join(one, two) as source:
        done = put(entry, source, root)
    assert look(done.path) == look(tree)
    first, second = done.sources
    assert (first.state, first.failures > 0) == (Condition.FAILING, True)
    assert (second.state, second.failures > 0) == (Condition.GOOD, True)
    assert second.bytes_downloaded > 1_000_000


def test_a_line_that_is_gone_for_a_while(world, tree, entry, root):
    """More failures than attempts, of all sources, while nothing can be reached."""
    limits = replace(TOGETHER, attempts=1, patience_seconds=60.0)
    faults = [of_packs(mischief.die, first=2, last=8) for _ in range(2)]
    with (
        serving(world.public, faults[0]) as one,
        serving(world.public, faults[1]) as two,
        join(one, two, limits=limits) as source,
    ):
        done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert sum(state.failures for state in done.sources) >= 1


def test_a_directory_beside_a_bad_server(world, tree, entry, root, tmp_path):
    for path, data in {**world.public, "store.json": b"{}"}.items():
        (tmp_path / "store" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / path).write_bytes(data)
    directory = BlockingPart(DirectorySource(tmp_path / "store"))
    with serving(world.public, of_packs(mischief.flip)) as bad:
        source = MirrorList([HttpSource(bad.url, limits=EACH), directory], limits=TOGETHER)
        with source:
            done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert done.sources[1].bytes_downloaded > 1_000_000

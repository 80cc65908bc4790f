"""Bundles that are taken in, with packs from elsewhere: what arrives is the release, or nothing of it is said to be here."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from threading import Barrier, BrokenBarrierError, Lock

import pytest

from pacstore.backends.directory import DirectoryStorage
from pacstore.check import catalog_releases, check
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable, Untrusted
from pacstore.ledger import orders, packs, pins, releases, subscriptions
from pacstore.ledger.packs import PackState
from pacstore.ledger.pins import Pin
from pacstore.progress import Silent
from pacstore.provenance import store_provenance
from pacstore.release import Release
from pacstore.retiring import ORIGIN, retire
from pacstore.source import Traffic
from pacstore.storage import ObjectKind
from pacstore.store import Store
from pacstore.subscription import Subscription
from pacstore.trust.chain import load_head
from pacstore.volumes.bundle import bundle_file, make_bundle, open_bundle
from pacstore.volumes.importing import take_in
from pacstore.volumes.judging import Superseded, first_root, judge, open_target
from tests.store.carried import NAMES, carry_in, carry_out, complete_in, held_in, root_of, state_of
from tests.store.releases import NOW, Origin, contents, originals
from tests.store.repacks import SECOND as WORN
from tests.store.repacks import do_repack, make_worn
from tests.store.sweeping import DAY, gc, withdraw

FIRST, SECOND, THIRD = NAMES


@dataclass
class Asked:
    """The source that `store` is, counting what it is asked for. `wrong` packs come with a bit changed, `absent` ones not at all;
    after `most` ranges nothing comes any more.
    """

    store: object
    wrong: set = field(default_factory=set)
    absent: set = field(default_factory=set)
    most: int | None = None
    asked: Counter = field(default_factory=Counter)
    traffic: Traffic = field(default_factory=Traffic)
    name: str = "elsewhere"
    lock: Lock = field(default_factory=Lock)

    def read(self, path, *, limit):
        return DirectorySource(self.store).read(path, limit=limit)

    def ranges(self, wanted):
        for one, data in DirectorySource(self.store).ranges(wanted):
            with self.lock:
                if self.most is not None and self.asked.total() >= self.most:
                    raise Unavailable("does not answer", place=self.name)
                self.asked[one.pack] += 1
            if one.pack in self.absent:
                raise NotFound("is not there", place=self.name)
            yield one, bytes([data[0] ^ 1]) + data[1:] if one.pack in self.wrong and one.offset < 100 else data

    def close(self):
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory, trees):
    """An origin with two releases, and a bundle of each, of the catalog of its time. No test changes it."""
    origin = Origin.make(tmp_path_factory.mktemp("made"))
    bundles = []
    for tree, name in zip(trees[:2], NAMES[:2], strict=True):
        origin.publish(tree, name)
        bundles.append(bundle_of(origin.store, name))
    yield origin, *bundles
    origin.store.close()


def bundle_of(store, name, *, now=NOW):
    made = make_bundle(store, Release.parse(name), root=root_of(store.path), clock=lambda: now)
    return bundle_file(store, made.digest)


def bring(path, to, source, *, root=None, arrived=lambda _pack, _length: None, before=lambda: None, clock=lambda: NOW):
    """Take the bundle at `path` into `to`, with packs of `source`; `before` is done between judging and taking."""
    with closing(open_bundle(path)) as volume:
        store = open_target(to)
        trusted = (first_root(store) if store is not None else None) or root
        judged = judge([volume], store, root=trusted, clock=clock, progress=Silent(), others=True)
        before()
        return take_in([volume], judged, to, root=trusted, state_dir=None, clock=clock, progress=Silent(),
                       others=source, arrived=arrived)  # fmt: skip


def version_of(store):
    return load_head(DirectoryStorage(store / "public", store / "public")).timestamp.version


def sound(store, tree, name):
    with Store.open(store, writable=False) as opened:
        held = [entry for entry in catalog_releases(opened) if str(entry.release) in held_in(store)]
        assert not check(opened, held, progress=Silent()).damage
        (entry,) = [entry for entry in held if str(entry.release) == name]
        assert contents(opened, entry) == originals(tree)


def test_a_bundle_and_packs_from_anywhere_make_a_mirror(made, trees, tmp_path):
    origin, first, second = made
    to, source, told = tmp_path / "mirror", Asked(origin.store.path), {}
    done = bring(first, to, source, root=root_of(origin.store.path), arrived=told.__setitem__)
    assert (done.is_complete, done.packs_copied, done.packs_fetched) == (True, 0, len(told))
    assert (done.bytes_fetched, set(source.asked)) == (sum(told.values()), set(told))
    assert held_in(to) == complete_in(to) == {FIRST}
    sound(to, trees[0], FIRST)
    # The next brings only what is new; the same once more, nothing.
    more = Asked(origin.store.path)
    done = bring(second, to, more)
    assert 0 < done.packs_fetched == len(more.asked)
    assert not more.asked.keys() & told.keys()
    assert held_in(to) == complete_in(to) == {FIRST, SECOND}
    sound(to, trees[1], SECOND)
    before, nothing = state_of(to), Asked(origin.store.path)
    assert bring(second, to, nothing).packs_fetched == 0
    assert (state_of(to), nothing.asked.total()) == (before, 0)


@pytest.mark.slow
def test_several_packs_come_at_once(made, tmp_path):
    origin, first, _ = made
    together = Barrier(2)

    class Meeting(Asked):
        def ranges(self, wanted):
            for one in super().ranges(wanted):
                # Two who ask for different packs wait for each other; alone, this would take a long time and fail.
                with suppress(BrokenBarrierError):
                    together.wait(20)
                    met.append(one[0].pack)
                together.abort()
                yield one

    met = []
    bring(first, tmp_path / "mirror", Meeting(origin.store.path), root=root_of(origin.store.path))
    assert met


@pytest.mark.slow
def test_a_bundle_that_is_older_than_the_catalog_here_is_completed_by_that_one(made, trees, tmp_path):
    """Data management systems deliver in any order: the site's catalog must not have to go back for it."""
    origin, first, second = made
    to = tmp_path / "mirror"
    bring(second, to, Asked(origin.store.path), root=root_of(origin.store.path))
    version = version_of(to)
    with pytest.raises(Untrusted, match="version"):
        carry_in([first], to)
    done = bring(first, to, Asked(origin.store.path))
    assert (done.is_complete, done.catalog_version, done.outdated) == (True, version, ())
    assert version_of(to) == version
    assert held_in(to) == complete_in(to) == {FIRST, SECOND}
    sound(to, trees[0], FIRST)


@pytest.mark.slow
def test_a_catalog_that_comes_meanwhile_is_not_undone(made, trees, tmp_path):
    origin, first, second = made
    to, root = tmp_path / "mirror", root_of(origin.store.path)
    done = bring(
        first,
        to,
        Asked(origin.store.path),
        root=root,
        before=lambda: bring(second, to, Asked(origin.store.path), root=root),
    )
    assert (done.is_complete, version_of(to)) == (True, done.catalog_version)
    assert held_in(to) == complete_in(to) == {FIRST, SECOND}
    sound(to, trees[0], FIRST)


@pytest.mark.slow
def test_what_was_withdrawn_since_is_not_taken_in(trees, tmp_path):
    origin = Origin.make(tmp_path)
    origin.publish(trees[0], FIRST)
    bundle = bundle_of(origin.store, FIRST)
    withdraw(origin, FIRST)
    carry_out(origin.store.path, tmp_path / "catalog.tar", [])
    to, source = tmp_path / "mirror", Asked(origin.store.path)
    carry_in([tmp_path / "catalog.tar"], to, root=root_of(origin.store.path))
    before = state_of(to)
    with pytest.raises(Refused, match="was withdrawn: bad") as caught:
        bring(bundle, to, source)
    assert "mirrors cease to hold" in caught.value.hint
    assert (state_of(to), source.asked.total(), complete_in(to)) == (before, 0, set())
    origin.store.close()


@pytest.mark.slow
def test_what_is_withdrawn_while_packs_come_is_not_said_to_be_here(made, trees, tmp_path):
    origin = Origin.make(tmp_path)
    origin.publish(trees[0], FIRST)
    bundle, to, root = bundle_of(origin.store, FIRST), tmp_path / "mirror", root_of(origin.store.path)
    withdraw(origin, FIRST)
    carry_out(origin.store.path, tmp_path / "catalog.tar", [])
    with pytest.raises(Refused, match="was withdrawn"):
        bring(
            bundle,
            to,
            Asked(origin.store.path),
            root=root,
            before=lambda: carry_in([tmp_path / "catalog.tar"], to, root=root),
        )
    assert held_in(to) == complete_in(to) == set()
    origin.store.close()


@pytest.mark.slow
def test_a_bundle_whose_packs_were_replaced_since_says_so(tmp_path):
    worn = make_worn(tmp_path / "origin")
    bundle, to = bundle_of(worn.store, WORN, now=NOW + DAY), tmp_path / "mirror"
    do_repack(worn)
    carry_out(worn.store.path, tmp_path / "catalog.tar", [])
    carry_in([tmp_path / "catalog.tar"], to, root=root_of(worn.store.path))
    before = state_of(to)
    with pytest.raises(Superseded, match=rf"{WORN}.* names other packs for it.*newer bundle"):
        bring(bundle, to, Asked(worn.store.path))
    assert state_of(to) == before


@pytest.mark.slow
def test_a_bundle_of_another_catalog_is_refused(made, trees, tmp_path):
    origin, first, _ = made
    other = Origin.make(tmp_path)
    other.publish(trees[0], FIRST)
    foreign, to = bundle_of(other.store, FIRST), tmp_path / "mirror"
    bring(first, to, Asked(origin.store.path), root=root_of(origin.store.path))
    before, source = state_of(to), Asked(other.store.path)
    with pytest.raises(Untrusted, match="is of another catalog"):
        bring(foreign, to, source)
    with pytest.raises(Refused):
        bring(foreign, tmp_path / "new", source, root=root_of(origin.store.path))
    assert (state_of(to), source.asked.total(), (tmp_path / "new").exists()) == (before, 0, False)
    other.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 100, 600, 5_000, -1])
def test_a_bundle_that_was_truncated_is_refused(made, tmp_path, cut):
    origin, first, _ = made
    (tmp_path / "cut").write_bytes(first.read_bytes()[:cut])
    with pytest.raises((Corrupt, Refused), match=r"truncated|is empty|no volume|altered"):
        bring(tmp_path / "cut", tmp_path / "mirror", Asked(origin.store.path), root=root_of(origin.store.path))
    assert not (tmp_path / "mirror").exists()


@pytest.mark.slow
def test_any_byte_of_a_bundle_that_is_altered_is_noticed(made, tmp_path):
    origin, first, _ = made
    data = first.read_bytes()
    for offset in range(0, len(data), len(data) // 60):
        (tmp_path / "altered").write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises((Corrupt, Refused)):
            bring(tmp_path / "altered", tmp_path / "mirror", Asked(origin.store.path), root=root_of(origin.store.path))
        assert not (tmp_path / "mirror").exists()


def test_who_lies_about_a_pack_is_named_and_all_others_come(made, trees, tmp_path):
    origin, first, _ = made
    root, to = root_of(origin.store.path), tmp_path / "mirror"
    needed = sorted(pack for pack in origin.store.storage.digests(ObjectKind.PACK))
    bad = needed[0]
    liar = Asked(origin.store.path, wrong={bad})
    with pytest.raises(Corrupt, match=rf"elsewhere/packs/.*{bad}.*name other sources"):
        bring(first, to, liar, root=root)
    assert not list((to / "public/catalog").iterdir())
    assert held_in(to) == complete_in(to) == set()
    came = {path.name for path in (to / "public/packs").rglob("*") if path.is_file()}
    assert came
    assert bad.hex not in came
    honest = Asked(origin.store.path)
    assert bring(first, to, honest, root=root).packs_fetched == 1
    assert set(honest.asked) == {bad}
    sound(to, trees[0], FIRST)


@pytest.mark.slow
def test_where_nothing_comes_all_give_up_and_the_next_goes_on(made, trees, tmp_path):
    origin, first, _ = made
    root, to, told = root_of(origin.store.path), tmp_path / "mirror", {}
    with pytest.raises(Unavailable, match="does not answer"):
        bring(first, to, Asked(origin.store.path, most=5), root=root, arrived=told.__setitem__)
    with Store.open(to, writable=False) as store, store.ledger.reading() as connection:
        rows = {row.pack: row for row in packs.every(connection)}
        assert all(rows[pack].state is PackState.WHOLE for pack in told)
        assert releases.find(connection, Release.parse(FIRST)).state == "partial"
    rest = Asked(origin.store.path)
    assert bring(first, to, rest, root=root).is_complete
    assert not rest.asked.keys() & told.keys()
    gone = Asked(origin.store.path, absent={next(iter(rest.asked))})
    with pytest.raises(NotFound, match="is not there"):
        bring(first, tmp_path / "other", gone, root=root)
    sound(to, trees[0], FIRST)


class Pausing(Unavailable):
    """As sources make them: not with the arguments of its parents."""

    def __init__(self, *, seconds):
        super().__init__("asks for a pause", place="elsewhere")
        self.seconds = seconds


def test_an_error_of_a_source_stays_what_it_is(made, tmp_path):
    class Paused(Asked):
        def ranges(self, wanted):
            raise Pausing(seconds=3.0)

    origin, first, _ = made
    with pytest.raises(Pausing, match=r"asks for a pause.*run the same") as caught:
        bring(first, tmp_path / "mirror", Paused(origin.store.path), root=root_of(origin.store.path))
    assert caught.value.seconds == 3.0


@pytest.mark.slow
def test_a_pack_that_is_damaged_here_is_fetched_again(made, trees, tmp_path):
    origin, first, _ = made
    to = tmp_path / "mirror"
    bring(first, to, Asked(origin.store.path), root=root_of(origin.store.path))
    with Store.open(to, writable=True) as store, store.ledger.writing() as connection:
        bad = next(iter(store.storage.digests(ObjectKind.PACK)))
        packs.set_state(connection, bad, PackState.DAMAGED)
    again = Asked(origin.store.path)
    assert bring(first, to, again).packs_fetched == 1
    assert set(again.asked) == {bad}
    sound(to, trees[0], FIRST)


@pytest.mark.slow
def test_an_export_with_some_packs_takes_the_rest_from_elsewhere(made, trees, tmp_path):
    origin, _, _ = made
    carry_out(origin.store.path, tmp_path / "x.tar", [SECOND], since=[FIRST])
    from pacstore.volumes.volume import Volume  # noqa: PLC0415

    source, root = Asked(origin.store.path), root_of(origin.store.path)
    with closing(Volume.open(tmp_path / "x.tar")) as volume:
        judged = judge([volume], None, root=root, clock=lambda: NOW, progress=Silent(), others=True)
        done = take_in([volume], judged, tmp_path / "mirror", root=root, state_dir=None, clock=lambda: NOW,
                       progress=Silent(), others=source)  # fmt: skip
        assert done.is_complete
        assert done.packs_copied == len(volume.contents.packs())
        assert not source.asked.keys() & volume.contents.packs().keys()
    sound(tmp_path / "mirror", trees[1], SECOND)


@pytest.mark.slow
def test_a_provenance_that_was_attached_later_comes_from_elsewhere_or_is_missed(trees, tmp_path):
    origin = Origin.make(tmp_path)
    origin.publish(trees[0], FIRST)
    bundle, release = bundle_of(origin.store, FIRST), Release.parse(FIRST)
    statement = (
        '{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://slsa.dev/provenance/v1","subject":'
        f'[{{"digest":{{"pacballTree":"{origin.entry(FIRST).tree_digest}"}},"name":"Demo"}}]}}'
    ).encode()
    signed = store_provenance(origin.store, origin.entry(FIRST), statement)
    origin.catalog.attach(release, signed, origin.keys, now=NOW)
    carry_out(origin.store.path, tmp_path / "catalog.tar", [])
    to = tmp_path / "mirror"
    carry_in([tmp_path / "catalog.tar"], to, root=root_of(origin.store.path))

    class PacksAlone(Asked):
        def read(self, path, *, limit):
            raise NotFound("has packs alone", place=f"{self.name}: {path}")

    with pytest.raises(NotFound, match="elsewhere: provenance/"):
        bring(bundle, to, PacksAlone(origin.store.path))
    assert held_in(to) == set()
    assert bring(bundle, to, Asked(origin.store.path)).is_complete
    sound(to, trees[0], FIRST)
    origin.store.close()


@pytest.mark.slow
def test_a_release_is_retired_where_nobody_else_wants_it(made, tmp_path):
    origin, first, second = made
    to = tmp_path / "mirror"
    for bundle in (first, second):
        bring(bundle, to, Asked(origin.store.path), root=root_of(origin.store.path))
    release = Release.parse(FIRST)
    with Store.open(to, writable=True) as store:
        with orders.changing(store.ledger) as connection:
            for owner in ("rucio", "somebody"):
                pins.add(connection, Pin(FIRST, owner))
            subscriptions.add(connection, Subscription("Demo-*", keep=1), now=NOW)

        def leave(**words):
            found = retire(store, release, owner="rucio", clock=lambda: NOW, **words)
            return found.unpinned, found.dropped, found.kept_for

        assert leave() == (True, False, ("the pin of somebody",))
        # Also who begins the ledger anew knows that.
        assert b'"rucio"' not in orders.path_beside(store.ledger.path).read_bytes()
        with store.ledger.writing() as connection:
            pins.remove(connection, FIRST, "somebody")
        assert leave(configured=[Subscription(FIRST)]) == (False, False, (f"the subscription {FIRST}",))
        assert held_in(to) == {FIRST, SECOND}
        # That of the newest is not for this one.
        assert leave() == (False, True, ())
        assert leave() == (False, False, ())
        assert held_in(to) == complete_in(to) == {SECOND}
        gc(store)
        gc(store)
        held = [entry for entry in catalog_releases(store) if str(entry.release) == SECOND]
        assert not check(store, held, progress=Silent()).damage
    found = retire(origin.store, release, owner="rucio", clock=lambda: NOW)
    assert (found.unpinned, found.dropped, found.kept_for) == (False, False, (ORIGIN,))
    assert FIRST in held_in(origin.store.path)


@pytest.mark.slow
def test_several_who_bring_the_same_bundle_at_once_do_not_disturb_each_other(made, trees, tmp_path):
    """As agents of one storage element do. By the real time, by which each knows what is not left behind in staging."""
    origin, first, second = made
    to, root = tmp_path / "mirror", root_of(origin.store.path)
    with ThreadPoolExecutor(4) as threads:
        all_of_them = [threads.submit(bring, path, to, Asked(origin.store.path), root=root, clock=time.time)
                       for path in (first, second, first, second)]  # fmt: skip
        assert all(one.result().is_complete for one in all_of_them)
    assert held_in(to) == complete_in(to) == {FIRST, SECOND}
    for tree, name in zip(trees[:2], (FIRST, SECOND), strict=True):
        sound(to, tree, name)


@pytest.mark.slow
def test_packs_that_only_a_retired_release_needed_leave_after_the_grace_and_shared_ones_stay(made, trees, tmp_path):
    origin, first, second = made
    to = tmp_path / "mirror"
    for bundle in (first, second):
        bring(bundle, to, Asked(origin.store.path), root=root_of(origin.store.path))
    with Store.open(to, writable=True) as store:
        both = set(store.storage.digests(ObjectKind.PACK))
        assert retire(store, Release.parse(SECOND), owner="rucio", clock=lambda: NOW).dropped
        gc(store, now=NOW, grace=DAY)
        assert set(store.storage.digests(ObjectKind.PACK)) == both
        gc(store, now=NOW + DAY, grace=DAY)
        with store.ledger.reading() as connection:
            needed = releases.needed(connection, Release.parse(FIRST))
        assert set(store.storage.digests(ObjectKind.PACK)) == needed < both
    sound(to, trees[0], FIRST)

from __future__ import annotations

import os

import pytest

from pacstore.check import catalog_releases
from pacstore.errors import Corrupt, NotFound, Unavailable
from pacstore.holding import is_held, packs_of, verify_whole
from pacstore.ledger import packs, releases
from pacstore.ledger.completion import complete, drop, record_complete, spoil, withdraw
from pacstore.ledger.packs import KeptFor, PackState
from pacstore.ledger.reconciling import NO_HOLDINGS, reconcile
from pacstore.ledger.releases import ReleaseState
from pacstore.partial import PartialPacks
from pacstore.storage import DocumentKind, ObjectKind, object_path
from tests.contract.faulty import FaultyStorage
from tests.store.releases import NAME, NEXT, NOW


@pytest.fixture
def published(origin, trees):
    """A store with two releases, which share packs, and what its catalog says of them."""
    origin.publish(trees[0])
    origin.publish(trees[1], NEXT)
    old, new = catalog_releases(origin.store)
    return origin.store, old, new


def state_of(store, entry):
    with store.ledger.reading() as connection:
        return releases.find(connection, entry.release)


def needed(store, entry):
    with store.ledger.reading() as connection:
        return releases.needed(connection, entry.release)


def without_ledger(store):
    """The store as one that is older than the ledger."""
    store.ledger.close()
    store.__dict__.pop("ledger")
    for path in store.state_dir.glob("ledger.sqlite*"):
        path.unlink()


def test_what_was_published_is_in_the_ledger(published):
    store, old, new = published
    for entry in (old, new):
        row = state_of(store, entry)
        assert (row.state, row.placement_number) == (ReleaseState.COMPLETE, 1)
        assert (
            row.held_bytes
            == row.total_bytes
            == sum(store.storage.size(ObjectKind.PACK, p) for p in needed(store, entry))
        )
    with store.ledger.reading() as connection:
        assert {row.pack for row in packs.every(connection)} == set(store.storage.digests(ObjectKind.PACK))
        assert packs.pack_totals(connection)[KeptFor.PULLED].items == 0
    assert reconcile(store.ledger, store.storage, now=NOW).unknown == []


@pytest.mark.parametrize("what", ["pack", "manifest", "placement"])
def test_nothing_is_complete_while_anything_is_missing(published, what):
    store, old, _ = published
    withdraw(store.ledger, store.storage, old.release, reason="looked at again", now=NOW)
    if what == "pack":
        os.unlink(store.public / object_path(ObjectKind.PACK, min(needed(store, old))))
    elif what == "manifest":
        os.unlink(store.public / object_path(ObjectKind.MANIFEST, old.manifest.digest))
    else:
        os.unlink(store.public / f"placements/{old.release}.1")
    with pytest.raises(NotFound):
        complete(store.ledger, store.storage, old, now=NOW)
    assert state_of(store, old).state is ReleaseState.PARTIAL
    assert not is_held(store.storage, old)


def test_damage_takes_back_what_was_said_of_every_release_that_needs_the_pack(published):
    store, old, new = published
    shared = min(needed(store, old) & needed(store, new))
    own = min(needed(store, new) - needed(store, old))
    assert spoil(store.ledger, store.storage, own, now=NOW) == {new.release}
    assert (is_held(store.storage, old), is_held(store.storage, new)) == (True, False)
    assert spoil(store.ledger, store.storage, shared, now=NOW) == {old.release, new.release}
    assert not is_held(store.storage, old)
    assert [state_of(store, entry).state for entry in (old, new)] == [ReleaseState.PARTIAL] * 2
    with pytest.raises(Corrupt, match=r"is known to be damaged.*store check --repair"):
        complete(store.ledger, store.storage, old, now=NOW)
    assert not is_held(store.storage, old)
    with store.ledger.writing() as connection:
        row = packs.find(connection, shared)
        packs.record(connection, shared, length=row.length, held_bytes=row.length, state=PackState.WHOLE, now=NOW)
    complete(store.ledger, store.storage, old, now=NOW)
    assert is_held(store.storage, old)


def test_a_pack_that_is_withdrawn_while_its_release_is_verified_makes_it_not_complete(published):
    """cvmfs#2887: one bad chunk, and the replica said that it has everything."""
    store, old, _ = published
    withdraw(store.ledger, store.storage, old.release, reason="looked at again", now=NOW)
    verified = packs_of(verify_whole(store.storage, old))
    bad, length = min(verified.items())
    with store.ledger.writing() as connection:
        packs.set_state(connection, bad, PackState.DAMAGED)
    PartialPacks(store.private, store.storage).demote(bad)
    with store.ledger.writing() as connection:
        packs.record(connection, bad, length=length, held_bytes=length - 1, state=PackState.PARTIAL, now=NOW)
    with pytest.raises(NotFound, match=bad.hex):
        record_complete(store.ledger, store.storage, old, verified, now=NOW)
    assert state_of(store, old).state is ReleaseState.PARTIAL
    assert not is_held(store.storage, old)
    with store.ledger.reading() as connection:
        assert packs.find(connection, bad).state is PackState.PARTIAL


def test_complete_is_not_said_where_the_holdings_cannot_be_written(published):
    store, old, _ = published
    withdraw(store.ledger, store.storage, old.release, reason="", now=NOW)
    storage = FaultyStorage(store.storage, 1, only=("put",))
    with pytest.raises(Unavailable):
        complete(store.ledger, storage, old, now=NOW)
    assert state_of(store, old).state is ReleaseState.PARTIAL


def test_what_is_dropped_leaves_its_packs_to_others(published):
    store, old, new = published
    own, shared = needed(store, old) - needed(store, new), needed(store, new)
    drop(store.ledger, store.storage, old.release)
    assert state_of(store, old) is None
    assert not is_held(store.storage, old)
    with store.ledger.reading() as connection:
        assert {row.pack for row in packs.least_used(connection, limit=99)} == own
        assert all(packs.find(connection, pack).kept_for is KeptFor.SUBSCRIBED for pack in shared)
    drop(store.ledger, store.storage, old.release)


def test_a_store_that_is_older_than_the_ledger_gets_its_rows(published):
    store, old, new = published
    without_ledger(store)
    found = reconcile(store.ledger, store.storage, now=NOW)
    assert found.adopted == len(list(store.storage.digests(ObjectKind.PACK)))
    assert found.unknown == [old.release, new.release]
    # Nobody is told anything else until somebody who has the catalog has verified them.
    assert is_held(store.storage, old)
    complete(store.ledger, store.storage, old, now=NOW)
    again = reconcile(store.ledger, store.storage, now=NOW)
    assert (again.adopted, again.gone, again.withdrawn, again.unknown) == (0, 0, [], [new.release])


def test_packs_and_holdings_that_are_gone_are_found_out(published):
    store, old, new = published
    own = min(needed(store, new) - needed(store, old))
    os.unlink(store.public / object_path(ObjectKind.PACK, own))
    os.unlink(store.public / f"holdings/{NAME}")
    found = reconcile(store.ledger, store.storage, now=NOW)
    assert (found.gone, found.adopted) == (1, 0)
    assert found.withdrawn == [old.release, new.release]
    assert state_of(store, old).reason == NO_HOLDINGS
    assert state_of(store, new).reason == releases.LOST
    assert list(store.storage.names(DocumentKind.HOLDINGS)) == []
    with store.ledger.reading() as connection:
        assert packs.find(connection, own) is None


def test_holdings_that_the_ledger_does_not_vouch_for_are_taken_back(published):
    """As after a kill between the holdings file and the end of the transaction."""
    store, old, _ = published
    with store.ledger.writing() as connection:
        releases.set_partial(connection, old.release, reason="on its way", now=NOW)
    assert is_held(store.storage, old)
    assert reconcile(store.ledger, store.storage, now=NOW).withdrawn == [old.release]
    assert not is_held(store.storage, old)


def test_what_cannot_be_listed_is_not_taken_for_gone(published):
    """cvmfs#4270: an error is no absence."""
    store, old, new = published
    storage = FaultyStorage(store.storage, 1, only=("digests",))
    with pytest.raises(Unavailable):
        reconcile(store.ledger, storage, now=NOW)
    assert [state_of(store, entry).state for entry in (old, new)] == [ReleaseState.COMPLETE] * 2

"""Consignments: what of a release is said elsewhere, and that it is kept as it is from then on."""

import hashlib
import zlib

import pytest

from pacstore.consignment import OWNER, consign, take_back
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused
from pacstore.ledger import pins
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.trust.targets import Withdrawal
from tests.store.releases import NAME, NEXT, NOW, Notes, Origin, make_tree
from tests.store.repacks import SECOND as WORN
from tests.store.repacks import do_repack, make_worn

RELEASE = Release.parse(NAME)


@pytest.fixture
def origin(tmp_path):
    made = Origin.make(tmp_path)
    made.publish(make_tree(tmp_path / "tree", kib=100))
    yield made
    made.store.close()


def consigned(origin, name=RELEASE, **options):
    entry = origin.catalog.release(name)
    options = {"known": None, "with_pacball": False, "progress": Silent(), **options}
    return consign(origin.store, entry, root=origin.catalog.root_bytes, clock=lambda: NOW, **options)


def pinned(origin):
    with origin.store.ledger.reading() as connection:
        return [(one.name, one.owner) for one in pins.listed(connection, now=NOW)]


def test_a_consignment_has_all_that_it_takes_with_the_checksums_of_the_very_files(origin):
    made = consigned(origin)
    kinds = [kind for kind, _ in made.objects]
    assert kinds[:2] == [ObjectKind.BUNDLE, ObjectKind.MANIFEST]
    assert set(kinds[2:]) == {ObjectKind.PACK}
    assert (ObjectKind.BUNDLE, made.bundle) in made.objects
    for one, checksums in made.objects.items():
        data = (origin.store.public / object_path(*one)).read_bytes()
        assert checksums.length == len(data)
        assert checksums.adler32 == f"{zlib.adler32(data):08x}"
        assert checksums.md5 == hashlib.md5(data).hexdigest()
    assert (made.placement_number, made.pacball, made.is_new) == (1, None, True)
    assert pinned(origin) == [(NAME, OWNER)]


def test_a_known_bundle_stays_the_bundle_whatever_the_catalog_is_now(origin, tmp_path):
    first = consigned(origin)
    origin.publish(make_tree(tmp_path / "next", version="2", kib=100), NEXT)
    again = consigned(origin, known=first.bundle)
    assert (again.bundle, again.objects, again.is_new) == (first.bundle, first.objects, False)


def test_a_known_bundle_that_is_not_here_is_an_error_and_nothing_is_pinned(origin):
    with pytest.raises(NotFound, match="is not in"):
        consigned(origin, known=Digest.of(b"of another store"))
    assert pinned(origin) == []


def test_the_bundle_of_another_release_is_refused(origin, tmp_path):
    origin.publish(make_tree(tmp_path / "next", version="2", kib=100), NEXT)
    other = consigned(origin, Release.parse(NEXT))
    with pytest.raises(Refused, match="is of another release"):
        consigned(origin, known=other.bundle)
    assert pinned(origin) == [(NEXT, OWNER)]


def test_the_bundle_of_another_placement_is_refused(tmp_path):
    """Who took it from there would look for packs that are not registered with it."""
    worn = make_worn(tmp_path)
    release = Release.parse(WORN)
    first = consigned(worn.origin, release)
    take_back(worn.store, release)
    do_repack(worn)
    with pytest.raises(Refused, match=r"as the bundle of placement 2 .* is of another one"):
        consigned(worn.origin, release, known=first.bundle)
    assert consigned(worn.origin, release).bundle != first.bundle
    worn.store.close()


def test_a_release_that_lacks_a_pack_is_an_error_and_stays_pinned_only_if_it_was(origin):
    first = consigned(origin)
    pack = next(digest for kind, digest in first.objects if kind is ObjectKind.PACK)
    (origin.store.public / object_path(ObjectKind.PACK, pack)).unlink()
    with pytest.raises(NotFound):
        consigned(origin, known=first.bundle)
    assert pinned(origin) == [(NAME, OWNER)]
    assert take_back(origin.store, RELEASE)
    assert not take_back(origin.store, RELEASE)
    with pytest.raises(NotFound):
        consigned(origin, known=first.bundle)
    assert pinned(origin) == []


def test_what_is_broken_off_leaves_no_pin_and_is_continued(origin):
    class Stopped(Exception):
        pass

    def stop(steps):
        if steps > 3:
            raise Stopped

    with pytest.raises(Stopped):
        consigned(origin, progress=Notes(stop))
    assert pinned(origin) == []
    assert consigned(origin).is_new


def test_of_two_at_once_one_that_is_broken_off_takes_no_pin_from_the_other(origin):
    consigned(origin)
    taken = []

    def interrupt(_steps):
        taken.append(take_back(origin.store, RELEASE))

    assert not consigned(origin, with_pacball=True, progress=Notes(interrupt)).is_new
    assert any(taken)
    assert pinned(origin) == [(NAME, OWNER)]


def test_a_withdrawn_release_is_refused(origin):
    origin.catalog.withdraw(RELEASE, Withdrawal(int(NOW), "it is broken"), origin.keys, now=NOW)
    with pytest.raises(Refused, match="was withdrawn: it is broken"):
        consigned(origin)
    assert pinned(origin) == []

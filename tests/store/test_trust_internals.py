"""Pins the private parts of python-tuf that `pacstore.trust.internals` uses: a new version must not change them unnoticed."""

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.ngclient import Updater

from pacstore.trust import internals
from pacstore.trust.fetcher import BASE_URL, SourceFetcher
from pacstore.trust.metadata import at
from tests.store.trust_signing import LINE, renew, sign_role, sign_timestamp
from tests.store.trust_world import DAY, NOW, RELEASE, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def updater_of(world):
    world.state.mkdir(exist_ok=True)
    updater = Updater(
        str(world.state), BASE_URL, fetcher=SourceFetcher(world.source), bootstrap=world.catalog.root_bytes
    )
    internals.ignore_expiry(updater)
    return updater


def test_expiry_is_left_to_us(world):
    sign_role(world, LINE, lambda line: setattr(line, "expires", at(NOW - 40 * 365 * DAY)), key=LINE)
    sign_timestamp(world, lambda timestamp: setattr(timestamp, "expires", at(NOW - 40 * 365 * DAY)))
    updater = updater_of(world)
    updater.refresh()
    assert internals.load_delegated(updater, LINE).expires == at(NOW - 40 * 365 * DAY)
    # An Updater without it refuses: the fields that are set are still those that it looks at.
    again = Updater(str(world.state), BASE_URL, fetcher=SourceFetcher(world.source), bootstrap=world.catalog.root_bytes)
    with pytest.raises(ExpiredMetadataError):
        again.refresh()


def test_versions_and_keys_are_those_of_the_catalog(world):
    updater = updater_of(world)
    updater.refresh()
    assert internals.versions(updater) == {
        "root": 1,
        "timestamp": world.catalog.version,
        "snapshot": 2,
        "targets": 2,
        "line-AtlasOffline": 1,
        "placement-AtlasOffline": 1,
    }
    assert internals.trusted(updater).targets.version == 2
    assert internals.online_keys(updater) == (world.keys.public("online").keyid,)


def test_what_was_used_is_known_by_its_role(world):
    updater = updater_of(world)
    updater.refresh()
    assert set(internals.loaded(updater)) == {"root", "timestamp", "snapshot", "targets"}
    updater.get_targetinfo(f"releases/AtlasOffline/{RELEASE}/manifest")
    assert set(internals.loaded(updater)) == {"root", "timestamp", "snapshot", "targets", LINE}
    assert internals.loaded(updater)[LINE].version == internals.listed(updater, LINE).version == 1
    assert internals.listed(updater, "line-Nothing") is None


def test_delegated_roles_are_verified_when_they_are_loaded(world):
    updater = updater_of(world)
    updater.refresh()
    assert len(internals.load_delegated(updater, "line-AtlasOffline").targets) == 2
    with pytest.raises(RepositoryError):
        internals.load_delegated(updater, "line-Nothing")
    path = "catalog/1.placement-AtlasOffline.json"
    world.storage.files[path] = world.storage.files[path].replace(b'"number":1', b'"number":2')
    with pytest.raises(RepositoryError):
        internals.load_delegated(updater, "placement-AtlasOffline")


def test_verified_roots_are_kept_as_they_came(world):
    renew(world, "root", now=NOW)
    updater_of(world).refresh()
    for version in (1, 2):
        data = internals.root_file(world.state, version).read_bytes()
        assert data == world.storage.files[f"catalog/{version}.root.json"]

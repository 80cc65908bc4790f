"""Pins the private parts of python-tuf that `pacstore.trust.internals` uses: a new version must not change them unnoticed."""

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.ngclient import Updater

from pacstore.trust import internals
from pacstore.trust.fetcher import BASE_URL, SourceFetcher
from tests.store.trust_world import DAY, NOW, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def updater_of(world, now=NOW):
    updater = Updater(
        str(world.state), BASE_URL, fetcher=SourceFetcher(world.source), bootstrap=world.catalog.root_bytes
    )
    internals.set_time(updater, now)
    return updater


def test_time_is_ours(world):
    world.state.mkdir()
    with pytest.raises(ExpiredMetadataError, match=r"timestamp\.json is expired"):
        updater_of(world, NOW + 31 * DAY).refresh()
    updater_of(world, NOW + 29 * DAY).refresh()


def test_versions_are_those_of_the_catalog(world):
    world.state.mkdir()
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


def test_delegated_roles_are_verified_when_they_are_loaded(world):
    world.state.mkdir()
    updater = updater_of(world)
    updater.refresh()
    assert len(internals.load_delegated(updater, "line-AtlasOffline").targets) == 2
    with pytest.raises(RepositoryError):
        internals.load_delegated(updater, "line-Nothing")
    path = "catalog/1.placement-AtlasOffline.json"
    world.storage.files[path] = world.storage.files[path].replace(b'"number":1', b'"number":2')
    with pytest.raises(RepositoryError):
        internals.load_delegated(updater, "placement-AtlasOffline")

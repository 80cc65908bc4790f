"""What the tests of the store share. Samples of formats are in `samples.py`, trees and stores in `releases.py`."""

import pytest

from tests.store.releases import Origin, make_tree, shared_directory
from tests.store.samples import Verdicts, ordinary


@pytest.fixture(scope="session")
def sample():
    return ordinary()


@pytest.fixture(scope="session")
def verdicts(sample):
    return Verdicts(sample)


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """Three successive versions of a tree; no test changes them."""
    top = tmp_path_factory.mktemp("trees")
    return [make_tree(top / version, version=version) for version in ("1", "2", "3")]


@pytest.fixture
def origin(tmp_path):
    origin = Origin.make(tmp_path / "origin")
    yield origin
    origin.store.close()


@pytest.fixture
def shared_path():
    """A directory that a process of another user can reach."""
    with shared_directory() as path:
        yield path

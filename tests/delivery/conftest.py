"""What the tests of deliveries share."""

import pytest

from tests.delivery.replicas import Dataset
from tests.store.releases import Origin, make_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree") / "1")


@pytest.fixture(scope="session")
def dataset(tree, tmp_path_factory):
    """A release, registered; no test changes it."""
    origin = Origin.make(tmp_path_factory.mktemp("origin"))
    origin.publish(tree)
    yield Dataset.of(origin)
    origin.store.close()


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """A release of the same name, of somebody else, whose catalog has keys of its own."""
    top = tmp_path_factory.mktemp("foreign")
    origin = Origin.make(top / "origin")
    origin.publish(make_tree(top / "tree", version="theirs"))
    yield Dataset.of(origin)
    origin.store.close()

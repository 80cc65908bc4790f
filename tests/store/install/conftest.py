"""A tree with one of everything, published in a world of its own."""

import pytest

from tests.store.install.site import InstalledSite
from tests.store.install.world import FakeSource, World, make_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree") / "tree")


@pytest.fixture
def world():
    return World(frame_bytes=200_000)


@pytest.fixture
def entry(world, tree):
    return world.publish(tree)


@pytest.fixture
def source(world):
    return FakeSource(world)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def site(root, tmp_path):
    return InstalledSite(root, tmp_path / "trees")

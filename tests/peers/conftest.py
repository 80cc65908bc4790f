"""A site for each test, and an origin whose store no test changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import trees
from tests.e2e.site import Origin, Site
from tests.peers.rucio.server import Rucio, running_rucio

OLD = "Stack-1.0-x86_64-linux"
NEW = "Stack-1.1-x86_64-linux"


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    home = tmp_path_factory.mktemp("origin")
    site = Site(home / "home")
    old = trees.fill(trees.one_of_each(home / "old") / "data", seed=1, files=200, file_bytes=400 * trees.KIB).parent
    new = trees.copy(old, home / "new")
    trees.change(new / "data", seed=2, share=0.3)
    store = home / "store"
    site.publish(old, OLD, store)
    site.publish(new, NEW, store)
    return Origin(site, store, old, new)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "home")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture(scope="session")
def rucio() -> Iterator[Rucio]:
    """A real Rucio. A test that stops it starts it again; tests use RSEs and scopes of their own."""
    with running_rucio() as running:
        yield running

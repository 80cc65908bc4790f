"""A site for each test, and an origin whose store no test changes."""

from __future__ import annotations

import pytest

from tests.e2e import trees
from tests.e2e.site import Origin, Site

OLD = "Demo-1.0-x86_64-linux"
NEW = "Demo-1.1-x86_64-linux"


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    home = tmp_path_factory.mktemp("origin")
    site = Site(home / "home")
    old = trees.one_of_each(home / "old")
    trees.fill(old / "data", seed=1, files=40, file_bytes=200 * trees.KIB)
    new = trees.copy(old, home / "new")
    trees.change(new / "data", seed=2, share=0.1)
    (new / "empty").unlink()
    (new / "added").write_bytes(b"a file more")
    store = home / "store"
    site.publish(old, OLD, store)
    site.publish(new, NEW, store)
    return Origin(site, store, old, new)


@pytest.fixture
def served(origin):
    """The URL of a daemon over the origin's store."""
    with origin.site.serving(origin.store) as url:
        yield url


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "home")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def source(origin, served):
    """The options that every installer at a site gives."""
    return ("--from", served, "--root-keys", origin.root_keys)

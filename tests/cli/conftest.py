"""The command as a user has it: a configuration of its own, and trees to publish."""

from __future__ import annotations

import pytest

from tests.cli.ceremonies import Trust
from tests.cli.command import Command
from tests.store.releases import make_tree, shared_directory


@pytest.fixture
def pacball(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PACBALL_SYSTEM_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    return Command()


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """Two versions of a tree; no test changes them."""
    top = tmp_path_factory.mktemp("trees")
    return [make_tree(top / version, version=version, kib=300) for version in ("1", "2")]


@pytest.fixture
def store(pacball, tmp_path, trees):
    """A store with two releases."""
    for tree, name in zip(trees, ("Demo-1.0-x86_64", "Demo-1.1-x86_64"), strict=True):
        pacball.json("publish", tree, name, "--to", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def shared_path():
    """A directory that a process of another user can reach."""
    with shared_directory() as path:
        yield path


@pytest.fixture
def trust(pacball, tmp_path):
    return Trust(pacball, tmp_path)


@pytest.fixture
def begun(trust):
    trust.begin()
    return trust


@pytest.fixture
def waiting(begun):
    """A line waits for its key and for alice or bob."""
    begun.json("trust", "add-line", "Demo", "--key", begun.key("mia"))
    begun.json("trust", "export", "-o", begun.file)
    return begun

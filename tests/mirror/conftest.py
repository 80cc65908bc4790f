from __future__ import annotations

import pytest

from tests.mirror.daemons import make_store, running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    """A daemon over a store that no test changes."""
    with running(make_store(tmp_path_factory.mktemp("store"))) as one:
        yield one


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)

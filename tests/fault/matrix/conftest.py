"""The origin that every cell copies."""

from __future__ import annotations

import pytest

from tests.fault.matrix.origin import Origin


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Origin.make(tmp_path_factory.mktemp("matrix"))

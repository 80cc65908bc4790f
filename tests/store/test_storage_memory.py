from __future__ import annotations

import pytest

from pacstore.backends.memory import MemoryStorage
from tests.contract.faulty import FaultyStorage
from tests.contract.storage import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self):
        return MemoryStorage()


class TestFaultyStorageWithoutFaults(StorageContract):
    @pytest.fixture
    def storage(self):
        return FaultyStorage(MemoryStorage())

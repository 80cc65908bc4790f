"""Bounds on the memory that Python takes for something."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taking_at_most(limit_bytes: int) -> Iterator[None]:
    """Fail if what is done inside takes more at any moment. Whatever happens, nothing is traced afterwards."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit_bytes
    finally:
        tracemalloc.stop()

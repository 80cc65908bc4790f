"""Damage of the store itself, met while something that was sent is looked at: the publisher is not to be told that it sent it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def of_the_store() -> Iterator[None]:
    """What is Corrupt inside is the store's fault: Unavailable. Also a decorator: `of_the_store()(work)`."""
    try:
        yield
    except Corrupt as error:
        hint = "tell its operator: pacball store check says more"
        raise Unavailable(f"the store there is damaged: {error.message}", place=error.place, hint=hint) from error

"""Signing as at another time: what a command cannot do, since it has no clock but the machine's."""

from __future__ import annotations

from pathlib import Path

from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog

DAY_S = 86_400.0


def refresh(store: Path, *, when: float, days: float = 30.0) -> None:
    """As if the operator had refreshed the catalog at `when` (seconds since 1970), its timestamp for `days`."""
    with Store.open(store, writable=True) as opened:
        catalog = Catalog.open(opened.storage, opened.drafts, expiry=Expiry(timestamp=days))
        catalog.refresh(KeyRing(opened.keys_dir), now=when)


def renew(store: Path, *roles: str, when: float) -> None:
    """As if the holders of these roles' keys had signed them anew at `when` (seconds since 1970)."""
    with Store.open(store, writable=True) as opened:
        Catalog.open(opened.storage, opened.drafts).renew(roles, KeyRing(opened.keys_dir), now=when)

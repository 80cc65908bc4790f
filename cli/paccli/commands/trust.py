"""Commands for who signs: `pacball trust`."""

from __future__ import annotations

import time

from paccli.options import Days, Json, Keys, StoreDir
from paccli.output import date, reporting


def refresh(store: StoreDir, keys: Keys = None, timestamp_days: Days = None, as_json: Json = False) -> None:
    """Sign the catalog's timestamp anew, so that it does not expire; needs the online key only."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog, ring = open_catalog(opened, keys, timestamp_days)
            with opened.catalog_lock():
                version = catalog.refresh(ring, now=time.time())
            expires = min(catalog.expiries().values())
        output.text(f"the catalog has version {version}; the first of its roles expires at {date(expires)}")
        output.result({"version": version, "expires": date(expires)})


def renew(store: StoreDir, keys: Keys = None, as_json: Json = False) -> None:
    """Sign root, targets and lines anew, as far as their keys are here, so that a quiet catalog does not expire."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog, ring = open_catalog(opened, keys, None)
            with opened.catalog_lock():
                roles = catalog.renew(ring, now=time.time())
            expiries = catalog.expiries()
        for role in roles:
            output.text(f"{role}: signed anew, expires at {date(expiries[role])}")
        output.result({"roles": roles, "expires": {role: date(at) for role, at in expiries.items()}})

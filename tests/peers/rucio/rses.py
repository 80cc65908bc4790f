"""RSEs, rules and clients of a test's Rucio, as an administrator of it makes them."""

from __future__ import annotations

import contextlib
import hashlib
import os

from rucio.common.config import clean_cached_config

from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue

SCOPE = "sw"
_RIGHTS = {"read": 1, "write": 1, "delete": 0}
_WEBDAV = "rucio.rse.protocols.webdav.Default"


def catalogue_of(rucio, account: str = "root") -> RucioCatalogue:
    """A client of ours, of an account that is made if it is missing."""
    if account != "root":
        with contextlib.suppress(Exception):
            root = catalogue_of(rucio).client
            root.add_account(account, "USER", "")
            root.add_identity(account, "ddmlab", "USERPASS", "", password="secret")
    before = os.environ.get("RUCIO_HOME")
    os.environ["RUCIO_HOME"] = str(rucio.client_home(account))
    clean_cached_config()  # Rucio's client reads it once
    try:
        return RucioCatalogue.connect(account=account, patience=Patience(pause_seconds=0.1))
    finally:
        if before is None:
            del os.environ["RUCIO_HOME"]
        else:
            os.environ["RUCIO_HOME"] = before


def add_rse(client, name: str, url: str = "https://127.0.0.1:9", *, impl: str = _WEBDAV) -> None:
    """A deterministic RSE whose files lie below `url`, and the scope."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rstrip("/").partition(":")
    client.add_rse(name, deterministic=True)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    values = {"scheme": scheme, "hostname": host, "port": int(port), "prefix": "/rucio/"}
    domains = {"lan": _RIGHTS, "wan": {**_RIGHTS, "third_party_copy_read": 1, "third_party_copy_write": 1}}
    client.add_protocol(name, {**values, "impl": impl, "domains": domains, "extended_attributes": None})
    client.set_local_account_limit("root", name, 10**15)
    with contextlib.suppress(Exception):
        client.add_scope("root", SCOPE)


def pack_names(count: int, *, seed: int) -> list[str]:
    """Names of packs that nobody has."""
    return [f"{hashlib.sha256(b'%d %d' % (seed, number)).hexdigest()}.pack" for number in range(count)]


def end_rule(rucio, client, rule: str) -> None:
    """Let a rule be over at once: its locks are gone when this returns."""
    client.update_replication_rule(rule, {"lifetime": -10})
    rucio.daemon("rucio-judge-cleaner")

"""Commands for a line's managers: withdraw, attach, and `pacball trust retain`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from paccli.options import Json, Keys, PassphraseFile, ReleaseName, StoreDir
from paccli.outcomes import print_outcome
from paccli.output import reporting


def withdraw(
    release: ReleaseName,
    store: StoreDir,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; installers are shown it.")],
    replaced_by: Annotated[
        str | None, typer.Option("--replaced-by", metavar="RELEASE", help="What to use instead.")
    ] = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Withdraw a release: nobody installs it any more without saying so, and its name stays bound for ever."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.trust.targets import Withdrawal  # noqa: PLC0415

        name = Release.parse(release)
        other = Release.parse(replaced_by) if replaced_by is not None else None
        with changing(store, keys, passphrase_file) as (catalog, ring):
            outcome = catalog.withdraw(name, Withdrawal(int(time.time()), reason, other), ring, now=time.time())
        print_outcome(output, outcome, store, ring)


def attach(
    release: ReleaseName,
    store: StoreDir,
    provenance: Annotated[
        Path, typer.Option("--provenance", metavar="FILE", help="An in-toto statement, DSSE or Sigstore bundle.")
    ],
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Attach a provenance to a published release: who built it, from what. `pacball show` shows it."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from pacstore.backends.directory import read_bounded  # noqa: PLC0415
        from pacstore.errors import NotFound  # noqa: PLC0415
        from pacstore.limits import LIMITS  # noqa: PLC0415
        from pacstore.provenance import store_provenance  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        name = Release.parse(release)
        data = read_bounded(provenance, LIMITS.provenance_bytes)
        with Store.open(store, writable=True) as opened:
            catalog, ring = open_catalog(opened, keys, None, passphrase_file)
            entry = catalog.release(name) or catalog.waiting_release(name)
            if entry is None:
                raise NotFound("is not in the catalog", place=release, hint=f"see: pacball list --from {store}")
            with opened.unswept():
                document = store_provenance(opened, entry, data)
                outcome = catalog.attach(name, document, ring, now=time.time())
        print_outcome(output, outcome, store, ring)


def retain(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The PROJECT of the line's releases.")],
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Such as 10 (releases), 30d (days), 10,30d, or 'all'.")],
    store: StoreDir,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Say how long mirrors keep the releases of a line, nightlies for example."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import changing  # noqa: PLC0415
        from pacstore.trust.retention import Retain  # noqa: PLC0415

        wanted = None if rule == "all" else Retain.parse(rule)
        with changing(store, keys, passphrase_file) as (catalog, ring):
            outcome = catalog.keep(project, wanted, ring, now=time.time())
        print_outcome(output, outcome, store, ring)

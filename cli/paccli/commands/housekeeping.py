"""Commands for who keeps a store tidy: `pacball store drop` and `pacball store link`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from paccli.options import Json, StoreDir
from paccli.output import reporting


def drop(
    store: StoreDir,
    grace: Annotated[
        str, typer.Option("--grace", metavar="SPAN", help="How long after it was withdrawn or lapsed: 7d, 12h.")
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
    as_json: Json = False,
) -> None:
    """Cease to offer releases that were withdrawn, or that their line keeps no longer. Packs and the catalog stay as they are."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore import housekeeping  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415
        from pacstore.check import catalog_releases  # noqa: PLC0415
        from pacstore.ledger import completion  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        grace_seconds = parse_span(grace, place="--grace")
        if not dry_run:
            check_may_write(store)
        with Store.open(store, writable=not dry_run) as opened:
            releases, rules = catalog_releases(opened), housekeeping.retention_rules(opened.storage)
            dropped = housekeeping.held_droppable(
                opened.storage, releases, rules, now=time.time(), grace_seconds=grace_seconds
            )
            for release in () if dry_run else dropped:
                completion.drop(opened.ledger, opened.storage, release)
        for release in dropped:
            output.text(f"{'would drop' if dry_run else 'dropped'} {release}")
        if not dropped:
            output.text("nothing to drop")
        output.result({"dropped": [str(release) for release in dropped], "dry_run": dry_run})


def link(store: StoreDir, as_json: Json = False) -> None:
    """Make the links at which other TUF clients find a store's documents; for stores that were made or copied without them."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.check import catalog_releases  # noqa: PLC0415
        from pacstore.links import link_targets  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        check_may_write(store)
        with Store.open(store, writable=True) as opened:
            releases = catalog_releases(opened)
            with opened.unswept():
                incomplete = link_targets(opened.storage, releases)
        for release in incomplete:
            output.text(f"not linked: {release}: not all of its documents are here")
        output.text(f"linked {len(releases) - len(incomplete)} releases")
        output.result({"linked": len(releases) - len(incomplete), "incomplete": [str(one) for one in incomplete]})

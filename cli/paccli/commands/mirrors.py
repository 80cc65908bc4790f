"""Commands for who keeps a mirror: what it is to hold, and how it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli import exits
from paccli.options import Json
from paccli.output import reporting, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paccli.output import Output
    from pacstore.source import Source
    from pacstore.store import Store
    from pacstore.subscription import Subscription
    from pacstore.trust.targets import CatalogRelease

MirrorStore = Annotated[Path, typer.Option("--store", metavar="DIR", help="The mirror's store directory.")]
Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN", help="Names of releases, in quotes: * for any characters, ? for one, [ab] for one of these."
    ),
]
_STATUS_BYTES = 16 << 20
_PAGE = 1_000
_PAGES = 1_000
_SHOWN = 50


def subscribe(
    pattern: Pattern,
    store: MirrorStore,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="Only the newest N of each project and platform; otherwise all."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which releases are meant, and their sizes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let a mirror hold releases whole, from now on and for those to come. A running daemon begins within seconds."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.ledger import orders, subscriptions  # noqa: PLC0415
        from pacstore.subscription import Subscription  # noqa: PLC0415

        subscription = Subscription(pattern, keep)
        if not dry_run:
            check_may_write(store)
        with _opened(store, writable=not dry_run) as opened:
            meant = _meant(opened, subscription)
            if not dry_run:
                with orders.changing(opened.ledger) as connection:
                    subscriptions.add(connection, subscription, now=time.time())
            _show(output, opened, subscription, meant, dry_run=dry_run)


def unsubscribe(pattern: Pattern, store: MirrorStore, as_json: Json = False) -> None:
    """End a subscription. Releases that no other one means leave after the mirror's grace time."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.errors import NotFound, printable  # noqa: PLC0415
        from pacstore.ledger import orders, subscriptions  # noqa: PLC0415

        check_may_write(store)
        with (
            _opened(store, writable=True) as opened,
            orders.changing(opened.ledger) as connection,
        ):
            if not subscriptions.remove(connection, pattern):
                known = ", ".join(one.pattern for one in subscriptions.listed(connection)[:_SHOWN])
                hint = (
                    f"there are: {known}" if known else "there is none by command; look into the daemon's configuration"
                )
                raise NotFound("is not subscribed to", place=printable(pattern[:200]), hint=hint)
        output.text(f"unsubscribed from {pattern}; what nothing else means leaves after the grace time")
        output.result({"releases": pattern})


def subscriptions(store: MirrorStore, as_json: Json = False) -> None:
    """List the subscriptions that were made by command; those of the configuration are in `pacball mirror status URL --json`."""
    with reporting(as_json=as_json) as output:
        from pacstore.ledger import subscriptions  # noqa: PLC0415

        with _opened(store, writable=False) as opened, opened.ledger.reading() as connection:
            found = subscriptions.listed(connection)
        for one in found:
            output.text(str(one))
        if not found:
            output.text("no subscriptions by command")
        output.result({"subscriptions": [{"releases": one.pattern, "keep": one.keep} for one in found]})


def status(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the daemon is reached.")],
    releases: Annotated[bool, typer.Option("--releases", help="Also list every release that it is to hold.")] = False,
    as_json: Json = False,
) -> None:
    """Show how a daemon does: its catalog, releases, transfers, damage and upstreams. Exits 1 if something needs a person."""
    with reporting(as_json=as_json) as output:
        from paccli.mirror_status import as_rows, describe, describe_releases, needs_attention, parse_status  # noqa: PLC0415
        from paccli.network import limits_of, surroundings_of  # noqa: PLC0415
        from paccli.settings import load_settings  # noqa: PLC0415
        from pacmirror.source import HttpSource  # noqa: PLC0415

        settings = load_settings()
        with HttpSource(url, limits=limits_of(settings), surroundings=surroundings_of(settings)) as source:
            document = parse_status(_read(source, "v1/status"), place=url)
            listing = list(_pages(source, url)) if releases else []
        for line in describe(document, url):
            output.text(line)
        for line in describe_releases(listing):
            output.text(line)
        rows = [row for page in listing for row in as_rows(page)]
        output.result({**document, **({"releases": rows} if releases else {})})
        if needs_attention(document):
            raise SystemExit(exits.DAMAGED)


def _read(source: Source, path: str) -> bytes:
    from pacstore.errors import NotFound  # noqa: PLC0415

    try:
        return source.read(path, limit=_STATUS_BYTES)
    except NotFound as error:
        hint = "is this the URL of a pacball daemon? a web server alone has no status"
        raise NotFound(error.message, place=error.place, hint=hint) from None


def _pages(source: Source, url: str) -> Iterator[dict[str, object]]:
    """All pages of /v1/releases."""
    from paccli.mirror_status import next_page, parse_page  # noqa: PLC0415

    after = ""
    for _ in range(_PAGES):
        query = f"v1/releases?limit={_PAGE}{f'&after={after}' if after else ''}"
        page = parse_page(_read(source, query), place=url)
        yield page
        after = next_page(page)
        if not after:
            return


def _opened(where: Path, *, writable: bool) -> Store:
    from pacstore.errors import NotFound  # noqa: PLC0415
    from pacstore.store import Store  # noqa: PLC0415

    try:
        return Store.open(where, writable=writable)
    except NotFound as error:
        hint = f"start the mirror once: pacball serve --store {where} --upstream URL"
        raise NotFound(error.message, place=error.place, hint=hint) from None


def _meant(store: Store, subscription: Subscription) -> Sequence[CatalogRelease]:
    from pacstore.check import catalog_releases  # noqa: PLC0415

    found = subscription.select(catalog_releases(store))
    return sorted(found, key=lambda entry: (entry.published, entry.release), reverse=True)


def _show(
    output: Output, store: Store, subscription: Subscription, meant: Sequence[CatalogRelease], *, dry_run: bool
) -> None:
    from pacstore.holding import is_held  # noqa: PLC0415

    here = {entry.release for entry in meant if is_held(store.storage, entry)}
    files = sum(entry.total_bytes for entry in meant)
    verb = "would subscribe to" if dry_run else "subscribed to"
    count = "1 release" if len(meant) == 1 else f"{len(meant)} releases"
    output.text(f"{verb} {subscription}: now {count} with {size(files)} of files, {len(here)} here already")
    for entry in meant[:_SHOWN]:
        output.text(f"  {entry.release}: {size(entry.total_bytes)}{', here' if entry.release in here else ''}")
    if len(meant) > _SHOWN:
        output.text(f"  and {len(meant) - _SHOWN} older ones")
    output.result(
        {
            "pattern": subscription.pattern,
            "keep": subscription.keep,
            "dry_run": dry_run,
            "releases": [
                {
                    "release": str(e.release),
                    "bytes_total": e.total_bytes,
                    "published": e.published,
                    "here": e.release in here,
                }
                for e in meant
            ],
        }
    )

"""Commands that give room back, or say what is to stay: `pacball store gc`, `pin`, `unpin` and `pins`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json, StoreDir, moment
from paccli.output import Output, date, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.ledger.pins import Pin
    from pacstore.store import Store
    from pacstore.sweep.report import Amount, SweepReport

Pinned = Annotated[str, typer.Argument(metavar="RELEASE|PACK", help="A release, or a pack by the 64 digits of its id.")]
Owner = Annotated[str, typer.Option("--owner", metavar="NAME", help="For whom it is pinned; each has pins of its own.")]


def gc(
    store: StoreDir,
    grace: Annotated[
        str, typer.Option("--grace", metavar="SPAN", help="How long something must have been unused: 7d, 12h.")
    ] = "7d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted, and why not more.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete what nothing refers to any more, such as packs of dropped releases. Safe beside daemons, publishers and readers."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415
        from pacstore.sweep.collection import collect, preview  # noqa: PLC0415

        grace_seconds = parse_span(grace, place="--grace")
        if not dry_run:
            check_may_write(store)
        with Store.open(store, writable=not dry_run) as opened:
            is_mirror, now = opened.is_mirror, time.time()
            if dry_run:
                ledger = opened.ledger if opened.has_ledger else None
                report = preview(opened, ledger, now=now, grace_seconds=grace_seconds)
            else:
                report = collect(opened, opened.ledger, now=now, grace_seconds=grace_seconds)
        _print_report(output, report, dry_run=dry_run, is_mirror=is_mirror)


def _print_report(output: Output, report: SweepReport, *, dry_run: bool, is_mirror: bool) -> None:
    from paccli.exits import DAMAGED  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    output.text(f"{'would delete' if dry_run else 'deleted'} {_files(report.deleted)}")
    if report.waiting.files:
        first = f"; the first may go from {date(report.next_at)} on" if report.next_at is not None else ""
        output.text(f"unused, in their grace: {_files(report.waiting)}{first}")
    if report.condemned.files:
        at_work = "1 process" if report.leases == 1 else f"{report.leases} processes"
        output.text(f"unused, but {at_work} at work may have found them before: {_files(report.condemned)}")
    kept = [f"{report.releases} releases with {report.packs} packs are kept"]
    kept += [f"{report.dropped} dropped"] if report.dropped else []
    kept += [f"{report.pins} pinned"] if report.pins else []
    output.text(", ".join(kept))
    if report.unjudged_releases and is_mirror:
        output.text(
            f"packs stay: of {report.unjudged_releases} releases of the catalog it is not known here what they need"
        )
    elif report.unjudged_releases:
        output.text(f"packs stay: of {report.unjudged_releases} releases it cannot be read what they need:")
        for damage in report.unjudged:
            output.text(f"  {printable(damage.place)}: {printable(damage.fault)}")
        output.text("  restore them from a backup or a mirror, or withdraw these releases and drop them")
    if report.busy:
        output.text(f"not everything was done: {printable(report.busy)}")
    for damage in report.failed:
        output.text(f"not deleted: {printable(damage.place)}: {printable(damage.fault)}")
    output.result({**fields(report), "dry_run": dry_run})
    if report.failed:
        raise SystemExit(DAMAGED)


def _files(amount: Amount) -> str:
    return f"{amount.files} file{'' if amount.files == 1 else 's'}, {size(amount.bytes)}"


def pin(
    name: Pinned,
    store: StoreDir,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; for who wonders later.")] = "",
    owner: Owner = "operator",
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="TIME", help="Until then: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ. Default: for ever."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep a release, or a pack, whatever else is said: it is not collected, nor does it make room for others."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.ledger import orders  # noqa: PLC0415
        from pacstore.ledger import pins as kept  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        end = moment(until, place="--until") if until is not None else None
        made = kept.Pin(name, owner, reason, end, made_at=time.time())
        check_may_write(store)
        with Store.open(store, writable=True) as opened:
            _require(opened, name)
            with orders.changing(opened.ledger) as connection:
                kept.add(connection, made)
        output.text(f"pinned {_line(made)}")
        output.result(_document(made))


def unpin(name: Pinned, store: StoreDir, owner: Owner = "operator", as_json: Json = False) -> None:
    """Take back a pin. What nothing else keeps is collected after the grace."""
    with reporting(as_json=as_json) as output:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacstore.errors import NotFound  # noqa: PLC0415
        from pacstore.ledger import orders  # noqa: PLC0415
        from pacstore.ledger import pins as kept  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        checked = kept.Pin(name, owner)
        check_may_write(store)
        with (
            Store.open(store, writable=True) as opened,
            orders.changing(opened.ledger) as connection,
        ):
            if not kept.remove(connection, checked.name, checked.owner):
                raise NotFound(f"is not pinned by {owner}", place=name, hint=f"see: pacball store pins --store {store}")
        output.text(f"unpinned {name}")
        output.result({"name": name, "owner": owner})


def pins(store: StoreDir, as_json: Json = False) -> None:
    """List what is pinned, by whom, and why."""
    with reporting(as_json=as_json) as output:
        from pacstore.ledger import pins as kept  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        found: list[Pin] = []
        with Store.open(store, writable=False) as opened:
            if opened.has_ledger:
                with opened.ledger.reading() as connection:
                    found = kept.listed(connection, now=time.time())
        for one in found:
            output.text(_line(one))
        if not found:
            output.text("nothing is pinned")
        output.result({"pins": [_document(one) for one in found]})


def _line(one: Pin) -> str:
    until = f" until {date(one.until)}" if one.until is not None else ""
    reason = f": {one.reason}" if one.reason else ""
    return f"{one.name} by {one.owner}{until}{reason}"


def _document(one: Pin) -> dict[str, object]:
    until = date(one.until) if one.until is not None else None
    return {"name": one.name, "owner": one.owner, "reason": one.reason, "until": until, "made": date(one.made_at)}


def _require(store: Store, name: str) -> None:
    """Raise NotFound unless there is such a release or pack: a misspelt pin would keep nothing."""
    from pacstore.digest import Digest  # noqa: PLC0415
    from pacstore.errors import NotFound, Refused  # noqa: PLC0415
    from pacstore.release import Release  # noqa: PLC0415
    from pacstore.storage import ObjectKind  # noqa: PLC0415
    from pacstore.trust.repository import Catalog  # noqa: PLC0415

    try:
        pack = Digest.parse(name)
    except Refused:
        catalog, release = Catalog.open(store.storage, store.drafts), Release.parse(name)
        if catalog.release(release) is None and catalog.waiting_release(release) is None:
            raise NotFound("is not in the catalog", place=name, hint=f"see: pacball list --from {store.path}") from None
    else:
        store.storage.size(ObjectKind.PACK, pack)

"""Commands for who keeps a store: serve, and `pacball store`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Days, Json, Progressing, ProgressMode, Quiet, StoreDir
from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.readback import Report


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The configuration: see docs/operations.md.")
    ] = None,
    store: Annotated[Path | None, typer.Option("--store", metavar="DIR", help="The store.")] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes any free one. Default: 127.0.0.1:8080."),
    ] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option("--upstream", metavar="URL[,URL...]", help="Be a mirror of these, which hold the same."),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option("--max-bytes", metavar="SIZE", help="Of a mirror: the most that packs may take: 500G, 2T."),
    ] = None,
    online_keys: Annotated[
        str | None,
        typer.Option("--online-keys", metavar="DIR", help="Keep the catalog fresh, with the online key in DIR."),
    ] = None,
    refresh_hours: Annotated[
        float | None,
        typer.Option(
            "--refresh-hours",
            min=0.01,
            help="Sign anew what is older than this. Default: half of the timestamp's life.",
        ),
    ] = None,
    timestamp_days: Days = None,
    passphrase_file: Annotated[
        str | None,
        typer.Option("--passphrase-file", metavar="FILE", help="The online key's passphrase, if it has one."),
    ] = None,
    check_config: Annotated[
        bool, typer.Option("--check-config", help="Only check the configuration, and show what is in force.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve a store over HTTP until it is told to stop (SIGTERM, ^C); with upstreams as a mirror of them.

    Only a catalog that verifies, and is not older than what was served before, is served; /v1/status and /metrics tell more.
    """
    with reporting(as_json=as_json) as output:
        from paccli.daemon import load, run, show  # noqa: PLC0415

        loaded = load(
            config,
            {
                "store": ("--store", store),
                "listen": ("--listen", listen),
                "upstream.urls": ("--upstream", ",".join(upstream) if upstream else None),
                "max_bytes": ("--max-bytes", max_bytes),
                "refresh.keys": ("--online-keys", online_keys),
                "refresh.hours": ("--refresh-hours", refresh_hours),
                "refresh.timestamp_days": ("--timestamp-days", timestamp_days),
                "refresh.passphrase_file": ("--passphrase-file", passphrase_file),
            },
        )
        if check_config:
            show(loaded, output)
        else:
            run(loaded, output)


def check(
    store: StoreDir, as_json: Json = False, quiet: Quiet = False, progress: Progressing = ProgressMode.AUTO
) -> None:
    """Read everything back and compare it with what it must be. Exit code 1 if something is damaged."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.check import catalog_releases  # noqa: PLC0415
        from pacstore.check import check as check_store  # noqa: PLC0415
        from pacstore.housekeeping import droppable_releases, retention_rules  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened, showing(output, quiet=quiet) as shown:
            releases, rules = catalog_releases(opened), retention_rules(opened.storage)
            droppable = droppable_releases(releases, rules, now=time.time(), grace_seconds=0)
            report = check_store(opened, releases, progress=shown, droppable=droppable)
        if report.releases_dropped:
            output.text(f"{report.releases_dropped} releases were dropped, as they were withdrawn or have lapsed")
        if report.links_missing:
            output.text(f"{report.links_missing} links for other TUF clients are missing; run: pacball store link")
        _print_report(output, report)


def reindex(
    store: StoreDir, as_json: Json = False, quiet: Quiet = False, progress: Progressing = ProgressMode.AUTO
) -> None:
    """Make the chunk index anew from the packs; damaged packs are named and left out."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.reindex import reindex as make_index  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened, showing(output, quiet=quiet) as shown:
            report = make_index(opened, progress=shown)
        _print_report(output, report)


def stats(store: StoreDir, as_json: Json = False) -> None:
    """Show how much a store holds."""
    with reporting(as_json=as_json) as output:
        from pacstore.check import statistics  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened:
            found = statistics(opened)
        for key, value in fields(found).items():
            output.text(f"{key:18} {value}")
        output.result(fields(found))


def _print_report(output: Output, report: Report) -> None:
    from paccli.exits import DAMAGED  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    for damage in report.damage:
        output.text(f"damaged: {printable(damage.place)}: {printable(damage.fault)}")
    for release in report.releases:
        output.text(f"damaged release: {release}")
    read = (
        f"{report.packs} packs, {report.frames} frames, {size(report.bytes_read)}, {report.releases_checked} releases"
    )
    output.text(f"{len(report.damage)} faults in {read}" if report.damage else f"all is well: {read}")
    output.result({**fields(report), "intact": not report.damage})
    if report.damage:
        raise SystemExit(DAMAGED)

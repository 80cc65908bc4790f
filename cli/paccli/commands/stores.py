"""Commands for who keeps a store: serve, and `pacball store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json, Quiet, StoreDir
from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.readback import Report


def serve(
    store: StoreDir,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes any free one.")
    ] = "127.0.0.1:8080",
    as_json: Json = False,
) -> None:
    """Serve a store over HTTP until it is told to stop (SIGTERM, ^C)."""
    with reporting(as_json=as_json) as output:
        from pacmirror.config import Config, parse_address  # noqa: PLC0415
        from pacmirror.serve import serve as run_daemon  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        host, port = parse_address(listen)
        Store.open(store, writable=False)

        def ready(url: str) -> None:
            output.text(f"serving {store} at {url}")
            output.result({"url": url})
            output.flush()  # whoever started the daemon waits for this line

        run_daemon(Config(store=store, host=host, port=port), ready=ready)


def check(store: StoreDir, as_json: Json = False, quiet: Quiet = False) -> None:
    """Read everything back and compare it with what it must be. Exit code 1 if something is damaged."""
    with reporting(as_json=as_json) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.check import catalog_releases  # noqa: PLC0415
        from pacstore.check import check as check_store  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened, showing(quiet=quiet or as_json) as progress:
            report = check_store(opened, catalog_releases(opened), progress=progress)
        _print_report(output, report)


def reindex(store: StoreDir, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the chunk index anew from the packs; damaged packs are named and left out."""
    with reporting(as_json=as_json) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.reindex import reindex as make_index  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened, showing(quiet=quiet or as_json) as progress:
            report = make_index(opened, progress=progress)
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

"""Commands for who keeps a store: serve, and `pacball store`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paccli.options import Days, Json, StoreDir
from paccli.output import fields, reporting


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

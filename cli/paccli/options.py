"""The options that several commands share: one spelling and one help text each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ReleaseName = Annotated[str, typer.Argument(metavar="RELEASE", help="PROJECT-VERSION-PLATFORM")]
From = Annotated[str | None, typer.Option("--from", metavar="SOURCE", help="A store directory or an http(s) URL.")]
RootKeys = Annotated[Path | None, typer.Option("--root-keys", metavar="FILE", help="The root.json to trust.")]
FirstUse = Annotated[
    bool, typer.Option("--trust-on-first-use", help="Trust this URL's root now, and only it from then on.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
StoreDir = Annotated[Path, typer.Option("--store", metavar="DIR", help="The store.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The catalog's keys. Default: where they were made.")
]
Days = Annotated[
    float | None, typer.Option("--timestamp-days", min=0.01, help="How long the timestamp is valid. Default: 30.")
]


@dataclass(frozen=True)
class TrustOptions:
    """How the user says which root to trust."""

    root_keys: Path | None
    on_first_use: bool

"""The options that several commands share: one spelling and one help text each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pacstore.errors import Refused, printable

ReleaseName = Annotated[str, typer.Argument(metavar="RELEASE", help="PROJECT-VERSION-PLATFORM")]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="SOURCE[,SOURCE...]",
        help="A store directory, an http(s) URL, or rucio://SCOPE; several, also by repeating it, are used at once.",
    ),
]
LimitRate = Annotated[
    str | None,
    typer.Option(
        "--limit-rate", metavar="RATE", help="Receive at most so many bytes a second, of all sources: 500k, 5M, 1.5Mi."
    ),
]
ActionsAs = Annotated[
    str | None,
    typer.Option(
        "--actions-as",
        metavar="USER",
        help="Whom the release's own commands run as. Default: this user; root must name one.",
    ),
]
RootDir = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The install root.")]
Grace = Annotated[
    str,
    typer.Option(
        "--grace", metavar="SPAN", help="How long a release is kept after it ceased to be current: 7d, 12h, 30m, 0."
    ),
]
RootKeys = Annotated[
    Path | None,
    typer.Option("--root-keys", metavar="FILE", help="The root.json to trust, in place of what is pinned."),
]
FirstUse = Annotated[
    bool, typer.Option("--trust-on-first-use", help="Trust this source's root now, and only it from then on.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="Judge what has expired as of TIME, not now: YYYY-MM-DD (0:00 UTC) or YYYY-MM-DDTHH:MM:SSZ.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Believe whatever root and catalog the source shows, however old. Bytes are still compared with that catalog.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


class ProgressMode(StrEnum):
    """How a long command shows how far it is."""

    AUTO = "auto"
    BAR = "bar"
    JSON = "json"
    NONE = "none"


Progressing = Annotated[
    ProgressMode,
    typer.Option(
        "--progress",
        help="auto: a bar on a terminal; bar: that, or lines for a log; json: events, one JSON object a line, with --json.",
    ),
]
StoreDir = Annotated[Path, typer.Option("--store", metavar="DIR", help="The store.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The catalog's keys. Default: where they were made.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", help="The keys' passphrase, in its first line. Default: asked for."
    ),
]
Days = Annotated[
    float | None, typer.Option("--timestamp-days", min=0.01, help="How long the timestamp is valid. Default: 30.")
]


@dataclass(frozen=True)
class TrustOptions:
    """How the user says which root to trust, and when its catalog is to be judged (`as_of`: as typed, or None for now)."""

    root_keys: Path | None
    on_first_use: bool
    as_of: str | None = None
    insecure: bool = False

    def check(self) -> None:
        """Raise Refused for options that contradict each other."""
        if self.insecure:
            others = {"--root-keys": self.root_keys, "--trust-on-first-use": self.on_first_use, "--as-of": self.as_of}
            for name, given in others.items():
                if given:
                    hint = "leave out one of the two; without --insecure everything is verified"
                    raise Refused(f"contradicts {name}, which says what to believe", place="--insecure", hint=hint)

    def as_of_seconds(self) -> float | None:
        """`as_of` in seconds since 1970, UTC; a day alone means its beginning. Raises Refused if it is no time."""
        return None if self.as_of is None else moment(self.as_of, place="--as-of")


def moment(text: str, *, place: str) -> float:
    """The time written as YYYY-MM-DD (its beginning) or YYYY-MM-DDTHH:MM:SSZ, in seconds since 1970, UTC. Raises Refused."""
    from pacstore.trust.clock import parse_date  # noqa: PLC0415 - most commands need nothing of it

    try:
        return parse_date(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError as error:
        hint = "write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, in UTC"
        raise Refused(f"{printable(text)} is not a time", place=place, hint=hint) from error

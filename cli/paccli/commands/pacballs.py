"""Commands for releases as single files: build, fetch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import (
    AsOf,
    FirstUse,
    From,
    Insecure,
    Json,
    LimitRate,
    Progressing,
    ProgressMode,
    Quiet,
    ReleaseName,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, fields, print_sources, reporting, size

if TYPE_CHECKING:
    from pacstore.pacball.fetching import Fetched

Where = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE|DIR", help="The file, or the directory for one of the pacball's name."
    ),
]
Seeds = Annotated[
    list[Path] | None,
    typer.Option("--seed", metavar="FILE|DIR", help="Also take from this pacball, tar or directory. Repeatable."),
]
Allowed = Annotated[bool, typer.Option("--allow-withdrawn", help="Also if the release was withdrawn.")]


def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory that holds the release.")],
    release: ReleaseName,
    output: Where = Path(),
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Make a pacball of a directory: one self-installing file, which needs only a shell and tar."""
    with reporting(as_json=as_json, progress=progress) as out:
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.pacball import building  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        started = time.monotonic()
        with showing(out, quiet=quiet) as shown:
            built = building.build(directory, name, output, progress=shown)
        seconds = time.monotonic() - started
        out.text(f"built {built.path}: {built.stub.files} files, {size(built.total_bytes)}, {seconds:.1f} s")
        out.text(f"  to install it, in an empty directory: sh {built.path.name}")
        out.result(
            {"path": str(built.path), "bytes": built.total_bytes, **fields(built.stub), "seconds": round(seconds, 3)}
        )


def fetch(
    release: ReleaseName,
    output: Where = Path(),
    source: From = None,
    seed: Seeds = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    insecure: Insecure = False,
    allow_withdrawn: Allowed = False,
    limit_rate: LimitRate = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Make a pacball of a release that is published; what was interrupted continues."""
    with reporting(as_json=as_json, progress=progress) as out:
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.amounts import parse_rate  # noqa: PLC0415
        from pacstore.pacball import fetching  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.source import states_of  # noqa: PLC0415

        name = Release.parse(release)
        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        believed = TrustOptions(root_keys, trust_on_first_use, as_of, insecure)
        started = time.monotonic()
        with opening(source, believed, out, limit_rate=rate) as opened:
            entry = opened.release(name)
            trust = opened.trust
            with showing(out, quiet=quiet, sources=lambda: states_of(opened.source)) as shown:
                done = fetching.fetch(
                    entry, source=opened.source, output=output, progress=shown, refresh=lambda: opened.refresh(name),
                    seeds=tuple(seed or ()), allow_withdrawn=allow_withdrawn,
                )  # fmt: skip
            print_sources(out, states_of(opened.source))
        _print_fetched(out, done, time.monotonic() - started, trust.fields(entry))


def _print_fetched(output: Output, done: Fetched, seconds: float, trust: dict[str, object]) -> None:
    if done.existed:
        output.text(f"{done.path} was there before, and is what it must be")
    else:
        output.text(f"fetched {done.path}: {size(done.total_bytes)}, {seconds:.1f} s")
        output.text(
            f"  {size(done.bytes_downloaded)} downloaded, {size(done.bytes_resumed)} from an earlier attempt, "
            f"{size(done.bytes_seeded)} from seeds"
        )
    output.result({**fields(done), "seconds": round(seconds, 3), "trust": trust})

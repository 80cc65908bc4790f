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
from pacstore.errors import Refused, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.archive.returning import Returned
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
    names: Annotated[
        list[str],
        typer.Argument(metavar="[DIR] RELEASE", help="The directory that holds the release, unless --from; its name."),
    ],
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
    """Make a pacball: one self-installing file, which needs only a shell and tar. Of a directory, or of what is published.

    With --from SOURCE it does what pacball fetch does. The same release gives the same bytes either way.
    """
    with reporting(as_json=as_json, progress=progress) as out:
        directory, release = _directory_and_release(names, source)
        if directory is None:
            believed = TrustOptions(root_keys, trust_on_first_use, as_of, insecure)
            _fetch(
                out, release, output, source, believed, seed, limit_rate, allow_withdrawn=allow_withdrawn, quiet=quiet,
                did="built",
            )  # fmt: skip
            return
        only_from = {"--seed": seed, "--root-keys": root_keys, "--trust-on-first-use": trust_on_first_use, "--as-of": as_of,
                     "--insecure": insecure, "--allow-withdrawn": allow_withdrawn, "--limit-rate": limit_rate}  # fmt: skip
        for option, given in only_from.items():
            if given:
                raise Refused("means nothing where a directory is built", place=option, hint="leave it out")
        _build(out, directory, release, output, quiet=quiet)


def _directory_and_release(names: Sequence[str], source: Sequence[str] | None) -> tuple[Path | None, str]:
    """What is to be built: of a directory, or, where that is None, of what is published."""
    if source and len(names) == 2:
        hint = "leave out the directory, or --from"
        raise Refused(
            "names a source, and a directory is given, too: a pacball is made of one", place="--from", hint=hint
        )
    if not source and len(names) == 1:
        hint = f"pacball build DIR {names[0]}, or: pacball build --from SOURCE {names[0]}"
        raise Refused("neither a directory nor a source is given", place=printable(names[0]), hint=hint)
    if len(names) > 2:
        hint = "pacball build DIR RELEASE, or: pacball build --from SOURCE RELEASE"
        raise Refused("is one name too many", place=printable(names[2]), hint=hint)
    return (None if source else Path(names[0])), names[-1]


def _build(out: Output, directory: Path, release: str, output: Path, *, quiet: bool) -> None:
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
    original: Annotated[
        bool, typer.Option("--original", help="Instead the very file that the release was published from, bit for bit.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Make a pacball of a release that is published, or get its original; what was interrupted continues.

    A compressed original needs room for its plain tar beside it, and the tool that pacball show names.
    """
    with reporting(as_json=as_json, progress=progress) as out:
        believed = TrustOptions(root_keys, trust_on_first_use, as_of, insecure)
        _fetch(
            out, release, output, source, believed, seed, limit_rate, allow_withdrawn=allow_withdrawn, quiet=quiet,
            original=original,
        )  # fmt: skip


def _fetch(
    out: Output,
    release: str,
    output: Path,
    source: Sequence[str] | None,
    believed: TrustOptions,
    seed: Sequence[Path] | None,
    limit_rate: str | None,
    *,
    allow_withdrawn: bool,
    quiet: bool,
    original: bool = False,
    did: str = "fetched",
) -> None:
    from paccli.progress import showing  # noqa: PLC0415
    from paccli.sources import opening  # noqa: PLC0415
    from pacstore.amounts import parse_rate  # noqa: PLC0415
    from pacstore.archive.returning import fetch_original  # noqa: PLC0415
    from pacstore.pacball import fetching  # noqa: PLC0415
    from pacstore.release import Release  # noqa: PLC0415
    from pacstore.source import states_of  # noqa: PLC0415

    name = Release.parse(release)
    rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
    started = time.monotonic()
    with opening(source, believed, out, limit_rate=rate, releases=[name]) as opened:
        entry = opened.release(name)
        trust = opened.trust
        with showing(out, quiet=quiet, sources=lambda: states_of(opened.source)) as shown:
            done = (fetch_original if original else fetching.fetch)(
                entry, source=opened.source, output=output, progress=shown, refresh=lambda: opened.refresh(name),
                seeds=tuple(seed or ()), allow_withdrawn=allow_withdrawn,
            )  # fmt: skip
        print_sources(out, states_of(opened.source))
    _print_fetched(out, done, did, time.monotonic() - started, trust.fields(entry))


def _print_fetched(
    output: Output, done: Fetched | Returned, did: str, seconds: float, trust: dict[str, object]
) -> None:
    if done.existed:
        output.text(f"{done.path} was there before, and is what it must be")
    else:
        output.text(f"{did} {done.path}: {size(done.total_bytes)}, {seconds:.1f} s")
        output.text(
            f"  {size(done.bytes_downloaded)} downloaded, {size(done.bytes_resumed)} from an earlier attempt, "
            f"{size(done.bytes_seeded)} from seeds"
        )
    output.result({**fields(done), "seconds": round(seconds, 3), "trust": trust})

"""`pacball store repack`: room is won from packs that are mostly dead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json, Keys, PassphraseFile, Progressing, ProgressMode, Quiet, StoreDir
from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacmirror.throttle import Throttle
    from pacstore.progress import Progress
    from pacstore.repack.plan import PackUse
    from pacstore.repack.repacking import RepackReport

_LISTED = 20
"""So many packs are told one by one; --json has all."""


def repack(
    store: StoreDir,
    live_share: Annotated[
        float,
        typer.Option(
            "--live-share", min=0.0, max=0.95, help="Repack packs of whose bytes at most this share is needed."
        ),
    ] = 0.5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be won, and at what cost.")] = False,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    limit_rate: Annotated[
        str | None,
        typer.Option("--limit-rate", metavar="RATE", help="Copy at most so many bytes a second: 500k, 5M, 1.5Mi."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Copy what is needed of mostly dead packs into new ones, at the origin, so that gc can delete the old ones later."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacmirror.throttle import Throttle  # noqa: PLC0415
        from pacstore.amounts import parse_rate  # noqa: PLC0415
        from pacstore.repack import repacking  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        options = repacking.RepackOptions(live_share)
        started = time.monotonic()
        with Store.open(store, writable=not dry_run) as opened:
            if dry_run:
                report = repacking.preview(opened, now=time.time(), options=options)
            else:
                catalog, ring = open_catalog(opened, keys, None, passphrase_file)
                with showing(output, quiet=quiet) as shown:
                    paced = _Paced(shown, Throttle(rate))
                    report = repacking.repack(
                        opened, catalog, keys=ring, options=options, progress=paced, now=time.time
                    )
        _print_report(output, report, seconds=time.monotonic() - started, dry_run=dry_run)


class _Paced:
    """A Progress for which nothing goes faster than a throttle lets it."""

    def __init__(self, shown: Progress, throttle: Throttle) -> None:
        self.begin = shown.begin
        self.warn = shown.warn
        self._shown = shown
        self._throttle = throttle

    def advance(self, count_bytes: int) -> None:
        """Count, and wait until more may be done."""
        self._shown.advance(count_bytes)
        time.sleep(self._throttle.take(count_bytes))


def _print_report(output: Output, report: RepackReport, *, seconds: float, dry_run: bool) -> None:
    from paccli.exits import DAMAGED  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    if report.repacked:
        _print_work(output, report, seconds, dry_run=dry_run)
    else:
        output.text(f"nothing to repack: none of {_count(report.packs, 'pack')} is mostly dead and free to go")
    if report.left:
        output.text(f"left alone, though mostly dead: {_count(len(report.left), 'pack')}")
        _print_packs(output, report.left)
    if report.passed:
        output.text(f"{_count(report.passed, 'release')} changed meanwhile and kept what they had")
    for damage in report.failed:
        output.text(f"not right, and left alone: {printable(damage.place)}: {printable(damage.fault)}")
    output.result({**fields(report), "won_bytes": report.won_bytes, "seconds": round(seconds, 3), "dry_run": dry_run})
    if report.failed:
        raise SystemExit(DAMAGED)


def _print_work(output: Output, report: RepackReport, seconds: float, *, dry_run: bool) -> None:
    of = f"{_count(len(report.repacked), 'pack')} of {report.packs}, {size(report.old_bytes)}"
    found = f", besides {size(report.found_bytes)} that are in others already" if report.found_bytes else ""
    if dry_run:
        output.text(f"would repack {of}: {size(report.live_bytes)} of them are needed")
        _print_packs(output, report.repacked)
        output.text(f"would copy {size(report.new_bytes)} into {_count(report.new_packs, 'new pack')}{found}")
        output.text(f"would sign new placements of {_count(report.placements, 'release')}")
        output.text(f"would win {size(report.won_bytes)}, once gc has deleted the old packs")
    else:
        output.text(f"repacked {of}: {size(report.live_bytes)} of them are needed; {seconds:.1f} s")
        output.text(f"wrote {_count(report.new_packs, 'new pack')}, {size(report.new_bytes)}{found}")
        output.text(f"signed new placements of {_count(report.placements, 'release')}")
        output.text(
            f"{size(report.won_bytes)} are won when the old packs' grace is over: pacball store gc deletes them"
        )


def _print_packs(output: Output, packs: Sequence[PackUse]) -> None:
    for use in packs[:_LISTED]:
        reason = f": {use.reason}" if use.reason else ""
        output.text(f"  {use.pack}  {size(use.dead_bytes)} of {size(use.length)} dead{reason}")
    if len(packs) > _LISTED:
        output.text(f"  and {len(packs) - _LISTED} more: --json lists all")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

"""Commands that read a store back: `pacball store check`, with its repair, and `pacball store reindex`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import From, Json, Progressing, ProgressMode, Quiet, StoreDir
from paccli.output import Output, fields, reporting

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pacstore.check import CheckReport
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease


def check(
    store: StoreDir,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make good what is damaged, and withdraw what nobody has.")
    ] = False,
    where: From = None,
    seed: Annotated[
        list[Path] | None,
        typer.Option(
            "--seed",
            metavar="DIR",
            help="Also repair from this directory, for example an installed release. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be repaired.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Read everything back and compare it with what it must be. Exit code 1 if something is damaged, and not repaired."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.damage import check_options, print_report, repair_sources  # noqa: PLC0415
        from paccli.owners import check_may_write  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.seeding import check_seed_directories  # noqa: PLC0415
        from pacstore.check import check as check_store  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        check_options(repair=repair, given={"--from": where, "--seed": seed, "--dry-run": dry_run})
        seeds = check_seed_directories(seed)
        if repair and not dry_run:
            check_may_write(store)
        with repair_sources(where) as sources, Store.open(store, writable=repair) as opened:
            releases, droppable = _expectations(opened)
            with showing(output, quiet=quiet) as shown:
                report = check_store(opened, releases, progress=shown, droppable=droppable)
            repaired = None
            if repair:
                work = _Repair(opened, releases, droppable, output, dry_run=dry_run)
                with showing(output, quiet=quiet) as shown:
                    report, repaired = work.run(report, sources, seeds, shown)
            _print_notes(output, opened, report)
        print_report(output, report, repaired)


class _Repair:
    def __init__(
        self,
        store: Store,
        releases: list[CatalogRelease],
        droppable: Collection[Release],
        output: Output,
        *,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._releases = releases
        self._droppable = droppable
        self._output = output
        self._dry_run = dry_run

    def run(
        self, report: CheckReport, sources: Sequence[Source], seeds: Sequence[Path], shown: Progress
    ) -> tuple[CheckReport, Mapping[str, object]]:
        """Repair what the check found, and check that again."""
        from paccli.damage import print_overhaul, print_plan  # noqa: PLC0415
        from pacstore.check import check as check_store  # noqa: PLC0415
        from pacstore.repair.givers import find_givers  # noqa: PLC0415
        from pacstore.repair.overhaul import find_damage, overhaul, plan  # noqa: PLC0415

        expected = [entry.release for entry in self._releases if entry.release not in self._droppable]
        parts = find_damage(self._store, self._releases, report.bad_packs, expected=expected)
        planned = plan(parts)
        print_plan(self._output, planned, sources, seeds)
        if self._dry_run:
            return report, {"plan": fields(planned), "dry_run": True}
        done = overhaul(
            self._store,
            self._releases,
            parts,
            lambda usage: find_givers(sources, seeds, usage),
            droppable=self._droppable,
            progress=shown,
            now=time.time,
        )
        print_overhaul(self._output, done)
        touched = {pack for part in parts if (pack := part.pack) is not None}
        again = check_store(self._store, self._releases, progress=shown, droppable=self._droppable, packs=touched)
        again.packs, again.frames, again.bytes_read = report.packs, report.frames, report.bytes_read
        return again, {"plan": fields(planned), "dry_run": False, **fields(done)}


def _expectations(store: Store) -> tuple[list[CatalogRelease], Collection[Release]]:
    """The releases of the store's catalog, and those of them that it need not hold."""
    from pacstore.check import catalog_releases  # noqa: PLC0415
    from pacstore.housekeeping import droppable_releases, retention_rules  # noqa: PLC0415

    releases = catalog_releases(store)
    if store.is_mirror:
        from pacstore.repair.usage import kept_releases  # noqa: PLC0415 - which takes long to import

        kept = kept_releases(store)
        return releases, {entry.release for entry in releases if entry.release not in kept}
    rules = retention_rules(store.storage)
    return releases, droppable_releases(releases, rules, now=time.time(), grace_seconds=0)


def _print_notes(output: Output, store: Store, report: CheckReport) -> None:
    if report.releases_dropped and store.is_mirror:
        output.text(f"{report.releases_dropped} releases of the catalog are not mirrored here")
    elif report.releases_dropped:
        output.text(f"{report.releases_dropped} releases were dropped, as they were withdrawn or have lapsed")
    if report.links_missing and not store.is_mirror:
        output.text(f"{report.links_missing} links for other TUF clients are missing; run: pacball store link")


def reindex(
    store: StoreDir, as_json: Json = False, quiet: Quiet = False, progress: Progressing = ProgressMode.AUTO
) -> None:
    """Make the chunk index anew from the packs; damaged packs are named and left out."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.damage import print_report  # noqa: PLC0415
        from paccli.owners import check_may_write  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.reindex import reindex as make_index  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        check_may_write(store)
        with (
            Store.open(store, writable=True) as opened,
            showing(output, quiet=quiet) as shown,
        ):
            report = make_index(opened, progress=shown)
        print_report(output, report)

"""Commands for what is installed: releases, rollback, remove and prune."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Grace, Json, Progressing, ProgressMode, Quiet, RootDir
from paccli.output import Output, date, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.install.root.history import Event
    from pacstore.install.root.inventory import InstalledRelease, Inventory
    from pacstore.install.upkeep.pruning import Judged

_EVENTS = 10_000
"""How many events are shown at most, the latest."""
Project = Annotated[str, typer.Argument(metavar="PROJECT")]
Platform = Annotated[str | None, typer.Argument(metavar="[PLATFORM]", help="May be left out if there is only one.")]


def releases(
    root: RootDir = None,
    history: Annotated[bool, typer.Option("--history", help="What happened, and when, instead.")] = False,
    as_json: Json = False,
) -> None:
    """What is installed under a root, since when, what is current, and what else takes up room there."""
    with reporting(as_json=as_json) as output:
        from paccli.settings import install_root  # noqa: PLC0415
        from pacstore.install.root.inventory import take_inventory  # noqa: PLC0415
        from pacstore.install.root.layout import Root  # noqa: PLC0415
        from pacstore.install.tree.disk import disk_at  # noqa: PLC0415

        where = install_root(root)
        if history:
            with disk_at(str(where)), Root.existing(where) as opened:
                return _print_history(output, deque(opened.history(), maxlen=_EVENTS))
        _print_inventory(output, take_inventory(where))
    return None


def _print_inventory(output: Output, found: Inventory) -> None:
    from paccli.tables import table  # noqa: PLC0415

    if found.releases:
        titles = ("release", "size", "files", "installed", "current", "tree digest")
        rows = [_row(one) for one in found.releases]
        for line in table(titles, rows, right=(1, 2)):
            output.text(line)
    else:
        output.text("nothing is installed")
    for attempt in found.attempts:
        what = "an interrupted attempt" if attempt.ended else "an attempt that may be at work"
        output.text(f"{what} at {attempt.release}, begun {date(attempt.started)}: {size(attempt.bytes)}")
    if found.trash_bytes:
        output.text(f"left by interrupted removals, and removed by the next: {size(found.trash_bytes)}")
    if found.aside_bytes:
        output.text(f"set aside by repairs, in .pacball/aside: {size(found.aside_bytes)}")
    output.result(
        {
            "releases": [fields(one) for one in found.releases],
            "attempts": [fields(one) for one in found.attempts],
            "trash_bytes": found.trash_bytes,
            "aside_bytes": found.aside_bytes,
        }
    )


def _row(one: InstalledRelease) -> tuple[str, ...]:
    if one.current:
        current = f"since {date(one.current_since)}" if one.current_since is not None else "yes"
    else:
        current = f"until {date(one.replaced)}" if one.replaced is not None else "no"
    if one.tree_digest is None or one.bytes_total is None:
        return str(one.release), "?", "?", date(one.installed), current, f"its record is damaged: {one.damage}"
    digest = f"{one.tree_digest.hex[:16]}..."
    return str(one.release), size(one.bytes_total), f"{one.files:,}", date(one.installed), current, digest


def _print_history(output: Output, events: Collection[Event]) -> None:
    from pacstore.errors import printable  # noqa: PLC0415

    for event in events:
        more = [f"from {event.previous}"] if event.previous else []
        more += [f"({event.text('source')})"] if event.text("source") else []
        more += ["passed" if event.values["passed"] is True else "FAILED"] if "passed" in event.values else []
        output.text(printable(" ".join([date(event.time), str(event.kind), str(event.release), *more])))
    if not events:
        output.text("nothing has happened yet")
    lines = [{**event.values, "event": str(event.kind)} for event in events]
    output.result({"events": lines})


def rollback(
    project: Project,
    platform: Platform = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="RELEASE", help="Switch to this installed release instead.")
    ] = None,
    root: RootDir = None,
    as_json: Json = False,
) -> None:
    """Let current lead again to the release that was current before; once more goes further back. Needs no network."""
    with reporting(as_json=as_json) as output:
        from paccli.settings import install_root  # noqa: PLC0415
        from pacstore.install.upkeep.rollback import roll_back  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        target = Release.parse(to) if to is not None else None
        done = roll_back(install_root(root), project, platform, to=target, now=time.time)
        before = f", and no longer to {done.previous}" if done.previous else ""
        output.text(f"current/{done.project}/{done.platform} leads to {done.release} now{before}")
        output.result(fields(done))


def remove(
    names: Annotated[list[str], typer.Argument(metavar="RELEASE...", help="Installed releases.")],
    root: RootDir = None,
    grace: Grace = "7d",
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Remove installed releases that are not current, some time after they were replaced."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.settings import install_root  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415
        from pacstore.install.upkeep.removal import remove as remove_releases  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        chosen = [Release.parse(name) for name in names]
        seconds = parse_span(grace, place="--grace")
        with showing(output, quiet=quiet) as shown:
            done = remove_releases(install_root(root), chosen, grace_seconds=seconds, now=time.time, progress=shown)
        for one in done.removed:
            output.text(f"removed {one.release}: {size(one.bytes_freed)} freed")
        _print_swept(output, done.bytes_swept, 0)
        output.result(fields(done))


def prune(
    keep: Annotated[
        int,
        typer.Option(
            "--keep", metavar="N", min=0, help="How many of each project and platform to keep beside the current."
        ),
    ],
    project: Annotated[str | None, typer.Argument(metavar="[PROJECT]", help="Only its releases.")] = None,
    platform: Annotated[str | None, typer.Argument(metavar="[PLATFORM]", help="Only those for it.")] = None,
    root: RootDir = None,
    grace: Grace = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Remove all but the current release and the newest others, of each project and platform; and what interruptions left."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.settings import install_root  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415
        from pacstore.install.upkeep.pruning import prune as prune_releases  # noqa: PLC0415

        seconds = parse_span(grace, place="--grace")
        with showing(output, quiet=quiet) as shown:
            done = prune_releases(
                install_root(root), keep=keep, project=project, platform=platform, grace_seconds=seconds,
                dry_run=dry_run, now=time.time, progress=shown,
            )  # fmt: skip
        for one in done.releases:
            output.text(_verdict(one, dry_run=dry_run))
        if not done.releases:
            output.text("nothing is installed")
        _print_swept(output, done.bytes_swept, done.attempts)
        output.result({**fields(done), "dry_run": dry_run})


def _verdict(one: Judged, *, dry_run: bool) -> str:
    from pacstore.install.upkeep.pruning import Reason  # noqa: PLC0415

    if one.reason is Reason.REMOVED:
        return (
            f"would remove {one.release}: {size(one.bytes_freed)}"
            if dry_run
            else f"removed {one.release}: {size(one.bytes_freed)} freed"
        )
    why = {
        Reason.CURRENT: "it is current",
        Reason.NEW: "it is one of the newest",
        Reason.GRACE: f"jobs may still run from it; until {date(one.until or 0)}",
        Reason.DAMAGED: "its record is damaged: verify --repair it, or remove it by name",
    }[one.reason]
    return f"kept {one.release}: {why}"


def _print_swept(output: Output, count_bytes: int, attempts: int) -> None:
    if count_bytes:
        output.text(f"finished earlier removals: {size(count_bytes)} freed")
    if attempts:
        output.text(f"swept {attempts} interrupted attempt{'' if attempts == 1 else 's'}")

"""Saying what is damaged in a store, what is to be done about it, and what was done; and who may be asked for the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paccli.output import Output, fields, size
from pacstore.errors import NotFound, Refused, printable

if TYPE_CHECKING:
    from pacmirror.part import Part
    from pacstore.readback import Report
    from pacstore.repair.overhaul import Overhaul, Plan
    from pacstore.source import Source

_SHOWN = 100
"""So many lines of a kind are printed; JSON has all of them."""


@contextmanager
def repair_sources(where: Sequence[str] | None) -> Iterator[list[Source]]:
    """The sources named `where`, URLs together as one. They need not be trusted: what they give is compared with the catalog.

    Raises NotFound for a directory that is no store, Refused for what is no URL.
    """
    from paccli.sources import split_names  # noqa: PLC0415
    from pacstore.directory_source import DirectorySource  # noqa: PLC0415
    from pacstore.repair.givers import is_store  # noqa: PLC0415

    names = split_names(where)
    with ExitStack() as stack:
        found: list[Source] = []
        for name in names:
            if "://" in name:
                continue
            if not is_store(Path(name)):
                hint = "name a store directory or an http(s) URL; other directories: --seed"
                raise NotFound("is not a pacball store", place=f"--from {printable(name)}", hint=hint)
            found.append(DirectorySource(Path(name)))
        urls = [name for name in names if "://" in name]
        if urls:
            found.append(stack.enter_context(closing(_mirror_list(urls))))
        yield found


def _mirror_list(urls: Sequence[str]) -> Source:
    from paccli.network import list_limits_of, surroundings_of  # noqa: PLC0415
    from paccli.settings import load_settings  # noqa: PLC0415
    from pacmirror.mirrors import MirrorList  # noqa: PLC0415
    from pacmirror.source import HttpSource  # noqa: PLC0415

    settings = load_settings()
    each, together = list_limits_of(settings)
    surroundings = surroundings_of(settings)
    parts: list[Part] = [HttpSource(url, limits=each, surroundings=surroundings) for url in urls]
    return MirrorList(parts, limits=together)


def check_options(*, repair: bool, given: Mapping[str, object]) -> None:
    """Raise Refused for options that mean nothing without --repair."""
    for name, value in given.items():
        if value and not repair:
            raise Refused("is only for a repair", place=name, hint="add --repair")


def print_report(output: Output, report: Report, repair: Mapping[str, object] | None = None) -> None:
    """The result of a check, with exit code 1 for damage; `repair`: the result of the repair before it, for JSON."""
    from paccli.exits import DAMAGED  # noqa: PLC0415

    for damage in report.damage:
        output.text(f"damaged: {printable(damage.place)}: {printable(damage.fault)}")
    for release in report.releases:
        output.text(f"damaged release: {release}")
    read = (
        f"{report.packs} packs, {report.frames} frames, {size(report.bytes_read)}, {report.releases_checked} releases"
    )
    output.text(f"{len(report.damage)} faults in {read}" if report.damage else f"all is well: {read}")
    more = {"repair": dict(repair)} if repair is not None else {}
    output.result({**fields(report), "intact": not report.damage, **more})
    if report.damage:
        raise SystemExit(DAMAGED)


def print_plan(output: Output, plan: Plan, sources: Sequence[Source], seeds: Sequence[Path]) -> None:
    """What is to be repaired, and from where."""
    parts = [f"{plan.frames} frames ({size(plan.frame_bytes)})"] if plan.frames else []
    parts += [f"{plan.packs} packs as a whole"] if plan.packs else []
    parts += [f"{plan.documents} documents"] if plan.documents else []
    names = [printable(source.name) for source in sources] + [printable(str(seed)) for seed in seeds]
    output.text(f"to repair: {', '.join(parts) or 'nothing'}; from {', '.join(names) or 'what the store itself holds'}")


def print_overhaul(output: Output, done: Overhaul) -> None:
    """What was repaired, what not and why, and what is offered again."""
    for healed in done.healed[:_SHOWN]:
        if healed.whole and healed.parts:
            got = f", {size(healed.bytes_got)}" if healed.bytes_got else ""
            giver = f" from {', '.join(healed.givers)}" if healed.givers else ""
            output.text(f"repaired: {printable(healed.path)}: {healed.parts} parts{got}{giver}")
        elif healed.whole:
            output.text(f"repaired: {printable(healed.path)}")
    for part in done.lost[:_SHOWN]:
        output.text(f"not repaired: {printable(str(part))}")
    reasons = dict.fromkeys([fault for healed in done.healed for fault in healed.faults] + done.failed)
    for reason in list(reasons)[:_SHOWN]:
        output.text(f"reason: {printable(reason)}")
    withdrawn = sum(healed.withdrawn for healed in done.healed)
    if withdrawn:
        output.text(
            f"{withdrawn} of them are withdrawn: they are in private/ now, and come back when they are repaired"
        )
    for release in done.offered:
        output.text(f"offered again: {release}")
    output.text(f"repaired {done.parts_repaired} parts, {size(done.bytes_got)} from others; {len(done.lost)} are lost")

"""The command that compares what is installed with what was signed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
    RootDir,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, reporting, size

if TYPE_CHECKING:
    from paccli.sources import Opened
    from pacstore.install.upkeep.findings import Finding
    from pacstore.install.upkeep.repair import Repaired
    from pacstore.install.upkeep.verify import Verified
    from pacstore.release import Release
    from pacstore.source import Source, SourceState
    from pacstore.trust.targets import CatalogRelease

Shared = Mapping[tuple[int, int], "Sequence[Release]"]


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RELEASE...]", help="Installed releases. Default: all of them.")
    ] = None,
    root: RootDir = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail for warnings too: extra files, hard links that are none any more.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what is wrong; only what no local tree has is fetched.")
    ] = False,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    insecure: Insecure = False,
    limit_rate: LimitRate = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Compare installed releases with what was signed, file by file; needs no network. Exit code 1 if one differs."""
    with reporting(as_json=as_json, progress=progress) as output, ExitStack() as stack:
        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.settings import install_root, load_settings  # noqa: PLC0415
        from pacstore.amounts import parse_rate  # noqa: PLC0415
        from pacstore.install.upkeep import verify as verification  # noqa: PLC0415
        from pacstore.install.upkeep.checking import Readers  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        chosen = [Release.parse(name) for name in names or []]
        where = install_root(root)
        repaired: list[Repaired] | None = None
        trust = TrustOptions(root_keys, trust_on_first_use, as_of, insecure)
        trust.check()
        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        supply: _Supply | None = None
        states = lambda: supply.states() if supply is not None else ()  # noqa: E731
        shown = stack.enter_context(showing(output, quiet=quiet, sources=states))
        processes = _processes()
        readers = Readers(threads=max(2, processes), processes=processes)
        if repair:
            from pacstore.install.options import InstallOptions  # noqa: PLC0415
            from pacstore.install.upkeep.repair import repair as repair_releases  # noqa: PLC0415

            given = source or load_settings().sources
            supply = _Supply(source, trust, output, stack, rate, chosen) if given else None
            options = InstallOptions(workers=readers.threads)
            repaired = repair_releases(
                where, chosen, supply=supply, progress=shown, now=time.time, options=options, readers=readers
            )
            found = [one.verified for one in repaired]
        else:
            found = verification.verify(where, chosen, shown, readers=readers)
        stack.close()
        if not _print(output, found, repaired, strict=strict):
            raise SystemExit(DAMAGED)


class _Supply:
    """A source that is opened, and whose catalog is verified, only when something is missing."""

    def __init__(
        self,
        where: list[str] | None,
        trust: TrustOptions,
        output: Output,
        stack: ExitStack,
        limit_rate: int | None,
        releases: Sequence[Release],
    ) -> None:
        self._releases = releases
        self._limit_rate = limit_rate
        self._where = where
        self._trust = trust
        self._output = output
        self._stack = stack
        self._opened: Opened | None = None

    @property
    def source(self) -> Source:
        return self._open().source

    def states(self) -> Sequence[SourceState]:
        """How its sources do; nothing before there are any."""
        from pacstore.source import states_of  # noqa: PLC0415

        return states_of(self._opened.source) if self._opened is not None else ()

    @property
    def bytes_downloaded(self) -> int:
        return self._opened.source.traffic.bytes_downloaded if self._opened is not None else 0

    def entry(self, release: Release) -> CatalogRelease:
        from pacstore.install.trust import check_withdrawn  # noqa: PLC0415

        entry = self._open().catalog.release(release)
        check_withdrawn(entry, allowed=True, warn=self._output.warn)
        return entry

    def refresh(self, release: Release) -> CatalogRelease:
        return self._open().refresh(release)

    def _open(self) -> Opened:
        from paccli.sources import opening  # noqa: PLC0415

        if self._opened is None:
            opened = opening(
                self._where, self._trust, self._output, limit_rate=self._limit_rate, releases=self._releases
            )
            self._opened = self._stack.enter_context(opened)
        return self._opened


def _print(output: Output, found: Sequence[Verified], repaired: Sequence[Repaired] | None, *, strict: bool) -> bool:
    """Print what was found, and what was done about it; whether all is well now."""
    from pacstore.install.upkeep.verify import shared_with  # noqa: PLC0415

    shared = shared_with(found)
    _print_findings(output, found, shared)
    if repaired is None:
        intact = all(one.is_intact(strict=strict) for one in found)
    else:
        intact = all(_is_whole(one, strict=strict) for one in repaired)
        for one in repaired:
            _print_repaired(output, one)
    releases = [_fields(one, shared, strict=strict) for one in found]
    for values, done in zip(releases, repaired or (), strict=False):
        values["intact"] = _is_whole(done, strict=strict)
        values["repaired"] = _repaired_fields(done)
    output.result({"intact": intact, "strict": strict, "releases": releases})
    return intact


def _is_whole(done: Repaired, *, strict: bool) -> bool:
    extras = any(one.fault == "extra" for one in done.verified.findings)
    return not any(strict or not one.fault.is_warning for one in done.left) and not (strict and extras)


def _print_repaired(output: Output, done: Repaired) -> None:
    from pacstore.errors import printable  # noqa: PLC0415

    name = done.verified.release
    if done.changed:
        parts = ((done.files, "file"), (done.entries, "other entry"), (done.records, "record"))
        what = ", ".join(_count(number, noun) for number, noun in parts if number)
        output.text(
            f"repaired {name}: {what}; {size(done.bytes_downloaded)} downloaded, {size(done.bytes_reused)} reused"
        )
    for place in done.aside:
        output.text(f"  what was in the way is in {place} now")
    if done.left:
        output.text(f"NOT repaired of {name}: {len(done.left)}")
        for one in done.left:
            output.text(f"  {one.fault}: {printable(_place(done.verified, one))}")
        output.text(f"  {_advice(done)}")


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _advice(done: Repaired) -> str:
    """What to do about what is left."""
    if any(one.fault == "record" or not one.generated for one in done.left):
        return "no local tree has all that is missing: name a source with --from"
    return "the release's own commands made it: install the release again with --run-actions"


def _repaired_fields(done: Repaired) -> dict[str, object]:
    return {
        "files": done.files,
        "entries": done.entries,
        "records": done.records,
        "bytes_downloaded": done.bytes_downloaded,
        "bytes_reused": done.bytes_reused,
        "aside": list(done.aside),
        "left": [{"path": one.path, "fault": str(one.fault), "detail": one.detail} for one in done.left],
    }


def _processes() -> int:
    """As many as this process may use cores; many do not read faster from one disk, and each takes memory."""
    return min(len(os.sched_getaffinity(0)), 8)


def _print_findings(output: Output, found: Sequence[Verified], shared: Shared) -> None:
    """Each finding in one line, and each file that several releases share once; then a line for each release."""
    from pacstore.errors import printable  # noqa: PLC0415

    told: set[tuple[int, int]] = set()
    for verified in found:
        for one in verified.findings:
            also = ""
            if one.inode is not None and one.inode in shared:
                if one.inode in told:
                    continue
                also = f" (the same file in {', '.join(str(r) for r in shared[one.inode])})"
                told.add(one.inode)
            output.text(f"{one.fault}: {printable(_place(verified, one))} {printable(one.detail)}{also}")
    for verified in found:
        output.text(_summary(verified))
    if not found:
        output.text("nothing is installed")


def _place(verified: Verified, one: Finding) -> str:
    return one.path if one.path.startswith(".pacball/") else f"{verified.release}/{one.path}"


def _summary(verified: Verified) -> str:
    warnings = sum(one.fault.is_warning for one in verified.findings)
    differences = len(verified.findings) - warnings
    name = verified.release
    if verified.files == 0 and any(
        one.path.endswith(".manifest") and one.fault == "record" for one in verified.findings
    ):
        return f"{name}: cannot be compared, because its record is damaged; --repair --from SOURCE fetches it again"
    what = f"{name}: {_count(verified.files, 'file')}, {size(verified.bytes_total)}"
    more = f", {_count(warnings, 'warning')}" if warnings else ""
    if differences:
        return f"{what}: {_count(differences, 'difference')}{more}"
    return f"{what}: as it was signed{more}"


def _fields(verified: Verified, shared: Shared, *, strict: bool) -> dict[str, object]:
    """A release's part of the result."""

    def plain(one: Finding) -> dict[str, object]:
        value: dict[str, object] = {"path": one.path, "fault": str(one.fault), "detail": one.detail}
        if one.inode is not None and one.inode in shared:
            value["shared_with"] = [str(r) for r in shared[one.inode] if r != verified.release]
        return value

    return {
        "release": str(verified.release),
        "intact": verified.is_intact(strict=strict),
        "files": verified.files,
        "bytes_total": verified.bytes_total,
        "damage": [plain(one) for one in verified.findings if not one.fault.is_warning],
        "warnings": [plain(one) for one in verified.findings if one.fault.is_warning],
    }

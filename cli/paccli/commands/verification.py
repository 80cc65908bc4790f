"""The command that compares what is installed with what was signed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json, Progressing, ProgressMode, Quiet, RootDir
from paccli.output import Output, reporting, size

if TYPE_CHECKING:
    from pacstore.install.findings import Finding
    from pacstore.install.verify import Verified
    from pacstore.release import Release

Shared = Mapping[tuple[int, int], "Sequence[Release]"]


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RELEASE...]", help="Installed releases. Default: all of them.")
    ] = None,
    root: RootDir = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail for warnings too: extra files, hard links that are none any more.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Compare installed releases with what was signed, file by file; needs no network. Exit code 1 if one differs."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.settings import install_root  # noqa: PLC0415
        from pacstore.install import verify as verification  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        chosen = [Release.parse(name) for name in names or []]
        with showing(output, quiet=quiet) as shown:
            found = verification.verify(install_root(root), chosen, shown, workers=_workers())
        shared = verification.shared_with(found)
        _print_findings(output, found, shared)
        intact = all(one.is_intact(strict=strict) for one in found)
        releases = [_fields(one, shared, strict=strict) for one in found]
        output.result({"intact": intact, "strict": strict, "releases": releases})
        if not intact:
            raise SystemExit(DAMAGED)


def _workers() -> int:
    """As many threads as this process may use cores; many do not read faster from one disk."""
    return max(2, min(len(os.sched_getaffinity(0)), 8))


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
    what = f"{verified.release}: {verified.files:,} files, {size(verified.bytes_total)}"
    more = f", {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
    if differences:
        return f"{what}: {differences} difference{'' if differences == 1 else 's'}{more}"
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

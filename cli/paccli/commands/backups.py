"""Commands for who keeps a store safe: `pacball store backup` and `pacball store restore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Json, Progressing, ProgressMode, Quiet, StoreDir
from paccli.output import Output, date, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.backup import BackupReport, RestoreReport
    from pacstore.readback import Damage
    from pacstore.source import Source


def backup(
    store: StoreDir,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="The backup: a new or empty directory, or one before.")
    ],
    packs: Annotated[bool, typer.Option("--packs", help="Packs too; mirrors have them as a rule.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back what the backup has already, and replace what is damaged in it.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Copy a store's catalog, documents and databases, while it is at work. Exit code 1 if something is damaged.

    The same command again copies what is new. The catalog's keys are never copied.
    """
    with reporting(as_json=as_json, progress=progress) as output:
        import time  # noqa: PLC0415

        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.backup import back_up  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened, showing(output, quiet=quiet) as shown:
            report = back_up(opened, to, packs=packs, verify=verify, progress=shown, now=time.time)
        _print_backup(output, report, store, to)


def _print_backup(output: Output, report: BackupReport, store: Path, to: Path) -> None:
    from paccli.exits import DAMAGED  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    _print_damage(output, report.damage)
    for place in report.missing:
        output.text(f"not in the backup either: {printable(place)}")
    copied = f"{report.copied} files copied ({size(report.bytes_copied)}), {report.kept} were there before"
    if report.recorded:
        output.text(f"{to} has version {report.catalog_version} of the catalog, {report.releases} releases: {copied}")
    else:
        output.text(f"the catalog of {store} does not verify: {to} keeps the state that it had; {copied}")
    if report.packs_left_out:
        left_out = f"{report.packs_left_out} packs ({size(report.bytes_left_out)}) are not in it"
        output.text(f"{left_out}: mirrors have them, or give --packs")
    keys = f"they are in {report.keys}" if report.keys else "the store does not know where they are"
    output.text(f"the catalog's keys are not in it: {keys}; keep a copy of them in another safe place")
    intact = not report.damage
    output.result({**fields(report), "keys": str(report.keys or ""), "intact": intact})
    if not intact:
        raise SystemExit(DAMAGED)


def restore(
    path: Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup.")],
    to: Annotated[Path, typer.Option("--to", metavar="STORE", help="The store to be: a new or empty directory.")],
    packs_from: Annotated[
        str | None,
        typer.Option(
            "--packs-from", metavar="SOURCE", help="Fetch what the backup lacks: from any mirror's URL, or a store."
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where the store keeps its databases: local disk.")
    ] = None,
    despite_damage: Annotated[
        bool, typer.Option("--despite-damage", help="Restore what there is, even if the backup is damaged.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Make a store from a backup; what was interrupted continues. Exit code 1 if something is damaged, or could not be had.

    Run it again with --packs-from for packs that the backup does not have.
    """
    with reporting(as_json=as_json, progress=progress) as output:
        import time  # noqa: PLC0415

        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.backup import restore as restore_store  # noqa: PLC0415

        with _source(packs_from) as source, showing(output, quiet=quiet) as shown:
            report = restore_store(
                path,
                to,
                source=source,
                state_dir=state_dir,
                despite_damage=despite_damage,
                progress=shown,
                now=time.time,
            )
        state = ("--state-dir", state_dir) if state_dir is not None else ()
        again = _command("store restore", path, "--to", to, *state)
        _print_restored(output, report, to, again)
        if report.damage or not report.made or (packs_from is not None and report.incomplete):
            raise SystemExit(DAMAGED)


@contextmanager
def _source(where: str | None) -> Iterator[Source | None]:
    """The store named by --packs-from. It is not trusted: everything that comes from it is named by its digest."""
    if where is None:
        yield None
        return
    from pacstore.directory_source import DirectorySource  # noqa: PLC0415
    from pacstore.errors import NotFound  # noqa: PLC0415
    from pacstore.limits import LIMITS  # noqa: PLC0415
    from pacstore.marker import check_marker  # noqa: PLC0415
    from pacstore.storage import STORE_MARKER  # noqa: PLC0415

    source: Source
    if "://" in where:
        from paccli.network import limits_of, surroundings_of  # noqa: PLC0415
        from paccli.settings import load_settings  # noqa: PLC0415
        from pacmirror.source import HttpSource  # noqa: PLC0415

        settings = load_settings()
        source = HttpSource(where, limits=limits_of(settings), surroundings=surroundings_of(settings))
    else:
        source = DirectorySource(Path(where))
    with closing(source):
        try:
            check_marker(source.read(STORE_MARKER, limit=LIMITS.store_marker_bytes), f"{where}/{STORE_MARKER}")
        except NotFound:
            raise NotFound("is not a pacball store", place=where, hint="check the path or URL") from None
        yield source


def _print_restored(output: Output, report: RestoreReport, to: Path, again: str) -> None:
    _print_damage(output, report.damage)
    if report.begun:
        output.text(f"a later backup was begun at {date(report.begun)} and not finished")
    following = _next_commands(report, to, again)
    if report.made:
        output.text(f"{to} is a store with version {report.catalog_version} of the catalog, {report.releases} releases")
        output.text(f"what was published after the backup, at {date(report.time)}, has to be published again")
    else:
        output.text(f"{to} is no store yet: give --packs-from SOURCE, where the same files may be undamaged; or "
                    "--despite-damage, to do without them, if none is of the catalog itself")  # fmt: skip
    if report.packs_missing:
        missing = f"{report.packs_missing} packs ({size(report.bytes_missing)}) are missing"
        output.text(f"{missing}: {len(report.incomplete)} releases are not offered before they are there")
    for purpose, command in following.items():
        output.text(f"{purpose}: {command}")
    keys = f"they were in {report.keys}" if report.keys else "the backup does not say where they were"
    output.text(f"the catalog's keys are not in a backup: {keys}")
    values = {
        "keys": str(report.keys or ""),
        "time": date(report.time),
        "begun": date(report.begun) if report.begun else "",
    }
    output.result({**fields(report), **values, "intact": not report.damage, "next": list(following.values())})


def _next_commands(report: RestoreReport, to: Path, again: str) -> dict[str, str]:
    """What to do after a restore: why, and the command."""
    if not report.made:
        return {"try again": f"{again} --packs-from SOURCE"}
    found = {}
    if report.incomplete:
        found["fetch the missing packs"] = f"{again} --packs-from SOURCE"
    if report.catalog_version:
        found["clients may have seen later versions; ask every mirror"] = "pacball trust status --from MIRROR"
        republish = _command("trust republish", "--store", to, "--above-version", "N")
        found["and go above the highest before you publish"] = republish
    return found


def _command(name: str, *words: object) -> str:
    import shlex  # noqa: PLC0415

    return f"pacball {name} {shlex.join(map(str, words))}"


def _print_damage(output: Output, damage: list[Damage]) -> None:
    from pacstore.errors import printable  # noqa: PLC0415

    for one in damage:
        output.text(f"damaged: {printable(one.place)}: {printable(one.fault)}")

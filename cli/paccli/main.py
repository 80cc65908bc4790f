"""The command `pacball`: parse, one call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from paccli.commands import (
    actions,
    backups,
    checks,
    collecting,
    doctor,
    housekeeping,
    installed,
    lines,
    mirrors,
    pacballs,
    releases,
    repacking,
    rucio,
    rucio_sites,
    rucio_status,
    signing,
    sites,
    stores,
    tokens,
    trust,
    verification,
    volumes,
)

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h."""

app = typer.Typer(
    name="pacball",
    help="Publish software releases, serve them, and install them at sites: reproducible, verified, resumable.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """The entry point of the command."""
    _open_standard_files()
    _tune_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files have characters that not every terminal has.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def _open_standard_files() -> None:
    """Those that whoever started us has closed lead nowhere; otherwise the next file that is opened would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _tune_process() -> None:
    """Settings of the whole process, each for something measured."""
    # numpy's linear algebra, never used here, would keep a thread spinning.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Collecting garbage, of which there is hardly any, takes 2 % of a publish at the default thresholds.
    gc.set_threshold(100_000, 50, 100)
    # glibc keeps freed blocks of up to 32 MiB for later: 80 MB more for the ranges of an install. Other C libraries do not.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 4 << 20)
        # Setting the one fixes the other at 128 KiB: every directory that is listed would grow and shrink the heap.
        mallopt(_TRIM_THRESHOLD, 8 << 20)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Publish software releases, serve them, and install them at sites: reproducible, verified, resumable."""
    if version:
        from importlib.metadata import version as installed_version  # noqa: PLC0415

        print(f"pacball {installed_version('pacball')}")
        raise typer.Exit


def _register(group: typer.Typer, *commands: Callable[..., None]) -> None:
    for command in commands:
        group.command(command.__name__.partition("_")[0])(command)


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, rich_markup_mode=None, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


_register(app, releases.publish, releases.list_releases, releases.show, releases.diff)
_register(app, lines.withdraw, lines.attach)
_register(app, pacballs.build, pacballs.fetch)
_register(app, volumes.export_releases, volumes.import_volumes)
_register(app, sites.install, actions.validate, stores.serve)
_register(app, installed.releases, installed.rollback, installed.remove, installed.prune, verification.verify)
_register(app, doctor.config, doctor.doctor)
_STORE = _group("store", "Look after a store.")
_register(_STORE, checks.check, checks.reindex, stores.stats, backups.backup, backups.restore)
_register(_STORE, housekeeping.drop, housekeeping.link)
_register(_STORE, collecting.gc, repacking.repack, collecting.pin, collecting.unpin, collecting.pins)
_MIRROR = _group("mirror", "Say what a mirror holds, and see how it does.")
_register(_MIRROR, mirrors.status, mirrors.subscribe, mirrors.unsubscribe, mirrors.subscriptions)
_TRUST = _group("trust", "Keys and signatures: who may publish, and what waits for whom. See docs/trust.md.")
_register(_TRUST, trust.keygen, trust.init, signing.status, signing.verify, trust.refresh)
_TRUST.command("add-line")(trust.add_line)
_register(_TRUST, signing.sign, signing.export, signing.submit, trust.drop)
_register(_TRUST, trust.rotate, trust.revoke, trust.republish, lines.retain)
_TOKEN = _group("token", "Tokens that a daemon wants to see, where [access] says so.")
_register(_TOKEN, tokens.create, tokens.list_tokens, tokens.revoke)
_RUCIO = _group("rucio", "Releases as datasets in Rucio. See docs/rucio.md.")
_register(_RUCIO, rucio.register, rucio.retire, rucio_status.status)
_register(_RUCIO, rucio_sites.agent, rucio_sites.declare)

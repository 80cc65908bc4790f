"""Commands for releases as datasets in Rucio: `pacball rucio register`, `retire`. They need the extra `pacball[rucio]`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import (
    Json,
    Progressing,
    ProgressMode,
    Quiet,
    ReleaseName,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.material import Supply
    from pacmirror.delivery.rucio.registering import Registered
    from pacmirror.uploads.client import HttpOrigin
    from pacstore.release import Release

AtStore = Annotated[Path | None, typer.Option("--store", metavar="DIR", help="The store, where it is.")]
AtOrigin = Annotated[
    str | None, typer.Option("--from", metavar="URL", help="The origin that has the store; or the store's directory.")
]
Rse = Annotated[str, typer.Option("--rse", metavar="RSE", help="The RSE whose files the store has.")]
Scope = Annotated[str, typer.Option("--scope", metavar="SCOPE", help="The scope of the releases.")]
Account = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="As whom Rucio is asked. Default: as rucio.cfg says.")
]


@contextmanager
def bridging() -> Iterator[None]:
    """Inside, the bridge to Rucio may be imported. Raises Refused where Rucio's client is not installed."""
    from pacstore.errors import Refused  # noqa: PLC0415

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("rucio", "requests"):
            raise
        hint = "pip install 'pacball[rucio]'"
        raise Refused("Rucio's client is not installed", place="pacball rucio", hint=hint) from error


def register(
    release: ReleaseName,
    rse: Rse,
    store: AtStore = None,
    source: AtOrigin = None,
    scope: Scope = "sw",
    create_scope: Annotated[bool, typer.Option("--create-scope", help="Make the scope if there is none.")] = False,
    pacball: Annotated[
        bool,
        typer.Option("--pacball", help="Also register the self-installing file, as a dataset of its own."),
    ] = False,
    account: Account = None,
    root_keys: RootKeys = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Register a release in Rucio: its packs, manifest and a bundle as files at the store's RSE, in one closed dataset.

    Rucio alone is enough to install it then. The same command again changes nothing, or continues what was interrupted. The
    release is pinned in the store. --from URL needs a token of the origin that allows to publish that line.
    """
    with reporting(as_json=as_json, progress=progress) as out, bridging():
        from pacmirror.delivery.rucio import registering  # noqa: PLC0415
        from pacmirror.delivery.rucio.catalogue import RucioCatalogue  # noqa: PLC0415
        from pacmirror.delivery.rucio.naming import check_rse, check_scope  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name, where = Release.parse(release), _where(store, source)
        check_rse(rse)
        check_scope(scope)
        started = time.monotonic()
        target = registering.Target(rse, scope, make_scope=create_scope, with_pacball=pacball)
        with _supplying(where, name, root_keys, out, quiet=quiet) as supply:
            done = registering.register(RucioCatalogue.connect(account=account), supply, target)
        _print_registered(out, done, name, time.monotonic() - started)


@contextmanager
def _supplying(where: str, name: Release, root_keys: Path | None, out: Output, *, quiet: bool) -> Iterator[Supply]:
    """The release in the store or at the origin `where`, whose catalog is verified first."""
    from paccli.owners import check_may_write  # noqa: PLC0415
    from paccli.progress import showing  # noqa: PLC0415
    from paccli.sources import opening  # noqa: PLC0415
    from pacmirror.delivery.rucio.material import OriginSupply, StoreSupply  # noqa: PLC0415
    from pacstore.store import Store  # noqa: PLC0415

    trust = TrustOptions(root_keys, on_first_use=False)
    if "://" in where:
        with _origin(where) as origin, opening([where], trust, out) as opened, showing(out, quiet=quiet):
            yield OriginSupply(origin, opened.source, opened.release(name))
        return
    check_may_write(Path(where))
    with Store.open(Path(where), writable=True) as store, opening([where], trust, out) as opened:
        entry = opened.release(name)
        with showing(out, quiet=quiet) as shown:
            yield StoreSupply(store, entry, opened.root, time.time, shown)


def _origin(url: str) -> HttpOrigin:
    from paccli.network import limits_of, surroundings_of  # noqa: PLC0415
    from paccli.settings import load_settings  # noqa: PLC0415
    from pacmirror.uploads.client import HttpOrigin  # noqa: PLC0415

    settings = load_settings()
    return HttpOrigin(url, limits=limits_of(settings), surroundings=surroundings_of(settings))


def _where(store: Path | None, source: str | None) -> str:
    """The store's directory, or the origin's URL."""
    from pacstore.errors import Refused  # noqa: PLC0415

    if (store is None) == (source is None):
        hint = "--store DIR where the store is, or --from URL"
        raise Refused("name the store, once", place="--store", hint=hint)
    return str(store) if store is not None else str(source)


def _print_registered(out: Output, done: Registered, name: object, seconds: float) -> None:
    if done.was_complete:
        out.text(f"{name} is registered already: {done.dataset} at {done.rse}, nothing to change")
    else:
        out.text(f"registered {name}: {done.dataset} at {done.rse}, {seconds:.1f} s")
        files = f"{done.files} files, {size(done.bytes_total)}"
        out.text(f"  {files}; new to Rucio: {done.dids}, new at {done.rse}: {done.replicas}")
        if done.made_available:
            out.text(f"  {done.made_available} replicas that were not available are so now")
        out.text(f"  in the container {done.container}, and pinned in the store")
    if done.pacball is not None:
        out.text(f"  its pacball: {done.pacball}")
    if not done.was_complete:
        out.text(f"  next: rucio rule add --copies 1 --rses RSE {done.dataset}")
    dids = {"dataset": str(done.dataset), "container": str(done.container)}
    dids["pacball"] = str(done.pacball) if done.pacball is not None else ""
    out.result({**fields(done), **dids, "release": str(name), "seconds": round(seconds, 3)})


def retire(
    release: ReleaseName,
    rse: Rse,
    store: AtStore = None,
    source: AtOrigin = None,
    scope: Scope = "sw",
    delete_rules: Annotated[
        bool, typer.Option("--delete-rules", help="Also delete the rules on its datasets, whoever made them.")
    ] = False,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Let a release leave Rucio: its datasets leave the line's container and expire, and the store keeps it for Rucio no longer.

    Files that other releases use stay. Registering it again takes that back.
    """
    with reporting(as_json=as_json) as out, bridging():
        from pacmirror.delivery.rucio import retiring  # noqa: PLC0415
        from pacmirror.delivery.rucio.catalogue import RucioCatalogue  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name, where = Release.parse(release), _where(store, source)
        with _keeper(where) as take_back:
            catalogue = RucioCatalogue.connect(account=account)
            done = retiring.retire(catalogue, name, rse=rse, scope=scope, with_rules=delete_rules, now=time.time())
            # There is one pin for all scopes.
            was_pinned = not done.kept_in and take_back(name)
        for did in done.datasets:
            out.text(f"retired {did}")
        rules = f", {done.rules} rule{'s' if done.rules > 1 else ''} deleted" if done.rules else ""
        pinned = ", and no longer pinned in the store" if was_pinned else ""
        if done.kept_in:
            pinned = f"; it stays pinned in the store: the scope {', '.join(done.kept_in)} has it, too"
        out.text(f"  {done.files} files are not offered at {rse} any more{rules}{pinned}")
        out.result(
            {"release": str(name), "rse": rse, "datasets": [str(did) for did in done.datasets], "files": done.files,
             "rules": done.rules, "was_pinned": was_pinned, "kept_in": list(done.kept_in)}
        )  # fmt: skip


@contextmanager
def _keeper(where: str) -> Iterator[Callable[[Release], bool]]:
    """What takes back that the store or origin `where` keeps a release."""
    from paccli.owners import check_may_write  # noqa: PLC0415
    from pacstore.consignment import take_back  # noqa: PLC0415
    from pacstore.store import Store  # noqa: PLC0415

    if "://" in where:
        with _origin(where) as origin:
            yield origin.take_back
        return
    check_may_write(Path(where))
    with Store.open(Path(where), writable=True) as store:
        yield lambda name: take_back(store, name)

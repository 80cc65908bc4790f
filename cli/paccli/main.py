"""The command `pacball`: parse, one call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from paccli.sources import TrustOptions
    from pacstore.install.installation import Installed
    from pacstore.install.planning import Plan
    from pacstore.progress import Progress
    from pacstore.publish import Published
    from pacstore.readback import Report
    from pacstore.trust.targets import CatalogRelease

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of malloc.h."""

app = typer.Typer(
    name="pacball",
    help="Publish software releases, serve them, and install them at sites: reproducible, verified, resumable.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
store_app = typer.Typer(help="Look after a store.", rich_markup_mode=None, no_args_is_help=True)
catalog_app = typer.Typer(help="Look after a store's catalog.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(store_app, name="store")
app.add_typer(catalog_app, name="catalog")

ReleaseName = Annotated[str, typer.Argument(metavar="RELEASE", help="PROJECT-VERSION-PLATFORM")]
From = Annotated[str | None, typer.Option("--from", metavar="SOURCE", help="A store directory or an http(s) URL.")]
RootKeys = Annotated[Path | None, typer.Option("--root-keys", metavar="FILE", help="The root.json to trust.")]
FirstUse = Annotated[
    bool, typer.Option("--trust-on-first-use", help="Trust this URL's root now, and only it from then on.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
StoreDir = Annotated[Path, typer.Option("--store", metavar="DIR", help="The store.")]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The catalog's keys. Default: where they were made.")
]
Days = Annotated[
    float | None, typer.Option("--timestamp-days", min=0.01, help="How long the timestamp is valid. Default: 30.")
]


def run() -> None:
    """The entry point of the command."""
    _tune_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files have characters that not every terminal has.
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


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


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Publish software releases, serve them, and install them at sites: reproducible, verified, resumable."""
    if version:
        from importlib.metadata import version as installed_version  # noqa: PLC0415

        print(f"pacball {installed_version('pacball')}")
        raise typer.Exit


@app.command()
def publish(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory that holds the release.")],
    release: ReleaseName,
    to: Annotated[Path, typer.Option("--to", metavar="STORE", help="The store; made if it is missing.")],
    keys: Keys = None,
    level: Annotated[int, typer.Option("--level", min=1, max=19, help="Of zstd: higher is smaller and slower.")] = 3,
    rewrite_share: Annotated[
        float,
        typer.Option(
            "--rewrite-share", min=0.0, max=1.0, help="Store chunks again whose old frames are used less than this."
        ),
    ] = 0.5,
    read_back: Annotated[
        bool, typer.Option("--read-back", help="Decode every new frame and compare it; a tenth more CPU time.")
    ] = False,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where a new store keeps its databases: local disk.")
    ] = None,
    timestamp_days: Days = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a directory as a release. The same directory again is no change."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_or_create_catalog  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore import publish as publishing  # noqa: PLC0415
        from pacstore.limits import PackSizes  # noqa: PLC0415
        from pacstore.packing import PackingOptions  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        name = Release.parse(release)
        publishing.check_directory(directory, to)
        options = PackingOptions(level=level, read_back=read_back, sizes=PackSizes(rewrite_share=rewrite_share))
        with Store.create(to, state_dir=state_dir) as store, showing(quiet=quiet or as_json) as progress:
            catalog, ring = open_or_create_catalog(store, keys, timestamp_days, output.note)
            started = time.monotonic()
            done = publishing.publish(
                directory, name, store, catalog, keys=ring, options=options, progress=progress, now=time.time
            )
        seconds = time.monotonic() - started
        _print_published(output, done, seconds)


def _print_published(output: Output, done: Published, seconds: float) -> None:
    for key in done.created_keys:
        output.note(f"pacball: made the key {key}")
    if done.existed:
        output.text(f"{done.release} was published before, with this very tree {done.tree_digest}")
    else:
        output.text(f"published {done.release}: {done.files} files, {size(done.bytes_total)}, tree {done.tree_digest}")
        rewritten = f", {size(done.bytes_rewritten)} stored again" if done.bytes_rewritten else ""
        output.text(f"  {size(done.bytes_new)} new{rewritten}; {size(done.bytes_stored)} in new packs; {seconds:.1f} s")
    output.result({**fields(done), "seconds": round(seconds, 3)})


@app.command(name="list")
def list_releases(
    source: From = None,
    project: Annotated[str | None, typer.Option("--project", help="Only the releases of this project.")] = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_json: Json = False,
) -> None:
    """List the releases of a source."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415

        with opening(source, _trust(root_keys, trust_on_first_use), output) as opened:
            releases = opened.catalog.releases(project)
        for entry in releases:
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.published))
            output.text(f"{entry.release}  {size(entry.total_bytes)}  {entry.files} files  {when}Z")
        output.result({"releases": [_summary(entry) for entry in releases]})


def _summary(entry: CatalogRelease) -> dict[str, object]:
    return {
        "release": str(entry.release),
        "tree_digest": entry.tree_digest.hex,
        "manifest_digest": entry.manifest.digest.hex,
        "attributes_digest": entry.attributes.digest.hex,
        "placement_number": entry.placement_number,
        "bytes_total": entry.total_bytes,
        "files": entry.files,
        "published": _date(entry.published),
    }


@app.command()
def show(
    release: ReleaseName,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_json: Json = False,
) -> None:
    """Show what a release is and where its bytes are."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.install.documents import fetch_documents, fetch_placement  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        with opening(source, _trust(root_keys, trust_on_first_use), output) as opened:
            entry = opened.catalog.release(name)
            documents = fetch_documents(opened.source, entry)
            placement = fetch_placement(opened.source, entry, documents.manifest)
        tree = documents.manifest.tree
        values = _summary(entry) | {
            "entries": tree.entries,
            "symlinks": len(tree.target_lengths),
            "hard_link_groups": len(documents.attributes.group_sizes),
            "chunks": documents.manifest.chunks,
            "frames": placement.frames,
            "packs": len(placement.pack_ids),
            "bytes_to_download": int(placement.frame_lengths.sum(dtype="u8")),
        }
        for key, value in values.items():
            output.text(f"{key:18} {value}")
        output.result(values)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="The old release.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The new release.")],
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_json: Json = False,
) -> None:
    """Show what changes from release A to B, and what an update would move."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.difference import compare  # noqa: PLC0415
        from pacstore.errors import printable  # noqa: PLC0415
        from pacstore.install.documents import fetch_documents, fetch_placement  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        names = Release.parse(old), Release.parse(new)
        with opening(source, _trust(root_keys, trust_on_first_use), output) as opened:
            before, after = (opened.catalog.release(name) for name in names)
            documents = fetch_documents(opened.source, before), fetch_documents(opened.source, after)
            placement = fetch_placement(opened.source, after, documents[1].manifest)
        found = compare(*documents, placement)
        for mark, paths in (("-", found.removed), ("+", found.added), ("~", found.changed)):
            for path in paths:
                output.text(f"{mark} {printable(path)}")
        output.text(
            f"{len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed, {found.unchanged} unchanged"
        )
        output.text(
            f"{found.chunks_new} chunks new ({size(found.bytes_new)}), {found.chunks_shared} shared; "
            f"an update downloads {size(found.bytes_to_download)} in {found.requests} requests"
        )
        output.result({"from": str(names[0]), "to": str(names[1]), **fields(found)})


@app.command()
def install(
    release: ReleaseName,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The install root.")] = None,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Only say what would be done.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Install a release under a root and switch to it; what was interrupted continues."""
    with reporting(as_json=as_json) as output:
        from paccli.places import load_settings  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore import install as installer  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        where = root or Path(load_settings().root or "")
        if where == Path():
            raise Refused(
                "no install root is given", place="--root", hint="name a directory, or set root in config.toml"
            )
        with (
            opening(source, _trust(root_keys, trust_on_first_use), output) as opened,
            showing(quiet=quiet or as_json) as progress,
        ):
            entry = opened.catalog.release(name)
            refresh = lambda: opened.refresh(name)  # noqa: E731
            if plan_only:
                planned = installer.plan(entry, source=opened.source, root=where, progress=progress, refresh=refresh)
                return _print_plan(output, planned)
            done = installer.install(
                entry, source=opened.source, root=where, progress=progress, now=time.time, refresh=refresh
            )
        _print_installed(output, done)
    return None


def _print_plan(output: Output, planned: Plan) -> None:
    if planned.already_installed:
        output.text(f"{planned.release} is installed already")
    output.text(f"download {size(planned.bytes_to_download)} in {planned.requests} requests, without documents")
    output.text(f"reuse {size(planned.bytes_reused)} of {size(planned.bytes_total)}")
    for reuse in planned.reuse:
        output.text(f"  {size(reuse.bytes)} from {reuse.name}")
    output.text(f"needs {size(planned.disk_bytes)} of disk and {planned.inodes} inodes")
    if planned.switched_from:
        output.text(f"current switches from {planned.switched_from}")
    output.result(fields(planned))


def _print_installed(output: Output, done: Installed) -> None:
    if done.already_installed:
        output.text(f"{done.release} was installed before: {done.path}")
    else:
        output.text(f"installed {done.release}: {size(done.bytes_total)} in {done.path}")
        output.text(
            f"  {size(done.bytes_downloaded)} downloaded in {done.requests} requests, "
            f"{size(done.bytes_reused)} reused, {done.seconds:.1f} s"
        )
    if done.switched:
        output.text(f"  current/{done.release.project}/{done.release.platform} leads to it now")
    output.result({**fields(done), "seconds": round(done.seconds, 3)})


@app.command()
def verify(
    release: ReleaseName,
    root: Annotated[Path, typer.Option("--root", metavar="DIR", help="The install root.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare an installed release with what was signed, file by file; needs no network. Exit code 1 if it differs."""
    with reporting(as_json=as_json) as output:
        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.errors import printable  # noqa: PLC0415
        from pacstore.install.verify import verify as check_installed  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        with showing(quiet=quiet or as_json) as progress:
            damage = check_installed(root, name, progress)
        for one in damage:
            output.text(f"{one.fault}: {printable(one.path)} {printable(one.detail)}".rstrip())
        output.text(f"{name} is as it was signed" if not damage else f"{name}: {len(damage)} differences")
        output.result({"release": str(name), "intact": not damage, "damage": [fields(one) for one in damage]})
        if damage:
            raise SystemExit(DAMAGED)


@app.command()
def serve(
    store: StoreDir,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Port 0 takes any free one.")
    ] = "127.0.0.1:8080",
    as_json: Json = False,
) -> None:
    """Serve a store over HTTP until it is told to stop (SIGTERM, ^C)."""
    with reporting(as_json=as_json) as output:
        from pacmirror.config import Config, parse_address  # noqa: PLC0415
        from pacmirror.serve import serve as run_daemon  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        host, port = parse_address(listen)
        Store.open(store, writable=False)

        def ready(url: str) -> None:
            output.text(f"serving {store} at {url}")
            output.result({"url": url})
            output.flush()  # whoever started the daemon waits for this line

        run_daemon(Config(store=store, host=host, port=port), ready=ready)


@store_app.command()
def check(store: StoreDir, as_json: Json = False, quiet: Quiet = False) -> None:
    """Read everything back and compare it with what it must be. Exit code 1 if something is damaged."""
    with reporting(as_json=as_json) as output:
        from pacstore.check import catalog_releases  # noqa: PLC0415
        from pacstore.check import check as check_store  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened, _showing(quiet, as_json) as progress:
            report = check_store(opened, catalog_releases(opened), progress=progress)
        _print_report(output, report)


@store_app.command()
def reindex(store: StoreDir, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the chunk index anew from the packs; damaged packs are named and left out."""
    with reporting(as_json=as_json) as output:
        from pacstore.reindex import reindex as make_index  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened, _showing(quiet, as_json) as progress:
            report = make_index(opened, progress=progress)
        _print_report(output, report)


@store_app.command()
def stats(store: StoreDir, as_json: Json = False) -> None:
    """Show how much a store holds."""
    with reporting(as_json=as_json) as output:
        from pacstore.check import statistics  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=False) as opened:
            found = statistics(opened)
        for key, value in fields(found).items():
            output.text(f"{key:18} {value}")
        output.result(fields(found))


@catalog_app.command()
def refresh(store: StoreDir, keys: Keys = None, timestamp_days: Days = None, as_json: Json = False) -> None:
    """Sign the catalog's timestamp anew, so that it does not expire; needs the online key only."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog, ring = open_catalog(opened, keys, timestamp_days)
            with opened.catalog_lock():
                version = catalog.refresh(ring, now=time.time())
            expires = min(catalog.expiries().values())
        output.text(f"the catalog has version {version}; the first of its roles expires at {_date(expires)}")
        output.result({"version": version, "expires": _date(expires)})


@catalog_app.command()
def renew(store: StoreDir, keys: Keys = None, as_json: Json = False) -> None:
    """Sign root, targets and lines anew, as far as their keys are here, so that a quiet catalog does not expire."""
    with reporting(as_json=as_json) as output:
        from paccli.keychain import open_catalog  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        with Store.open(store, writable=True) as opened:
            catalog, ring = open_catalog(opened, keys, None)
            with opened.catalog_lock():
                roles = catalog.renew(ring, now=time.time())
            expiries = catalog.expiries()
        for role in roles:
            output.text(f"{role}: signed anew, expires at {_date(expiries[role])}")
        output.result({"roles": roles, "expires": {role: _date(at) for role, at in expiries.items()}})


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print_report(output: Output, report: Report) -> None:
    from paccli.exits import DAMAGED  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    for damage in report.damage:
        output.text(f"damaged: {printable(damage.place)}: {printable(damage.fault)}")
    for release in report.releases:
        output.text(f"damaged release: {release}")
    read = (
        f"{report.packs} packs, {report.frames} frames, {size(report.bytes_read)}, {report.releases_checked} releases"
    )
    output.text(f"{len(report.damage)} faults in {read}" if report.damage else f"all is well: {read}")
    output.result({**fields(report), "intact": not report.damage})
    if report.damage:
        raise SystemExit(DAMAGED)


def _showing(quiet: bool, as_json: bool) -> AbstractContextManager[Progress]:
    from paccli.progress import showing  # noqa: PLC0415

    return showing(quiet=quiet or as_json)


def _trust(root_keys: Path | None, on_first_use: bool) -> TrustOptions:
    from paccli.sources import TrustOptions  # noqa: PLC0415

    return TrustOptions(root_keys, on_first_use)

"""Commands for sites that no network reaches: export, import."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import (
    AsOf,
    FirstUse,
    From,
    Json,
    LimitRate,
    Progressing,
    ProgressMode,
    Quiet,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, date, fields, print_sources, reporting, size

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.store import Store
    from pacstore.volumes.exporting import Exported
    from pacstore.volumes.importing import Imported
    from pacstore.volumes.volume import Volume

_SHOWN = 10


def export_releases(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file; with --split, FILE.001, FILE.002 and so on."),
    ],
    releases: Annotated[
        list[str] | None, typer.Argument(metavar="[RELEASE...]", help="What to export; nothing: the catalog alone.")
    ] = None,
    source: From = None,
    since: Annotated[
        list[str] | None,
        typer.Option(
            "--since", metavar="RELEASE", help="The other side holds this one: leave out what it has. Repeatable."
        ),
    ] = None,
    without_packs: Annotated[
        bool,
        typer.Option(
            "--without-packs",
            help="Of one release: all but its packs, which pacball import --from gets from elsewhere.",
        ),
    ] = False,
    split: Annotated[
        str | None, typer.Option("--split", metavar="SIZE", help="Volumes of at most so many bytes: 4G, 700M, 25Gi.")
    ] = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    limit_rate: LimitRate = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Write releases, with the signed catalog, into a file that is carried to where no network leads: see pacball import.

    Each volume is a tar. What was interrupted continues; the same releases and catalog give the same bytes.
    """
    with reporting(as_json=as_json, progress=progress) as out:
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.amounts import parse_bytes, parse_rate  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.source import states_of  # noqa: PLC0415
        from pacstore.volumes import exporting  # noqa: PLC0415

        wanted, held = ([Release.parse(name) for name in names or ()] for names in (releases, since))
        if without_packs and (len(set(wanted)) != 1 or held or split is not None):
            hint = "name one release, and neither --since nor --split"
            raise Refused("is for one release by itself", place="--without-packs", hint=hint)
        split_bytes = parse_bytes(split, place="--split") if split is not None else None
        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        started = time.monotonic()
        believed = TrustOptions(root_keys, trust_on_first_use, as_of)
        with opening(source, believed, out, limit_rate=rate, releases=(*wanted, *held)) as opened:
            for name in (*wanted, *held):
                opened.release(name)  # which says what there is instead, and refuses what has expired
            with showing(out, quiet=quiet, sources=lambda: states_of(opened.source)) as shown:
                shown.begin("preparing", None)
                places = opened.source, opened.catalog_source
                if without_packs:
                    plan, _ = exporting.plan_bundle(*places, wanted[0], root=opened.root, clock=time.time)
                else:
                    plan = exporting.plan_export(
                        *places, wanted, held, root=opened.root, split_bytes=split_bytes, clock=time.time
                    )
                done = exporting.write_export(plan, opened.source, output, is_split=split is not None, progress=shown)
            print_sources(out, states_of(opened.source))
        _print_exported(out, done, time.monotonic() - started, without_packs=without_packs)


def _print_exported(output: Output, done: Exported, seconds: float, *, without_packs: bool) -> None:
    what = _names(done.releases) if done.releases else "the catalog alone"
    where = str(done.volumes[0]) if len(done.volumes) == 1 else f"{len(done.volumes)} volumes, {done.volumes[0]} and on"
    output.text(f"exported {what} to {where}: {size(done.bytes_total)}, {seconds:.1f} s")
    if done.since:
        output.text(f"  {size(done.bytes_since)} are left out: the other side must hold {_names(done.since)} whole")
    if without_packs:
        output.text(f"  its packs, {size(done.bytes_since)}, are left out")
    if done.bytes_kept:
        output.text(f"  {size(done.bytes_kept)} were there from an earlier attempt")
    if without_packs:
        output.text(f"  there: pacball import {done.volumes[0].name} --to STORE --from SOURCE")
    else:
        volumes = done.volumes[0].with_suffix(".*") if len(done.volumes) > 1 else done.volumes[0]
        output.text(f"  there: pacball import {volumes.name} --to STORE; the first time with --root-keys root.json")
    output.result({**fields(done), "seconds": round(seconds, 3)})


def import_volumes(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="What pacball export wrote: any of its volumes.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="STORE", help="A mirror's store; made if it is missing.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SOURCE[,SOURCE...]",
            help="Where packs come from that are neither in FILE nor here: store directories, http(s) URLs. Nobody there is "
            "trusted.",
        ),
    ] = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where a new store keeps its databases: local disk.")
    ] = None,
    limit_rate: LimitRate = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Take an export into a store, which is a mirror then: all of it verified, before anything in the store changes.

    Volumes may come one after another, in any order. Killed anywhere, the same command goes on. The catalog and the releases
    appear when all that they need is there. With --from, what is missing is fetched: so a file of --without-packs is enough.
    """
    with reporting(as_json=as_json, progress=progress) as out:
        from paccli.owners import check_may_write  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore.amounts import parse_rate  # noqa: PLC0415
        from pacstore.source import states_of  # noqa: PLC0415
        from pacstore.volumes import judging  # noqa: PLC0415
        from pacstore.volumes.importing import take_in  # noqa: PLC0415

        check_may_write(to)
        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        started = time.monotonic()
        with _volumes(files) as volumes, _packs_from(source, volumes, rate, out) as others:
            store = judging.open_target(to)
            root = _trusted_root(volumes[0], store, root_keys, out, on_first_use=trust_on_first_use)
            with showing(out, quiet=quiet, sources=lambda: states_of(others) if others else ()) as shown:
                judged = judging.judge(
                    volumes, store, root=root, clock=time.time, progress=shown, others=others is not None
                )
                done = take_in(
                    volumes, judged, to, root=root, state_dir=state_dir, clock=time.time, progress=shown, others=others
                )  # fmt: skip
            if others is not None:
                print_sources(out, states_of(others))
        _print_imported(out, done, to, time.monotonic() - started, fetching=source is not None)


@contextmanager
def _volumes(files: Sequence[Path]) -> Iterator[list[Volume]]:
    from pacstore.volumes.volume import Volume  # noqa: PLC0415

    with ExitStack() as stack:
        yield [stack.enter_context(closing(Volume.open(path))) for path in files]


@contextmanager
def _packs_from(
    where: Sequence[str] | None, volumes: Sequence[Volume], rate: int | None, output: Output
) -> Iterator[Source | None]:
    """The sources that are named, as one; None if none is."""
    if not where:
        yield None
        return
    from paccli.sources import opening_packs  # noqa: PLC0415

    releases = volumes[0].contents.releases if volumes else ()
    with opening_packs(where, output, limit_rate=rate, releases=releases) as source:
        yield source


def _trusted_root(
    volume: Volume, store: Store | None, root_keys: Path | None, output: Output, *, on_first_use: bool
) -> bytes:
    """The root that the volume's catalog must descend from: the named one, the store's own, a pinned one, or what it shows."""
    from paccli.anchors import read_root  # noqa: PLC0415
    from paccli.places import roots_dirs  # noqa: PLC0415
    from paccli.settings import load_settings  # noqa: PLC0415
    from pacstore.errors import Untrusted  # noqa: PLC0415
    from pacstore.trust.pins import fetch_root, find_pin, fingerprint, read_pins  # noqa: PLC0415
    from pacstore.volumes.judging import first_root  # noqa: PLC0415

    if root_keys is not None:
        return read_root(root_keys)
    here = first_root(store) if store is not None else None
    if here is not None:
        return here
    configured = load_settings().root_keys
    if configured:
        return read_root(Path(configured))
    pin = find_pin(volume, read_pins(roots_dirs()))
    if pin is not None:
        return pin.root
    root = fetch_root(volume)
    if not on_first_use:
        raise Untrusted(
            f"no root is pinned for this export: its first root has the fingerprint {fingerprint(root)}",
            place=volume.name,
            hint="compare that with what the collaboration publishes; then give --root-keys FILE, the root.json from there, "
            "or --trust-on-first-use",
        )
    output.note(f"pacball: trusting the root of {volume.name}; compare its fingerprint: {fingerprint(root)}")
    return root


def _print_imported(output: Output, done: Imported, to: Path, seconds: float, *, fetching: bool) -> None:
    what = f"{_names(done.releases)}, with " if done.releases else ""
    came = f"{done.packs_copied} packs came ({size(done.bytes_copied)}), {done.packs_kept} were here before"
    if fetching:
        fetched = f"{done.packs_fetched} packs were fetched ({size(done.bytes_fetched)}), the others were here"
        came = f"{came}, {fetched}" if done.packs_copied + done.packs_kept else fetched
    came += f"; {seconds:.1f} s"
    if done.is_complete:
        output.text(f"{to} holds {what}version {done.catalog_version} of the catalog: {came}")
    else:
        output.text(f"{to}: {came}")
        numbers = ", ".join(map(str, done.volumes_missing[:_SHOWN]))
        more = f" and {len(done.volumes_missing) - _SHOWN} more" if len(done.volumes_missing) > _SHOWN else ""
        which = "volume" if len(done.volumes_missing) == 1 else "volumes"
        output.text(f"  not complete yet: {which} {numbers}{more} of {done.volumes} must be imported, too")
    for release in done.outdated[:_SHOWN]:
        output.warn(f"{release} cannot be installed from here until it is exported again, too: its packs were replaced")
    if done.expires < time.time():
        output.warn(f"the catalog expired at {date(done.expires)}: installers need a newer one, or --as-of")
    output.result({**fields(done), "expires": date(done.expires), "seconds": round(seconds, 3)})


def _names(releases: Sequence[Release]) -> str:
    return str(releases[0]) if len(releases) == 1 else f"{len(releases)} releases"

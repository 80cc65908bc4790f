"""Commands for who publishes and looks: publish, list, show, diff."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import Days, FirstUse, From, Json, Keys, Quiet, ReleaseName, RootKeys, TrustOptions
from paccli.output import Output, date, fields, reporting, size

if TYPE_CHECKING:
    from pacstore.publish import Published
    from pacstore.trust.targets import CatalogRelease


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

        with opening(source, TrustOptions(root_keys, trust_on_first_use), output) as opened:
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
        "published": date(entry.published),
    }


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
        with opening(source, TrustOptions(root_keys, trust_on_first_use), output) as opened:
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
        with opening(source, TrustOptions(root_keys, trust_on_first_use), output) as opened:
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

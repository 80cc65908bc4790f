"""Commands for who publishes and looks: publish, list, show, diff."""

from __future__ import annotations

import sys
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import (
    AsOf,
    Days,
    FirstUse,
    From,
    Json,
    Keys,
    PassphraseFile,
    Progressing,
    ProgressMode,
    Quiet,
    ReleaseName,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, date, fields, reporting, size
from paccli.published import print_published

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from paccli.sources import Opened
    from pacstore.original import Original
    from pacstore.packing import PackingOptions
    from pacstore.progress import Progress
    from pacstore.provenance import Artifact, Summary
    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.client import VerifiedCatalog
    from pacstore.trust.targets import CatalogRelease

_REWRITE_SHARE = 0.5
_Material = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|FILE",
        help="The directory that holds the release; or a tar of it (plain, gzip, xz, zstd, bzip2), a pacball, or another "
        "script with a tar at its end.",
    ),
]
_RewriteShare = Annotated[
    float,
    typer.Option(
        "--rewrite-share", min=0.0, max=1.0, help="Store chunks again whose old frames are used less than this."
    ),
]
_StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Where a new store keeps its databases: local disk. With a URL: what is not sent yet, some 500 MB.",
    ),
]
_WithPacball = Annotated[
    bool,
    typer.Option("--pacball", help="Also take the digests of its pacball, which pacball serve then has at once."),
]
_KeepStream = Annotated[
    bool,
    typer.Option(
        "--keep-stream", help="Store a compressed FILE as it is beside its files, and do not try how it was made."
    ),
]


def publish(
    source: _Material,
    release: ReleaseName,
    to: Annotated[
        str, typer.Option("--to", metavar="STORE|URL", help="The store, made if it is missing; or an origin's URL.")
    ],
    keys: Keys = None,
    level: Annotated[int, typer.Option("--level", min=1, max=19, help="Of zstd: higher is smaller and slower.")] = 3,
    rewrite_share: _RewriteShare = _REWRITE_SHARE,
    read_back: Annotated[
        bool, typer.Option("--read-back", help="Decode every new frame and compare it; a tenth more CPU time.")
    ] = False,
    state_dir: _StateDir = None,
    sign_later: Annotated[
        bool, typer.Option("--sign-later", help="Without the line's key: its manager signs with pacball trust sign.")
    ] = False,
    pacball: _WithPacball = False,
    keep_stream: _KeepStream = False,
    passphrase_file: PassphraseFile = None,
    timestamp_days: Days = None,
    root_keys: RootKeys = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Publish a directory, or an archive of one, as a release. The same again is no change.

    A FILE is not unpacked: its files become those of the release, and what lies between them is stored beside them, so that
    pacball fetch --original gives the very FILE back. A compressed one needs room for the plain tar in the store meanwhile.
    """
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.keychain import open_or_create_catalog  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from pacstore import publish as publishing  # noqa: PLC0415
        from pacstore.limits import PackSizes  # noqa: PLC0415
        from pacstore.packing import PackingOptions  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        name = Release.parse(release)
        options = PackingOptions(level=level, read_back=read_back, sizes=PackSizes(rewrite_share=rewrite_share))
        if "://" in to:
            _refuse_options(
                _of_stores(sign_later, timestamp_days, rewrite_share, pacball),
                "is for who has the store",
                "leave it out",
            )
            return _publish_to_url(
                source, name, to, keys, passphrase_file, root_keys, state_dir, options, output, quiet=quiet,
                keep_stream=keep_stream,
            )  # fmt: skip
        _refuse_options({"--root-keys": root_keys}, "is for URLs: a store is its own", "leave it out")
        path = Path(to)
        publishing.check_source(source, path)
        with Store.create(path, state_dir=state_dir) as store, showing(output, quiet=quiet) as shown:
            catalog, ring = open_or_create_catalog(store, keys, timestamp_days, passphrase_file, output.note)
            started = time.monotonic()
            done = publishing.publish(
                source,
                name,
                store,
                catalog,
                keys=ring,
                options=options,
                progress=shown,
                now=time.time,
                sign_later=sign_later,
                keep_stream=keep_stream,
            )
            seconds = time.monotonic() - started
            digests = _pacball_digests(store, catalog.release(name), shown) if pacball else {}
        print_published(output, done, seconds, digests, keep_stream=keep_stream)
    return None


def _of_stores(
    sign_later: bool, timestamp_days: float | None, rewrite_share: float, pacball: bool
) -> dict[str, object]:
    """The options that have no effect with a URL, and whether they are given."""
    return {
        "--sign-later": sign_later,
        "--timestamp-days": timestamp_days,
        "--rewrite-share": rewrite_share != _REWRITE_SHARE,
        "--pacball": pacball,
    }


def _publish_to_url(
    source: Path, name: Release, url: str, keys: Path | None, passphrase_file: Path | None, root_keys: Path | None,
    work: Path | None, options: PackingOptions, output: Output, *, quiet: bool, keep_stream: bool,
) -> None:  # fmt: skip
    from paccli.remote import publish_to_url  # noqa: PLC0415

    started = time.monotonic()
    done = publish_to_url(
        source,
        name,
        url,
        keys=keys,
        passphrase_file=passphrase_file,
        root_keys=root_keys,
        options=options,
        output=output,
        quiet=quiet,
        work=work,
        keep_stream=keep_stream,
    )
    print_published(output, done, time.monotonic() - started, {}, keep_stream=keep_stream)


def _refuse_options(given: Mapping[str, object], message: str, hint: str) -> None:
    from pacstore.errors import Refused  # noqa: PLC0415

    for option, value in given.items():
        if value:
            raise Refused(message, place=option, hint=hint)


def _pacball_digests(store: Store, entry: CatalogRelease | None, progress: Progress) -> dict[str, object]:
    """The digests of a release's pacball for people and programs; none while the release waits for signatures."""
    from pacstore.pacball.recording import record_digests  # noqa: PLC0415
    from pacstore.pacball.stub import file_name  # noqa: PLC0415

    if entry is None:
        progress.warn("the digests of its pacball are taken by pacball serve, once it is in the catalog")
        return {}
    found = record_digests(store, entry, progress)
    return {
        "pacball": file_name(entry.release, entry.tree_digest),
        "pacball_bytes": found.total_bytes,
        "sha256": found.sha256.hex(),
        "md5": found.md5.hex(),
        "adler32": f"{found.adler32:08x}",
    }


def list_releases(
    source: From = None,
    project: Annotated[str | None, typer.Option("--project", help="Only the releases of this project.")] = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """List the releases of a source."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415

        with opening(source, TrustOptions(root_keys, trust_on_first_use, as_of), output) as opened:
            releases = opened.first(lambda catalog: catalog.releases(project))
            lapsed = _lapsed(opened.catalog, releases, output)
        for entry in releases:
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.published))
            marks = "".join(f"  {mark}" for mark in _marks(entry, lapsed))
            output.text(f"{entry.release}  {size(entry.total_bytes)}  {entry.files} files  {when}Z{marks}")
        output.result({"releases": [_summary(entry, lapsed) for entry in releases]})


def _marks(entry: CatalogRelease, lapsed: Collection[Release]) -> list[str]:
    """What sets a release apart, for people: that it was withdrawn, and why; that its line keeps it no longer."""
    from pacstore.errors import printable  # noqa: PLC0415

    marks = []
    if entry.withdrawal is not None:
        instead = f"; use {entry.withdrawal.replaced_by}" if entry.withdrawal.replaced_by is not None else ""
        marks.append(f"withdrawn {date(entry.withdrawal.at)[:10]}: {printable(entry.withdrawal.reason)}{instead}")
    if entry.release in lapsed:
        marks.append("lapsed")
    return marks


def _summary(entry: CatalogRelease, lapsed: Collection[Release]) -> dict[str, object]:
    withdrawn = None
    if entry.withdrawal is not None:
        found = entry.withdrawal
        replaced_by = str(found.replaced_by) if found.replaced_by is not None else None
        withdrawn = {"at": date(found.at), "reason": found.reason, "replaced_by": replaced_by}
    return {
        "release": str(entry.release),
        "tree_digest": entry.tree_digest.hex,
        "manifest_digest": entry.manifest.digest.hex,
        "attributes_digest": entry.attributes.digest.hex,
        "placement_number": entry.placement_number,
        "bytes_total": entry.total_bytes,
        "files": entry.files,
        "published": date(entry.published),
        "withdrawn": withdrawn,
        "lapsed": entry.release in lapsed,
        "provenance_digest": entry.provenance.digest.hex if entry.provenance is not None else None,
    }


def show(
    release: ReleaseName,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Print the provenance document itself, as it was attached.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a release is, where its bytes are, and what its provenance states."""
    with reporting(as_json=as_json) as output:
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        with opening(source, TrustOptions(root_keys, trust_on_first_use, as_of), output, releases=[name]) as opened:
            entry = opened.release(name)
            if provenance:
                return _print_document(output, opened, entry)
            counted = opened.catalog.releases(name.project) if opened.catalog.retain(name.project) else []
            lapsed = _lapsed(opened.catalog, counted, output)
            extent = _extent(opened, entry, output, gone=entry.withdrawal is not None or name in lapsed)
            stated = _stated(opened, entry, output)
        values = _summary(entry, lapsed) | extent
        for mark in _marks(entry, lapsed):
            output.text(mark)
        for key, value in values.items():
            if key not in ("withdrawn", "lapsed") and value is not None:
                output.text(f"{key:18} {value}")
        _print_stated(output, stated)
        output.result(values | {"provenance": fields(stated) if stated is not None else None})
    return None


def _extent(opened: Opened, entry: CatalogRelease, output: Output, *, gone: bool) -> dict[str, object]:
    """What the documents of a release say; nothing where it may be gone, and is: the catalog's own words are shown then."""
    from pacstore.declaration import declares  # noqa: PLC0415
    from pacstore.errors import NotFound  # noqa: PLC0415
    from pacstore.install.documents import fetch_documents, fetch_placement  # noqa: PLC0415

    try:
        documents = fetch_documents(opened.source, entry)
        placement = fetch_placement(opened.source, entry, documents.manifest)
    except NotFound as error:
        if not gone:
            raise
        output.note(f"pacball: this source has the release no longer: {error}")
        return {}
    return {
        "has_actions": declares(documents.manifest.tree),
        "entries": documents.manifest.tree.entries,
        "symlinks": len(documents.manifest.tree.target_lengths),
        "hard_link_groups": len(documents.attributes.group_sizes),
        "chunks": documents.manifest.chunks,
        "frames": placement.frames,
        "packs": len(placement.pack_ids),
        "bytes_to_download": int(placement.frame_lengths.sum(dtype="u8")),
        **_original_values(documents.manifest.original),
    }


def _original_values(original: Original | None) -> dict[str, object]:
    """What `fetch --original` gives; nothing where there is none."""
    if original is None:
        return {}
    return {
        "original": original.name,
        "original_bytes": original.length,
        "original_sha256": original.sha256.hex(),
        "original_made_by": str(original.recompression) if original.recompression else None,
    }


def _print_document(output: Output, opened: Opened, entry: CatalogRelease) -> None:
    from pacstore.errors import printable  # noqa: PLC0415
    from pacstore.provenance import fetch_provenance  # noqa: PLC0415

    data = fetch_provenance(opened.source, entry)
    if sys.stdout.isatty():
        # For eyes alone: whoever wrote it could steer the terminal.
        for line in data.decode("utf-8", "replace").expandtabs().split("\n"):
            output.text(printable(line))
    elif not output.as_json:
        # As it is, byte by byte: others verify signatures over it.
        sys.stdout.buffer.write(data)
    output.result({"release": str(entry.release), "document": data.decode("utf-8", "replace")})


def _stated(opened: Opened, entry: CatalogRelease, output: Output) -> Summary | None:
    """What the provenance states; None where there is none, or none that can be read, which is said then."""
    from pacstore.errors import Corrupt, NotFound  # noqa: PLC0415
    from pacstore.provenance import Statement, fetch_provenance  # noqa: PLC0415

    if entry.provenance is None:
        return None
    try:
        data = fetch_provenance(opened.source, entry)
    except NotFound:
        output.note("pacball: this source does not have the provenance that the catalog names; another one may")
        return None
    try:
        return Statement.parse(data, place=f"the provenance of {entry.release}").summary()
    except Corrupt as error:
        output.note(f"pacball: the provenance is signed, but cannot be read: {error}")
        return None


def _print_stated(output: Output, stated: Summary | None) -> None:
    from pacstore.errors import printable  # noqa: PLC0415

    if stated is None:
        return
    keys = ", ".join(stated.signed_by_unverified) or "nobody"
    output.text("its provenance states (the line's key signed the document; no signature inside it was verified):")
    for label, text in (
        ("predicate", stated.predicate_type),
        ("built by", stated.builder),
        ("build type", stated.build_type),
        ("started", stated.started),
        ("finished", stated.finished),
        ("signed by", f"{keys} (not verified)"),
    ):
        if text:
            output.text(f"  {label:16} {printable(text)}")
    for label, artifacts, count in (
        ("source", stated.sources, stated.source_count),
        ("subject", stated.subjects, stated.subject_count),
    ):
        for line in _artifact_lines(artifacts, count):
            output.text(f"  {label:16} {printable(line)}")


def _artifact_lines(artifacts: Sequence[Artifact], count: int) -> list[str]:
    lines = [" ".join([one.name, *(f"{k}:{v}" for k, v in one.digests.items())]).strip() for one in artifacts]
    return [*lines, f"and {count - len(artifacts)} more"] if count > len(artifacts) else lines


def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="The old release.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The new release.")],
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
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
        with opening(source, TrustOptions(root_keys, trust_on_first_use, as_of), output, releases=names) as opened:
            before, after = (opened.release(name) for name in names)
            documents = fetch_documents(opened.source, before), fetch_documents(opened.source, after)
            placement = fetch_placement(opened.source, after, documents[1].manifest)
        for entry in (before, after):
            for mark in _marks(entry, ()):
                output.note(f"pacball: {entry.release}: {mark}")
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


def _lapsed(catalog: VerifiedCatalog, releases: Sequence[CatalogRelease], output: Output) -> set[Release]:
    """Those of the `releases`, which are whole lines, that their lines keep no longer."""
    from pacstore.errors import Corrupt, NewerFormat  # noqa: PLC0415
    from pacstore.trust.retention import Retain, lapsed  # noqa: PLC0415

    found: set[Release] = set()
    for project, line in groupby(releases, key=lambda entry: entry.release.project):
        value = catalog.retain(project)
        if value is None:
            continue
        try:
            found |= lapsed(list(line), Retain.from_fields(value, place=project), time.time())
        except (Corrupt, NewerFormat) as error:
            # Nothing is concluded from a rule that is not understood.
            output.note(f"pacball: {error}")
    return found

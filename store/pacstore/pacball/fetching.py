"""Fetching a pacball: the chunks of a release, from a source and from what is here, become the file that `building` would write.

It grows under its name with `.partial` at the end. Every chunk is written where it belongs once it is verified, in any order;
an interrupted fetch reads back what stands there and goes on. Nothing is believed that was not hashed, so two fetches into one
place at once cost work and nothing else.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.install.crew import Crew
from pacstore.install.documents import Documents, Refresh, fetch_all, fetch_placement, refreshed
from pacstore.install.downloading import Downloading
from pacstore.install.options import DEFAULTS, InstallOptions
from pacstore.install.tree.disk import disk_at
from pacstore.install.trust import check_withdrawn, checking_withdrawn
from pacstore.install.wanted import Wanted
from pacstore.install.writeback import writing_back
from pacstore.pacball.checking import check_payload
from pacstore.pacball.filling import PARTIAL, Filling, NoTools
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import STUB_BYTES, Stub
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.source import PerhapsAbsent, Source
from pacstore.trust.targets import CatalogRelease


@dataclass(frozen=True)
class Fetched:
    """A pacball that was fetched. Bytes: of the whole file; of what was downloaded; of the release's files, of those that an
    earlier attempt had left, and a seed had. `existed`: it was there already, and is what it must be.
    """

    path: Path
    stub: Stub
    total_bytes: int
    bytes_downloaded: int = 0
    bytes_resumed: int = 0
    bytes_seeded: int = 0
    existed: bool = False


def fetch(
    release: CatalogRelease,
    *,
    source: Source,
    output: Path,
    progress: Progress,
    refresh: Refresh | None = None,
    seeds: tuple[Path, ...] = (),
    allow_withdrawn: bool = False,
    options: InstallOptions = DEFAULTS,
) -> Fetched:
    """Write the pacball of `release` to the file `output` or, if that is a directory, to a file of the pacball's name in it.

    `seeds`: other pacballs, tars or directories to take chunks from. When this returns the file is whole and durable. A damaged
    pacball of the release under that name is put right. Raises Refused where something else has the name, and for a withdrawn
    release that is not allowed; Unavailable when the disk is full or fails; NotFound for a seed that is not there; and what the
    source raises.
    """
    check_withdrawn(release, allowed=allow_withdrawn, warn=progress.warn)
    refresh = refresh if allow_withdrawn else checking_withdrawn(refresh)
    progress.begin("preparing", None)
    before = source.traffic.bytes_downloaded
    documents, placement, release = fetch_all(source, release, refresh)
    payload = Payload(documents.manifest.tree, documents.attributes)
    stub = Stub(
        release.release, release.tree_digest, payload.total_bytes, files=release.files, disk_kib=payload.disk_kib
    )
    path = output / stub.file_name if output.is_dir() else output
    if not path.parent.is_dir():
        raise Refused("is not a directory", place=str(path.parent), hint="make it, or name another with -o")
    with disk_at(str(path)):
        if os.path.lexists(path) and _is_whole(path, stub, payload, documents, progress):
            return Fetched(path, stub, STUB_BYTES + payload.total_bytes, existed=True)
        wanted = Wanted(documents.manifest, documents.attributes)
        total_bytes = STUB_BYTES + payload.total_bytes
        with closing(Filling(wanted, STUB_BYTES + payload.contents, total_bytes, path, progress)) as filling:
            replaced = Replaced(release, source, refresh, documents)
            resumed, seeded = fill(filling, placement, source, seeds, replaced, progress=progress, options=options)
            stub = _finish(filling, payload, documents, stub, progress)
    downloaded = source.traffic.bytes_downloaded - before
    return Fetched(path, stub, STUB_BYTES + stub.payload_bytes, downloaded, resumed, seeded)


def fill(
    filling: Filling,
    placement: Placement,
    source: Source,
    seeds: tuple[Path, ...],
    replaced: Replaced,
    *,
    progress: Progress,
    options: InstallOptions,
) -> tuple[int, int]:
    """Bring all chunks; the bytes of files that an earlier attempt had left, and that seeds had. Raises as `fetch` does."""
    resumed = filling.resume()
    seeded = sum(filling.take_seed(seed) for seed in seeds)
    filling.check_space()
    downloading = Downloading(
        filling.wanted, filling.put, source, replaced=replaced, progress=progress, options=options
    )
    with writing_back(filling.sync, lambda: filling.written_bytes), Crew(options.workers, NoTools) as crew:
        downloading.download(crew, placement)
    return resumed, seeded


def _finish(filling: Filling, payload: Payload, documents: Documents, stub: Stub, progress: Progress) -> Stub:
    """Write all that is not content, read everything back, and give it its name, durably. `stub` lacks only the SHA-256."""
    for begin, piece, _ in payload.around_contents():
        filling.write(STUB_BYTES + begin, piece)
    tree = documents.manifest.tree
    digest = check_payload(filling.descriptor, payload, tree, place=filling.partial, progress=progress)
    whole = stub.with_digest(digest)
    filling.write(0, whole.encode())
    filling.publish()
    return whole


def _is_whole(path: Path, stub: Stub, payload: Payload, documents: Documents, progress: Progress) -> bool:
    """Whether `path` is the pacball. A damaged one becomes what the fetch goes on with; anything else is Refused."""
    if path.is_symlink() or not path.is_file() or not stub.is_like(_beginning(path)):
        raise Refused("is there already, and is not this pacball", place=str(path), hint="name another file with -o")
    with open(path, "rb") as file:
        try:
            digest = check_payload(file.fileno(), payload, documents.manifest.tree, place=path, progress=progress)
            file.seek(0)
            if (
                file.read(STUB_BYTES) == stub.with_digest(digest).encode()
                and path.stat().st_size == STUB_BYTES + payload.total_bytes
            ):
                return True
        except Corrupt as error:
            progress.warn(f"{path} {error.message}: it is put right")
    os.replace(path, path.with_name(path.name + PARTIAL))
    return False


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(STUB_BYTES)


@dataclass
class Replaced:
    """Gives a newer placement than the one that proved to be out of date."""

    release: CatalogRelease
    source: Source
    refresh: Refresh | None
    documents: Documents

    def __call__(self, error: NotFound | PerhapsAbsent) -> Placement:
        self.release = refreshed(self.release, self.refresh, error)
        return fetch_placement(self.source, self.release, self.documents.manifest)

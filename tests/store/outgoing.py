"""An origin without a network between, and packs that lie about themselves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from pacstore import codec
from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.incoming import publication
from pacstore.incoming.admission import admit
from pacstore.outgoing.authoring import LineCopy
from pacstore.outgoing.origin import Terms
from pacstore.outgoing.publishing import PublishedThere, publish_there
from pacstore.pack import HEADER, TableBuilder, ending
from pacstore.packing import PackingOptions
from pacstore.release import Release
from pacstore.storage import ObjectKind
from pacstore.trust.keyring import KeyRing
from tests.store.releases import NAME, NOW, OPTIONS, Notes, Origin


@dataclass
class Here:
    """An Origin of `pacstore.outgoing` over a store at hand. `before` is called with each step, and may do anything."""

    origin: Origin
    ring: KeyRing
    before: Callable[[str], None] = lambda _: None
    uploaded: list[tuple[ObjectKind, Digest]] = field(default_factory=list)
    name = "here"

    def begin(self, _release) -> Terms:
        self.before("begin")
        return Terms(commits=True, asked_ids=100)

    def start_missing(self, _release, ids) -> Future:
        assert len(ids) <= 100
        return done(lambda: set(publication.missing_chunks(self.origin.store, ids)))

    def start_upload(self, _release, kind, digest, path: Path, sent) -> Future:
        def work():
            self.before("upload")
            self.uploaded.append((kind, digest))
            admit(self.origin.store, kind, digest, path)
            sent(path.stat().st_size)

        return done(work)

    def place(self, release, manifest, attributes):
        self.before("place")
        options = PackingOptions(level=1)
        return publication.place(self.origin.store, release, manifest, attributes, options=options)

    def pending(self, release):
        try:
            change = self.origin.catalog.export()
        except PacballError:
            return None
        role = f"line-{release.project}"
        return change.only({role: change.roles[role]}) if role in change.roles else None

    def commit(self, release, change) -> bool:
        self.before("commit")
        origin = self.origin
        outcome = publication.take_change(origin.store, origin.catalog, change, release, self.ring, now=NOW)
        return not outcome.waits(f"line-{release.project}")

    def end(self, _release) -> None:
        self.before("end")


def done(work: Callable[[], object]) -> Future:
    future: Future = Future()
    try:
        future.set_result(work())
    except PacballError as error:
        future.set_exception(error)
    return future


class Site:
    """A publisher that has no store, only the key of the line in `keys`."""

    def __init__(self, top: Path, here: Here, keys: KeyRing) -> None:
        self.work = top / "work"
        self.here = here
        self.keys = keys

    def publish(self, tree: Path, name: str = NAME, progress: Notes | None = None) -> PublishedThere:
        release = Release.parse(name)
        return publish_there(
            tree,
            release,
            self.here,
            lambda: self.copy(release),
            keys=self.keys,
            options=OPTIONS,
            progress=progress or Notes(),
            now=lambda: NOW,
            work=self.work,
        )

    def copy(self, release: Release) -> LineCopy:
        origin = self.here.origin
        source = StoreSource(origin)
        return LineCopy(source, release, self.here.pending(release), pinned=origin.catalog.root_bytes, least=1)


class StoreSource:
    """Reads what a store publishes."""

    name = "here"

    def __init__(self, origin: Origin) -> None:
        from pacstore.directory_source import DirectorySource  # noqa: PLC0415

        self.read = DirectorySource(origin.store.path).read


def pack_of(*chunks: bytes, level: int = 1, kind: int = codec.KIND_ZSTD, ids: bytes | None = None,
            lengths: list[int] | None = None, compressed: bytes | None = None) -> tuple[Digest, bytes]:  # fmt: skip
    """A pack of one frame with these chunks, honest unless told otherwise; its id and bytes."""
    builder = TableBuilder()
    data = compressed if compressed is not None else codec.compress(b"".join(chunks), level)
    builder.add(
        kind, data, ids or b"".join(Digest.of(chunk).raw for chunk in chunks), lengths or [len(c) for c in chunks]
    )
    table = builder.encode()
    return Digest.of(table), HEADER + data + ending(table)

"""Publishing to an origin elsewhere: the release appears in its catalog at once or not at all.

Nothing is believed of the origin but that it may be asked: the catalog is verified here, the line is signed here, and what the
origin says to have is what it must give to every installer, each of whom verifies it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.description import describe
from pacstore.durable import wrapped
from pacstore.errors import Refused, Unavailable
from pacstore.incoming.publication import StillMissing
from pacstore.material import opened
from pacstore.outgoing.outbox import Outbox, drop_files, open_files
from pacstore.outgoing.sending import send_chunks
from pacstore.publish import Published, Quiet, check_archive, check_kind, check_same_tree, original_fields, store_object
from pacstore.storage import ObjectKind
from pacstore.trust.proposals import Outdated
from pacstore.trust.targets import CatalogRelease, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pacstore.backends.directory import DirectoryStorage
    from pacstore.digest import Digest
    from pacstore.material import Material
    from pacstore.outgoing.authoring import LineCopy
    from pacstore.outgoing.origin import Origin, Terms
    from pacstore.outgoing.sending import Sent
    from pacstore.packing import PackingOptions
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.trust.keyring import KeyRing

_ROUNDS = 5
_COMMITS = 20


@dataclass(frozen=True)
class PublishedThere(Published):
    """Like Published. `bytes_sent`: that the origin acknowledged; `rounds`: how often it was asked what is missing."""

    bytes_sent: int = 0
    rounds: int = 0


def publish_there(
    source: Path,
    release: Release,
    origin: Origin,
    copy: Callable[[], LineCopy],
    *,
    keys: KeyRing,
    options: PackingOptions,
    progress: Progress,
    now: Clock,
    work: Path,
    keep_stream: bool = False,
) -> PublishedThere:
    """Publish the directory or archive `source` as `release` at `origin`.

    When this returns, it is in the catalog there, or waits to be, durably. `copy` gives the catalog as it is there now. What is
    sent lies in the directory `work` until it is there: the same call after an interruption goes on with it. Raises what
    `pacstore.publish.publish` raises, and what the origin does.
    """
    check_kind(source)
    publishing = _Publishing(
        source, release, origin, copy, keys, options, progress, now, work, origin.begin(release), keep_stream
    )
    try:
        done = publishing.run()
    except Refused:
        origin.end(release)
        raise
    origin.end(release)
    return done


@contextmanager
def _tidying(work: Path) -> Iterator[None]:
    """In the end nothing is left at `work` if there is nothing to go on with."""
    try:
        yield
    finally:
        drop_files(work / _FILES)
        with suppress(OSError):
            work.rmdir()


_FILES = "files"


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One at a time may send the same from here: the others would send it twice."""
    with wrapped(work):
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("the same release is being published from here already", place=str(work),
                              hint="wait for the other command") from None  # fmt: skip
        yield
    finally:
        os.close(descriptor)


@dataclass
class _Publishing:
    source: Path
    release: Release
    origin: Origin
    copy: Callable[[], LineCopy]
    keys: KeyRing
    options: PackingOptions
    progress: Progress
    now: Clock
    work: Path
    terms: Terms
    keep_stream: bool
    bytes_sent: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0

    def run(self) -> PublishedThere:
        """Compare, or send and commit."""
        line = self.copy()
        line.check(self.keys)
        with _alone(self.work), _tidying(self.work):
            storage = open_files(self.work / _FILES)
            staging = self.work / _FILES / "staging"
            existing, waits = line.known()
            keep_stream = self.keep_stream or existing is not None
            with opened(self.source, staging=staging, keep_stream=keep_stream, progress=self.progress) as material:
                extent = material.measure(self.progress)
                if existing is not None:
                    self.progress.begin("comparing", extent.total_bytes)
                    found = describe(material.contents, spools=staging, progress=Quiet(self.progress))
                    check_archive(material, found)
                    done = _compare(existing, waits=waits, digest=found.tree_digest())
                else:
                    material.check_declared()
                    done = self._publish(material, storage, extent.total_bytes)
        return done

    def _publish(self, material: Material, storage: DirectoryStorage, total_bytes: int) -> PublishedThere:
        """Send and commit; once more where the origin has lost something meanwhile."""
        for number in range(1, _ROUNDS + 1):
            self.progress.begin("publishing", total_bytes)
            outbox = Outbox(storage, self.origin, self.release)
            try:
                # What was left from before is there soon, and not asked for again.
                outbox.go_on()
                outbox.finish()
                sent = self._send(outbox, material)
                check_archive(material, sent.description)
                manifest, attributes = self._send_documents(outbox, sent)
            finally:
                self.bytes_sent += outbox.bytes_sent
            try:
                return self._commit(sent, manifest, attributes, number, material)
            except StillMissing as error:
                if number == _ROUNDS:
                    hint = "its collection may be too eager: tell its operator"
                    raise Unavailable(f"loses what was sent, {number} times: {error}", place=self.origin.name,
                                      hint=hint) from error  # fmt: skip
        raise AssertionError("rounds end")

    def _send(self, outbox: Outbox, material: Material) -> Sent:
        sent = send_chunks(
            material,
            self.release,
            self.origin,
            outbox,
            asked_ids=self.terms.asked_ids,
            options=self.options,
            progress=Quiet(self.progress),
            spools=outbox.storage.public.parent / "staging",
        )
        self.new_bytes += sent.new_bytes
        self.stored_bytes += sent.stored_bytes
        return sent

    def _send_documents(self, outbox: Outbox, sent: Sent) -> tuple[SignedDocument, SignedDocument]:
        found, storage = sent.description, outbox.storage
        manifest = store_object(storage, ObjectKind.MANIFEST, found.manifest)
        attributes = store_object(storage, ObjectKind.ATTRIBUTES, lambda: [found.attributes()])
        outbox.send(ObjectKind.MANIFEST, manifest.digest)
        outbox.send(ObjectKind.ATTRIBUTES, attributes.digest)
        outbox.finish()
        return manifest, attributes

    def _commit(
        self, sent: Sent, manifest: SignedDocument, attributes: SignedDocument, rounds: int, material: Material
    ) -> PublishedThere:
        found = sent.description
        placed = self.origin.place(self.release, manifest, attributes)
        entry = CatalogRelease(
            release=self.release,
            tree_digest=found.tree_digest(),
            manifest=manifest,
            attributes=attributes,
            placement=placed.placement,
            placement_number=placed.number,
            total_bytes=found.total_bytes,
            files=found.files,
            published=int(self.now()),
        )
        existed, waiting = self._sign(entry)
        return PublishedThere(
            release=self.release,
            tree_digest=entry.tree_digest,
            manifest_digest=manifest.digest,
            files=found.files,
            bytes_total=found.total_bytes,
            bytes_new=self.new_bytes,
            bytes_rewritten=placed.rewritten_bytes,
            bytes_stored=self.stored_bytes,
            existed=existed,
            waiting=waiting,
            bytes_sent=self.bytes_sent,
            rounds=rounds,
            original_new=sent.beside_new_bytes,
            **original_fields(material),
        )

    def _sign(self, entry: CatalogRelease) -> tuple[bool, bool]:
        """Whether the release was there already, with this very tree; and whether it waits."""
        for _ in range(_COMMITS):
            line = self.copy()
            existing, waits = line.known()
            if existing is not None:
                _compare(existing, waits=waits, digest=entry.tree_digest)
                return True, waits
            change = line.signed(entry, self.keys, now=self.now())
            try:
                return False, not self.origin.commit(self.release, change)
            except Outdated:
                continue
        hint = "let one process publish to a line at a time, and try again"
        raise Unavailable(f"others changed the catalog {_COMMITS} times meanwhile", place=self.origin.name, hint=hint)


def _compare(existing: CatalogRelease, *, waits: bool, digest: Digest) -> PublishedThere:
    check_same_tree(existing, digest, "tree that is to be published")
    return PublishedThere(
        release=existing.release,
        tree_digest=existing.tree_digest,
        manifest_digest=existing.manifest.digest,
        files=existing.files,
        bytes_total=existing.total_bytes,
        existed=True,
        waiting=waits,
    )

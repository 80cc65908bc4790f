"""Repair: what a verification finds is put right, but for extra files. Every byte is verified before it is put in its place.

All content is rebuilt in the staging tree of an attempt, and durable, before anything in the installed tree is replaced, file by
file. Killed anywhere, the same call does the rest. Releases that share a damaged file by a hard link share the new one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pacstore.attributes import Attributes, file_numbers_of
from pacstore.errors import Corrupt
from pacstore.install.documents import Documents, fetch_documents
from pacstore.install.options import InstallOptions
from pacstore.install.root.history import EventKind
from pacstore.install.root.inventory import installed_releases
from pacstore.install.root.layout import Root
from pacstore.install.root.living import signs_of_life
from pacstore.install.root.staging import Attempt, remove_attempt, sweep
from pacstore.install.root.timeline import Timeline
from pacstore.install.seeds.sharing import needs_time
from pacstore.install.tree.directories import open_directory
from pacstore.install.tree.disk import DIRECTORY_FLAGS, check_owner, disk_at
from pacstore.install.tree.hashing import Known
from pacstore.install.tree.paths import TOP, Paths
from pacstore.install.upkeep.checking import READERS, Examiners, Readers, examiners
from pacstore.install.upkeep.findings import NO_ENTRY, Fault, Finding
from pacstore.install.upkeep.mending import Mending
from pacstore.install.upkeep.rebuilding import OtherRecord, Rebuilding, Rebuilt, Supply, check_entry
from pacstore.install.upkeep.verify import Record, Verified, check_installed, check_release, read_record_of
from pacstore.install.wanted import Flags
from pacstore.manifest import Manifest
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock
from pacstore.tree import EntryKind

_CONTENT = (Fault.DAMAGED, Fault.MISSING, Fault.KIND)
_ATTRIBUTES = (Fault.MODE, Fault.OWNER)


@dataclass(frozen=True)
class Repaired:
    """What was found of a release, and what became of it.

    `files` were rebuilt, with `bytes_reused` from local trees and `bytes_downloaded` over the network; `entries`: directories,
    links, modes and owners that were put right; `records` were fetched again. `aside`: where what was in the way is now.
    `left`: what could not be repaired.
    """

    verified: Verified
    files: int = 0
    entries: int = 0
    records: int = 0
    bytes_reused: int = 0
    bytes_downloaded: int = 0
    aside: tuple[str, ...] = ()
    left: tuple[Finding, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was put right."""
        return bool(self.files or self.entries or self.records)


@dataclass(frozen=True, slots=True)
class _Replacement:
    """A file that took the place of a damaged one: in which release, where; its inode, and what it must be."""

    release: Release
    path: bytes
    inode: tuple[int, int]
    content: bytes
    kind: int
    mtime: int


@dataclass
class _Session:
    """What the repairs of several releases have in common."""

    root: Root
    supply: Supply | None
    progress: Progress
    now: Clock
    options: InstallOptions
    who: Examiners
    known: Known = field(default_factory=Known)
    replacements: dict[tuple[int, int], _Replacement] = field(default_factory=dict)


def repair(
    root: Path,
    releases: Sequence[Release],
    *,
    supply: Supply | None,
    progress: Progress,
    now: Clock,
    options: InstallOptions,
    readers: Readers = READERS,
) -> list[Repaired]:
    """Verify `releases`, or all that is installed, and put right what is wrong, but for extra files.

    `supply`: where the chunks come from that no local tree has; without it, what lacks them is left. Raises NotFound for what is
    not installed, Refused where the catalog says another tree, Unavailable when the disk or the network fails, Corrupt for bytes
    that stay wrong; whatever was repaired by then stays so.
    """
    with disk_at(str(root)), Root.existing(root) as opened:
        sizes = {one.release: one.bytes_total for one in installed_releases(opened)}
        chosen = list(dict.fromkeys(releases)) or list(sizes)
        for release in chosen:
            check_installed(opened, release)
        total = sum(sizes.get(release) or 0 for release in chosen)
        with examiners(opened, readers, bytes_total=total) as who:
            session = _Session(opened, supply, progress, now, options, who)
            timeline = Timeline.of(opened.history())
            done = [_repair_release(session, release, timeline, sizes.get(release)) for release in chosen]
        with contextlib.suppress(OSError):
            sweep(opened)
    return done


def _repair_release(session: _Session, release: Release, timeline: Timeline, size: int | None) -> Repaired:
    record = read_record_of(session.root, release, timeline)
    spoilt = record.findings
    before = _downloaded(session)
    documents = _documents(record)
    if documents is None and session.supply is not None:
        documents = _fetch_record(session, record)
        record = read_record_of(session.root, release, timeline)
    session.progress.begin("verifying", size)
    verified = check_release(session.root, record, session.progress, session.known, session.who)
    if documents is None:
        return Repaired(verified, left=verified.findings)
    records = len(spoilt) - len(record.findings)
    fetched = _downloaded(session) - before
    try:
        done = _Work(session, record, documents).run(verified)
    except OtherRecord:
        # Its tree is right, so what was found is; only the chunks were told wrongly.
        documents = _fetch_record(session, record)
        records += 1
        done = _Work(session, record, documents).run(verified)
    refetched = [one for one in spoilt if one not in record.findings]
    done = replace(done, verified=replace(verified, findings=(*refetched, *verified.findings)))
    done = replace(done, records=records, bytes_downloaded=done.bytes_downloaded + fetched)
    if done.changed:
        values = {
            key: getattr(done, key) for key in ("files", "entries", "records", "bytes_reused", "bytes_downloaded")
        }
        session.root.remember(EventKind.REPAIR, release, time=session.now(), values=values)
    return done


def _downloaded(session: _Session) -> int:
    """How many bytes came over the network so far; nothing is opened to find out."""
    return session.supply.bytes_downloaded if session.supply is not None else 0


def _documents(record: Record) -> Documents | None:
    """What is kept of the release, if it can be relied on."""
    if record.manifest is None or record.attributes is None:
        return None
    return Documents(b"", b"", record.manifest, record.attributes)


def _fetch_record(session: _Session, record: Record) -> Documents:
    """Fetch the documents of a release anew, and keep them. Raises Refused where the catalog says another tree."""
    supply = session.supply
    if supply is None:
        raise Corrupt("is damaged", place=f"the record of {record.release}", hint="name a source with --from")
    entry = supply.entry(record.release)
    if record.manifest is not None:
        with contextlib.suppress(OtherRecord):
            check_entry(entry, record.manifest)
    session.progress.begin("fetching the record", None)
    documents = fetch_documents(supply.source, entry)
    if record.past.tree is not None and record.past.tree != documents.manifest.tree.digest:
        raise Corrupt(
            f"was installed with another tree: {record.past.tree}",
            place=str(record.release),
            hint=f"the catalog says {documents.manifest.tree.digest}; find out which of the two is genuine",
        )
    attempt = Attempt.begin(session.root, record.release, documents.manifest.digest, session.now())
    try:
        session.root.keep(record.release, documents, attempt.directory)
    finally:
        attempt.close()
        attempt.remove()
    return documents


class _Work:
    """The repair of one release."""

    def __init__(self, session: _Session, record: Record, documents: Documents) -> None:
        self._session = session
        self._release = record.release
        self._record = record
        self._documents = documents
        self._manifest: Manifest = documents.manifest
        self._attributes: Attributes = documents.attributes
        self._paths = Paths(documents.manifest.tree)
        self._file_numbers = file_numbers_of(documents.manifest.tree)

    def run(self, verified: Verified) -> Repaired:
        """Put right what was found. Raises as `repair` does, and OtherRecord."""
        left = [one for one in verified.findings if self._is_left(one)]
        wrong = [one for one in verified.findings if one not in left and one.fault is not Fault.EXTRA]
        if not wrong:
            return Repaired(verified, left=tuple(left))
        session = self._session
        top = os.open(str(self._release), DIRECTORY_FLAGS, dir_fd=session.root.releases)
        try:
            owner = self._owner(top)
            check_owner(owner)
            attempt = Attempt.begin(session.root, self._release, self._manifest.digest, session.now())
            try:
                with signs_of_life(attempt.sign):
                    done = self._mend(verified, wrong, top, attempt, owner)
            except BaseException:
                attempt.give_up()
                raise
            finally:
                attempt.close()
            remove_attempt(session.root, attempt.name)
        finally:
            os.close(top)
        return replace(done, left=(*left, *done.left))

    def _owner(self, top: int) -> tuple[int, int] | None:
        """Whom the release belongs to, None for this process's user."""
        found = os.fstat(top)
        user, group = self._record.past.owner or (found.st_uid, None)
        return None if user == os.geteuid() and group is None else (user, found.st_gid if group is None else group)

    def _mend(
        self, verified: Verified, wrong: list[Finding], top: int, attempt: Attempt, owner: tuple[int, int] | None
    ) -> Repaired:
        session = self._session
        mending = Mending(session.root, self._release, self._paths, self._attributes, top, attempt, owner)
        with contextlib.closing(mending):
            if self._restore_directories(mending, wrong):
                # What lies in a directory that could not be read seemed to be missing.
                mending.finish()
                session.progress.begin("verifying", verified.bytes_total)
                again = check_release(session.root, self._record, session.progress, session.known, session.who)
                wrong = [one for one in again.findings if not self._is_left(one) and one.fault is not Fault.EXTRA]
            broken, damaged = self._broken(mending, wrong)
            groups = list(self._groups(wrong, broken))
            wanted = broken.copy()
            for origin, members in groups:
                wanted[self._file_numbers[members]] = False
                wanted[self._file_numbers[origin]] = broken[self._file_numbers[origin]]
            shared = self._share(wrong, wanted, attempt)
            rebuilt = self._rebuild(wanted & ~shared, damaged, top, attempt, owner)
            session.progress.begin("syncing", None)
            attempt.sync()
            whole = rebuilt.files | shared
            entries = self._put_others(mending, wrong)
            for file in np.flatnonzero(whole).tolist():
                mending.put_file(int(self._paths.file_entries[file]))
            entries += self._relink(mending, groups, wanted & ~whole)
            mending.finish()
            self._remember(wrong, whole, top)
        missing = {int(self._paths.file_entries[file]) for file in np.flatnonzero(wanted & ~whole)}
        lacking = [one for one in wrong if self._depends(one, missing, groups)]
        files = int(whole.sum())
        return Repaired(
            verified,
            files=files,
            entries=entries,
            bytes_reused=rebuilt.bytes_reused,
            bytes_downloaded=rebuilt.bytes_downloaded,
            aside=tuple(mending.aside),
            left=tuple(lacking),
        )

    def _rebuild(
        self, files: Flags, damaged: Flags, top: int, attempt: Attempt, owner: tuple[int, int] | None
    ) -> Rebuilt:
        if not files.any():
            return Rebuilt(files, 0, 0)
        session = self._session
        return Rebuilding(
            session.root,
            self._release,
            self._documents,
            self._paths,
            top,
            attempt,
            session.supply,
            replace(session.options, owner=owner),
            session.progress,
        ).rebuild(files, damaged)

    def _is_left(self, one: Finding) -> bool:
        """Whether a finding cannot be repaired.

        What commands made is nowhere to be had, nor is a record of it; a directory that the disk cannot read is no case for us.
        """
        unreadable = one.fault is Fault.DAMAGED and self._kind(one.entry) is EntryKind.DIRECTORY
        return one.generated or one.fault is Fault.RECORD or unreadable

    def _kind(self, entry: int) -> EntryKind:
        return EntryKind.DIRECTORY if entry == NO_ENTRY else EntryKind(int(self._manifest.tree.kinds[entry]))

    def _restore_directories(self, mending: Mending, wrong: list[Finding]) -> bool:
        """Give directories their mode and owner back; whether there were any but the top."""
        entries = sorted(
            {one.entry for one in wrong if one.fault in _ATTRIBUTES and self._kind(one.entry) is EntryKind.DIRECTORY}
        )
        for entry in entries:
            mending.restore_attributes(TOP if entry == NO_ENTRY else entry)
        return bool(entries)

    def _broken(self, mending: Mending, wrong: list[Finding]) -> tuple[Flags, Flags]:
        """The files that must be replaced; and of them those whose content is not as it was.

        A file with a wrong mode or owner that has links elsewhere is replaced, not written to: nobody knows whose they are. So
        is one that is closed and of somebody else.
        """
        broken = np.zeros(self._manifest.tree.files, dtype=bool)
        damaged = broken.copy()
        group_sizes = self._group_sizes()
        for one in wrong:
            if one.entry == NO_ENTRY or not self._kind(one.entry).is_file:
                continue
            file = int(self._file_numbers[one.entry])
            if one.fault in _CONTENT:
                broken[file] = damaged[file] = True
            elif one.fault in _ATTRIBUTES and one.inode is not None:
                found = self._status(one.entry)
                broken[file] |= found.st_nlink > group_sizes.get(one.entry, 1) or mending.would_tell(found)
        return broken, damaged

    def _group_sizes(self) -> dict[int, int]:
        return {entry: len(group) for group in self._attributes.groups() for entry in group}

    def _status(self, entry: int) -> os.stat_result:
        """What a file is now."""
        above, _, name = self._paths.path(entry).rpartition(b"/")
        with _opened(self._session.root, self._release, above) as directory:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def _groups(self, wrong: list[Finding], broken: Flags) -> Iterator[tuple[int, list[int]]]:
        """For each hard-link group with something wrong: the member that the others are to be linked to, and these."""
        concerned = {one.entry for one in wrong if one.fault is Fault.LINK or one.fault in (*_CONTENT, *_ATTRIBUTES)}
        unlinked = {one.entry for one in wrong if one.fault is Fault.LINK}
        for group in self._attributes.groups():
            if concerned.isdisjoint(group):
                continue
            good = [entry for entry in group if not broken[self._file_numbers[entry]]]
            origin = next((entry for entry in good if entry not in unlinked), good[0] if good else group[0])
            wrong_ones = [entry for entry in group if entry in unlinked or broken[self._file_numbers[entry]]]
            if wrong_ones:
                others = group if origin in wrong_ones else wrong_ones
                yield origin, [entry for entry in others if entry != origin]

    def _put_others(self, mending: Mending, wrong: list[Finding]) -> int:
        """Make directories and symbolic links, and give files their mode and owner back, where nothing else is wrong."""
        targets = dict(self._paths.symlinks()) if any(self._kind(o.entry) is EntryKind.SYMLINK for o in wrong) else {}
        done: set[int] = set()
        broken, _ = self._broken(mending, wrong)
        group_sizes = self._group_sizes()
        for one in sorted(wrong, key=lambda one: one.entry):
            kind = self._kind(one.entry)
            if one.entry in done or one.entry == NO_ENTRY:
                continue
            if kind is EntryKind.SYMLINK:
                mending.put_link(one.entry, targets[one.entry])
            elif kind is EntryKind.DIRECTORY and one.fault in _CONTENT:
                mending.make_directory(one.entry)
            elif kind.is_file and one.fault in _ATTRIBUTES and not broken[self._file_numbers[one.entry]]:
                mending.restore_attributes(one.entry, group_sizes.get(one.entry, 1), one.inode)
            else:
                continue
            done.add(one.entry)
        return len(done) + len({one.entry for one in wrong if one.entry == NO_ENTRY})

    def _relink(self, mending: Mending, groups: list[tuple[int, list[int]]], lacking: Flags) -> int:
        linked = 0
        for origin, others in groups:
            if lacking[self._file_numbers[origin]]:
                continue
            for entry in others:
                mending.link_file(entry, origin)
                linked += 1
        return linked

    # -- files that several releases share

    def _share(self, wrong: list[Finding], wanted: Flags, attempt: Attempt) -> Flags:
        """Link those `wanted` files into the staging tree that took the place of the same damaged ones in other releases."""
        shared = np.zeros_like(wanted)
        for one in wrong:
            found = self._session.replacements.get(one.inode) if one.inode is not None else None
            if found is None or not wanted[self._file_numbers[one.entry]]:
                continue
            file = int(self._file_numbers[one.entry])
            content, kind, mtime = self._identity(file)
            timely = found.mtime == mtime or not needs_time(self._paths.name(one.entry))
            if (found.content, found.kind) == (content, kind) and timely:
                shared[file] = _link_staged(self._session.root, found, self._paths.path(one.entry), attempt)
        return shared

    def _identity(self, file: int) -> tuple[bytes, int, int]:
        entry = int(self._paths.file_entries[file])
        tree = self._manifest.tree
        return tree.contents[file].tobytes(), int(tree.kinds[entry]), int(self._attributes.mtimes[entry])

    def _remember(self, wrong: list[Finding], whole: Flags, top: int) -> None:
        """Remember what took the place of files that other releases may share."""
        for one in wrong:
            if one.inode is None or not whole[self._file_numbers[one.entry]]:
                continue
            path = self._paths.path(one.entry)
            above, _, name = path.rpartition(b"/")
            directory = open_directory(top, above) if above else os.dup(top)
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            finally:
                os.close(directory)
            content, kind, mtime = self._identity(int(self._file_numbers[one.entry]))
            inode = (found.st_dev, found.st_ino)
            self._session.replacements[one.inode] = _Replacement(self._release, path, inode, content, kind, mtime)

    def _depends(self, one: Finding, missing: set[int], groups: list[tuple[int, list[int]]]) -> bool:
        return one.entry in missing or any(origin in missing and one.entry in others for origin, others in groups)


@contextlib.contextmanager
def _opened(root: Root, release: Release, path: bytes) -> Iterator[int]:
    """The directory `path` of an installed tree, open."""
    top = os.open(str(release), DIRECTORY_FLAGS, dir_fd=root.releases)
    try:
        directory = open_directory(top, path) if path else os.dup(top)
    finally:
        os.close(top)
    try:
        yield directory
    finally:
        os.close(directory)


def _link_staged(root: Root, found: _Replacement, path: bytes, attempt: Attempt) -> bool:
    """Link a replacement to `path` in the staging tree; False where that cannot be done, or it is not what it was."""
    above, _, name = found.path.rpartition(b"/")
    staged, _, own = path.rpartition(b"/")
    try:
        at = os.dup(attempt.top)
        for part in staged.split(b"/") if staged else ():
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=at)
            below = os.open(part, DIRECTORY_FLAGS, dir_fd=at)
            os.close(at)
            at = below
        try:
            with _opened(root, found.release, above) as directory:
                os.link(name, own, src_dir_fd=directory, dst_dir_fd=at, follow_symlinks=False)
            linked = os.stat(own, dir_fd=at, follow_symlinks=False)
            if (linked.st_dev, linked.st_ino) == found.inode:
                return True
            os.unlink(own, dir_fd=at)
        finally:
            os.close(at)
    except OSError:
        return False
    return False

"""Root: the layout of an install root, and the changes to it that must be atomic and durable.

    ROOT/releases/RELEASE/            installed trees, never modified
    ROOT/current/PROJECT/PLATFORM     -> ../../releases/RELEASE, switched by rename
    ROOT/.pacball/manifests/          RELEASE.manifest and RELEASE.attributes of what is installed
    ROOT/.pacball/staging/            a directory for each attempt to install or to repair
    ROOT/.pacball/trash/              what is being removed (trash.py)
    ROOT/.pacball/history.jsonl       a line for each event: what, from where, and why it was believed (history.py)

A release is installed when its tree and its kept manifest are both there; the manifest is written first.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Refused, Unavailable
from pacstore.install.root.entrance import make_entrance
from pacstore.install.root.history import Event, EventKind, append_event, read_events
from pacstore.install.root.record import read_record
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, disk_at, make_directory, write_durably
from pacstore.manifest import Manifest, decode_manifest
from pacstore.release import Release

if TYPE_CHECKING:
    from pacstore.install.documents import Documents  # of an installer, which not everybody needs

PRIVATE = ".pacball"
PRIVATE_MODE = 0o700
TRASH = "trash"
_ATTEMPTS = 5
KEPT = ("manifest", "attributes", "generated")
"""What the names of the files in `manifests` end in: all that is kept of an installed release beside its tree."""


class Root:
    """An open install root. Its directories are held open, so replacing them by links leads nowhere."""

    def __init__(self, path: Path, top: int) -> None:
        self.path = path
        self._held: list[int] = [top]
        try:
            self.top = top
            self.releases = self._hold(top, "releases", DIRECTORY_MODE)
            self.current = self._hold(top, "current", DIRECTORY_MODE)
            self.private = self._hold(top, PRIVATE, PRIVATE_MODE)
            self.manifests = self._hold(self.private, "manifests", PRIVATE_MODE)
            self.staging = self._hold(self.private, "staging", PRIVATE_MODE)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Root:
        """The install root `path`, made if only its last component is missing. Raises Refused or Unavailable."""
        with disk_at(str(path)):
            try:
                top = make_entrance(path, uid=os.geteuid())
            except FileNotFoundError as error:
                raise cls.no_place(path) from error
            return cls(path, top)

    @classmethod
    def existing(cls, path: Path) -> Root:
        """The install root `path`. Raises NotFound where nothing was ever installed, Unavailable."""
        if not cls.exists(path):
            hint = "give the directory that was given to install"
            raise NotFound("is not an install root", place=str(path), hint=hint)
        return cls.open(path)

    @staticmethod
    def no_place(path: Path) -> Refused:
        """The error that there is nothing to make the root `path` in."""
        message = "cannot be made, because the directory above it does not exist"
        return Refused(message, place=str(path), hint=f"make {path.parent} first")

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether something was ever installed under `path`. Raises Unavailable where that cannot be found out."""
        with disk_at(str(path)):
            return (path / PRIVATE / "manifests").is_dir()

    def _hold(self, parent: int, name: str, mode: int) -> int:
        descriptor = make_directory(parent, name, mode)
        self._held.append(descriptor)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its directories."""
        while self._held:
            os.close(self._held.pop())

    def release_path(self, release: Release) -> Path:
        """Where the tree of `release` is or will be."""
        return self.path / "releases" / str(release)

    def occupied(self, release: Release) -> bool:
        """Whether anything at all is under the release's name."""
        return _lstat(str(release), self.releases) is not None

    def recorded(self, release: Release) -> Digest | None:
        """The tree digest of `release` as it is installed; None where it is not, or where its record cannot be read."""
        found = _lstat(str(release), self.releases)
        if found is None or not stat.S_ISDIR(found.st_mode):
            return None
        try:
            place = self.kept_place(release, "manifest")
            data = _mapping(self.manifests, f"{release}.manifest", place)
            return decode_manifest(data, place=place).digest("tree")
        except PacballError:
            return None

    def installed(self) -> list[Release]:
        """Every release that has a tree and a kept manifest, by name."""
        names = {n.removesuffix(".manifest") for n in os.listdir(self.manifests) if n.endswith(".manifest")}
        found = []
        for name in sorted(names & set(os.listdir(self.releases))):
            with contextlib.suppress(Refused):
                found.append(Release.parse(name))
        return found

    def manifest(self, release: Release) -> Manifest:
        """The kept manifest of `release`, parsed. Raises NotFound, Corrupt, TooLarge, NewerFormat or Unavailable."""
        place = self.kept_place(release, "manifest")
        return Manifest.parse(_mapping(self.manifests, f"{release}.manifest", place), place=place)

    def record(self, release: Release) -> Manifest:
        """The kept manifest of `release`, checked less and with less memory (record.py). Raises as `manifest` does."""
        return _record(self.manifests, f"{release}.manifest", self.kept_place(release, "manifest"))

    def staged_record(self, attempt: str, name: str) -> Manifest:
        """The manifest that the attempt `attempt` has under `name`. Raises as `record` does, and OSError."""
        directory = os.open(attempt, DIRECTORY_FLAGS, dir_fd=self.staging)
        try:
            return _record(directory, name, str(self.path / PRIVATE / "staging" / attempt / name))
        finally:
            os.close(directory)

    def kept(self, release: Release, suffix: str) -> memoryview:
        """What is kept of `release` under one of `KEPT`, mapped. Raises NotFound or Unavailable."""
        return _mapping(self.manifests, f"{release}.{suffix}", self.kept_place(release, suffix))

    def kept_place(self, release: Release, suffix: str) -> str:
        """The path of what is kept, for messages."""
        return str(self.path / PRIVATE / "manifests" / f"{release}.{suffix}")

    def keep(self, release: Release, documents: Documents, attempt: int) -> None:
        """Write the documents of `release` durably, through the open directory `attempt`. Raises OSError."""
        self._drop_stale(f"{release}.generated", release, attempt)
        write_durably(self.manifests, f"{release}.attributes", documents.attributes_bytes, through=attempt)
        write_durably(self.manifests, f"{release}.manifest", documents.manifest_bytes, through=attempt)

    def keep_missing(self, release: Release, documents: Documents, attempt: int) -> None:
        """Write the documents again that are gone: who removes an older tree of that name may have taken them. Raises OSError."""
        for suffix, data in (("attributes", documents.attributes_bytes), ("manifest", documents.manifest_bytes)):
            if _lstat(f"{release}.{suffix}", self.manifests) is None:
                write_durably(self.manifests, f"{release}.{suffix}", data, through=attempt)

    def _drop_stale(self, name: str, release: Release, attempt: int) -> None:
        """Take away what is kept of an earlier tree of `release`, which is there no more."""
        if self.occupied(release):
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, f"stale.{name}", src_dir_fd=self.manifests, dst_dir_fd=attempt)
            if self.occupied(release):  # another was quicker, and it is of that one's tree
                with contextlib.suppress(FileExistsError):
                    os.link(f"stale.{name}", name, src_dir_fd=attempt, dst_dir_fd=self.manifests)
            os.unlink(f"stale.{name}", dir_fd=attempt)
            os.fsync(self.manifests)

    def admit(self, release: Release, attempt: int, name: str) -> bool:
        """Rename the tree `name` of the open directory `attempt` to the release's name, durably.

        False where something is under that name already. Raises OSError.
        """
        if self.occupied(release):
            return False
        try:
            os.rename(name, str(release), src_dir_fd=attempt, dst_dir_fd=self.releases)
        except (FileExistsError, NotADirectoryError):
            return False
        except OSError:
            if self.occupied(release):
                return False
            raise
        os.fsync(self.releases)
        return True

    def switched_to(self, release: Release) -> str:
        """The name of the release that `current` leads to for this project and platform; empty for none."""
        try:
            project = self.open_line(release)
        except FileNotFoundError:
            return ""
        try:
            return os.path.basename(os.readlink(release.platform, dir_fd=project))
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno != errno.EINVAL:  # that is no link; of anything else nothing is known
                raise
            raise Refused(
                "is not a symbolic link that pacball made",
                place=str(self.path / "current" / release.project / release.platform),
                hint="move it away and run the same command again",
            ) from error
        finally:
            os.close(project)

    def lines(self) -> list[tuple[str, str, str]]:
        """Each link below `current`: project, platform, and the name of the release that it leads to. Raises OSError."""
        found = []
        for project in sorted(os.listdir(self.current)):
            try:
                directory = os.open(project, DIRECTORY_FLAGS, dir_fd=self.current)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                for platform in sorted(os.listdir(directory)):
                    target = _target(platform, directory)
                    if target is not None:
                        found.append((project, platform, os.path.basename(target)))
            finally:
                os.close(directory)
        return found

    def open_line(self, release: Release) -> int:
        """The directory below `current` that has the link for the project and platform of `release`. Raises OSError."""
        return os.open(release.project, DIRECTORY_FLAGS, dir_fd=self.current)

    def leading_to(self, release: Release) -> list[str]:
        """The links below `current` that lead to `release`, as paths below the root. Raises OSError."""
        name = str(release)
        return [f"current/{project}/{platform}" for project, platform, target in self.lines() if target == name]

    def switch(
        self,
        release: Release,
        *,
        tree: Digest,
        source: str,
        time: float,
        trust: Mapping[str, object] | None = None,
        event: EventKind = EventKind.SWITCH,
    ) -> bool:
        """Let `current` lead to `release`, atomically and durably; False where it does already.

        The history gets a line for it before, with `trust`: why the release was believed (trust.py). Raises OSError, and
        Unavailable where the release is removed at the same time.
        """
        previous = self.switched_to(release)
        if previous == str(release):
            return False
        believed = {"trust": dict(trust)} if trust is not None else {}
        values = {"tree_digest": tree.hex, "previous": previous or None, "source": source, **believed}
        self.remember(event, release, time=time, values=values)
        self._lead(release, str(release))
        if not self.occupied(release):
            self._lead_back(release, previous)
            raise Unavailable(
                "was removed while it was to become current",
                place=str(self.release_path(release)),
                hint="run the same command again",
            )
        return True

    def _lead(self, line: Release, name: str) -> None:
        """Let `current` for the project and platform of `line` lead to the release `name`."""
        project = make_directory(self.current, line.project, DIRECTORY_MODE)
        # Left there by who is killed, it is swept.
        trash = make_directory(self.private, TRASH, PRIVATE_MODE)
        try:
            for left in reversed(range(_ATTEMPTS)):
                temporary = secrets.token_hex(16)
                os.symlink(f"../../releases/{name}", temporary, dir_fd=trash)
                try:
                    os.rename(temporary, line.platform, src_dir_fd=trash, dst_dir_fd=project)
                    break
                except FileNotFoundError:  # swept by another
                    if not left:
                        raise
                except OSError:
                    os.unlink(temporary, dir_fd=trash)
                    raise
            os.fsync(project)
            os.fsync(self.current)
        finally:
            os.close(trash)
            os.close(project)

    def _lead_back(self, release: Release, previous: str) -> None:
        """Let `current`, which leads to `release`, lead to `previous` again, or nowhere if that is empty."""
        if self.switched_to(release) != str(release):
            return  # another has switched meanwhile
        if previous:
            self._lead(release, previous)
            return
        project = make_directory(self.current, release.project, DIRECTORY_MODE)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(release.platform, dir_fd=project)
            os.fsync(project)
        finally:
            os.close(project)

    def remember(self, event: EventKind, release: Release, *, time: float, values: Mapping[str, object]) -> None:
        """Write a line to the history, durably. Raises OSError."""
        append_event(self.private, event, release, time=time, values=values)

    def history(self) -> Iterator[Event]:
        """What happened here, the oldest first. Raises OSError."""
        return read_events(self.private)


def _target(name: str, directory: int) -> str | None:
    """What a link leads to; None for what is none. What cannot be read may lead to anything, so that is an error."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _record(directory: int, name: str, place: str) -> Manifest:
    data = _mapping(directory, name, place)
    with disk_at(place):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            return read_record(descriptor, data, place=place)
        finally:
            os.close(descriptor)


def _mapping(directory: int, name: str, place: str) -> memoryview:
    """The file's bytes, mapped: they cost no memory of our own."""
    with disk_at(place):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError as error:
            raise NotFound("is not there", place=place, hint="install the release again") from error
        try:
            if os.fstat(descriptor).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

"""Trash: where releases go that are removed, so that each is there whole or not at all.

    ROOT/.pacball/trash/TOKEN.RELEASE             a whole tree, on its way out
    ROOT/.pacball/trash/TOKEN.RELEASE.manifest    and what was kept of it
    ROOT/.pacball/trash/<32 hex digits>           what may be deleted

A tree is taken by one rename, which needs no room on a full disk. Only when nothing leads to it any more, its records follow;
then it loses its name, and is deleted. Whoever comes next finishes what one left who was killed; several may do it at once.
Nobody is kept from installing the release again meanwhile: a record that was taken from a tree that came back is put back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Self

from pacstore.errors import Refused
from pacstore.install.root.layout import KEPT, PRIVATE, PRIVATE_MODE, TRASH, Root
from pacstore.install.tree.deletion import Freed, delete, space_of
from pacstore.install.tree.disk import DIRECTORY_FLAGS, make_directory
from pacstore.release import Release

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def _nobody(_: int) -> None:
    pass


class Trash:
    """The trash of an open root, made if it is not there yet."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._directory = make_directory(root.private, TRASH, PRIVATE_MODE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def take(self, release: Release) -> str:
        """Move the tree of `release` into the trash, durably; its name there. Nothing is deleted yet.

        Raises FileNotFoundError where there is no tree, OSError.
        """
        name = f"{secrets.token_hex(8)}.{release}"
        os.rename(str(release), name, src_dir_fd=self._root.releases, dst_dir_fd=self._directory)
        os.fsync(self._directory)
        os.fsync(self._root.releases)
        return name

    def put_back(self, name: str) -> None:
        """Move a tree back to where it was taken from, durably, unless another has its name meanwhile. Raises OSError."""
        try:
            os.rename(name, name.partition(".")[2], src_dir_fd=self._directory, dst_dir_fd=self._root.releases)
        except FileNotFoundError:
            return  # another has done it
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        os.fsync(self._root.releases)

    def finish(self, name: str, told: Callable[[int], None] = _nobody) -> Freed:
        """Delete a tree and its records; put it back instead if `current` leads to it. Raises OSError; may be repeated."""
        release = Release.parse(name.partition(".")[2])
        if self._root.leading_to(release) and not self._root.occupied(release):
            self.put_back(name)
        freed = Freed()
        if self._exists(name):
            self._take_records(name, release)
            doomed = secrets.token_hex(16)
            with contextlib.suppress(FileNotFoundError):
                os.rename(name, doomed, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                delete(self._directory, doomed, freed, told)
        records = Freed()
        self._drop_logs(release, records)
        for suffix in KEPT:
            self._drop_record(f"{name}.{suffix}", release, records)
        freed.bytes += records.bytes
        return freed

    def sweep(self, warn: Callable[[str], None] = lambda _: None) -> Freed:
        """Finish what others left, or are at just now; `warn` is told what cannot be deleted, which stays. Raises OSError."""
        total = Freed()
        for name in self._trees():
            freed = self.finish(name)
            total.bytes += freed.bytes
            total.files += freed.files
        for name in os.listdir(self._directory):
            token, dot, kept = name.partition(".")
            if not dot:
                self._delete_left(token, total, warn)
                continue
            with contextlib.suppress(Refused):
                self._drop_record(name, Release.parse(kept.rpartition(".")[0]), total)
        return total

    def _delete_left(self, name: str, freed: Freed, warn: Callable[[str], None]) -> None:
        """Delete what lost its name before. One thing that will not go must not keep everything else from being done."""
        try:
            delete(self._directory, name, freed)
        except OSError as error:
            place = self._root.path / PRIVATE / TRASH / name
            warn(
                f"{place}: something in it cannot be deleted: {error.strerror}; find out what holds it, or delete it by hand"
            )

    def space(self) -> int:
        """How many bytes of the disk it takes up. Raises OSError."""
        return sum(space_of(self._directory, name) for name in os.listdir(self._directory))

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _trees(self) -> Iterator[str]:
        """The names of whole trees. Records are files; what may be deleted has no release's name."""
        for name in os.listdir(self._directory):
            with contextlib.suppress(Refused, FileNotFoundError):
                Release.parse(name.partition(".")[2])
                if stat.S_ISDIR(os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_mode):
                    yield name

    def _take_records(self, name: str, release: Release) -> None:
        """Move what is kept of `release` into the trash, unless it was installed again meanwhile."""
        for suffix in KEPT:
            if self._root.occupied(release):
                break
            with contextlib.suppress(FileNotFoundError):
                os.rename(
                    f"{release}.{suffix}",
                    f"{name}.{suffix}",
                    src_dir_fd=self._root.manifests,
                    dst_dir_fd=self._directory,
                )
        os.fsync(self._directory)
        os.fsync(self._root.manifests)

    def _drop_logs(self, release: Release, freed: Freed) -> None:
        """Delete what the release's own commands printed, unless it is installed again."""
        if self._root.occupied(release):
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            logs = os.open("logs", DIRECTORY_FLAGS, dir_fd=self._root.private)
            doomed = secrets.token_hex(16)
            try:
                os.rename(str(release), doomed, src_dir_fd=logs, dst_dir_fd=self._directory)
            finally:
                os.close(logs)
            delete(self._directory, doomed, freed)

    def _drop_record(self, name: str, release: Release, freed: Freed) -> None:
        """Delete a record in the trash, but first put it back if it was taken from a release that is installed again."""
        with contextlib.suppress(FileNotFoundError):
            if self._root.occupied(release):
                kept = name.partition(".")[2]
                with contextlib.suppress(FileExistsError):
                    os.link(
                        name, kept, src_dir_fd=self._directory, dst_dir_fd=self._root.manifests, follow_symlinks=False
                    )
                    os.fsync(self._root.manifests)
            delete(self._directory, name, freed)


def sweep_trash(root: Root, warn: Callable[[str], None] = lambda _: None) -> Freed:
    """Finish removals that were interrupted; `warn` is told what cannot be deleted. Raises OSError."""
    with Trash(root) as trash:
        return trash.sweep(warn)

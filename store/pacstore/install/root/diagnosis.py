"""Diagnosis: whether an install root can hold releases, and how well: space, kind of file system, what it can do.

Everything is tried in a directory of an unpredictable name, which is removed again. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import Refused
from pacstore.finding import Finding, Level, failed
from pacstore.install.root.entrance import open_entrance
from pacstore.install.root.layout import PRIVATE
from pacstore.install.tree.cloning import can_clone
from pacstore.install.tree.directories import open_beneath
from pacstore.install.tree.disk import DIRECTORY_FLAGS, folds_case, free_space
from pacstore.limits import GIB
from pacstore.mounts import find_mount, mounts

_LITTLE_BYTES = 20 * GIB
_FEW_INODES = 500_000
_PARTS = ("releases", "current", PRIVATE, f"{PRIVATE}/staging", f"{PRIVATE}/manifests")


@dataclass(frozen=True)
class _Place:
    """`root` as it was named, and `existing`: itself, or the directory in which it would be made, without links."""

    root: Path
    existing: Path


def examine_root(root: Path, *, uid: int, mounted: Callable[[], str] = mounts) -> Iterator[Finding]:
    """What there is to say of the install root `root` for the user `uid`. Never raises for what it finds.

    `mounted` gives the text of /proc/self/mounts.
    """
    existing = root if root.exists() else root.parent
    try:
        os.close(open_entrance(existing, uid=uid))
        place = _Place(root, existing.resolve(strict=True))
    except Refused as error:
        yield failed("exists", error)
        return
    except OSError as error:
        message = f"{existing} cannot be used: {(error.strerror or str(error)).lower()}"
        yield Finding("exists", Level.FAIL, message, "make the directory, or name another --root")
        return
    yield _existence(place)
    yield from _owner(place, uid)
    yield _mount(place, mounted())
    yield from _space(place)
    yield from _parts(place)
    yield from _powers(place)


def _existence(place: _Place) -> Finding:
    if place.root.exists():
        known = (place.root / PRIVATE).is_dir()
        text = "is an install root" if known else "is there, and nothing was installed in it yet"
        return Finding("exists", Level.OK, f"{place.root} {text}", values={"installed": known})
    return Finding(
        "exists", Level.OK, f"{place.root} will be made by the first installation", values={"installed": False}
    )


def _owner(place: _Place, uid: int) -> Iterator[Finding]:
    found = os.stat(place.existing)
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if open_to_all and place.root.exists():
        hint = f"chmod o-w {place.existing}"
        yield Finding(
            "owner", Level.WARN, f"everybody may write to {place.existing}, and replace what is installed", hint
        )
    elif found.st_uid not in (0, uid) and place.root.exists():
        text = f"{place.existing} belongs to the user {found.st_uid}, who may change what is installed"
        yield Finding("owner", Level.WARN, text, "install as that user, or in a directory of your own")


def _mount(place: _Place, mounted: str) -> Finding:
    mount = find_mount(place.existing, mounted)
    if mount is None:
        return Finding("file system", Level.SKIP, "the system does not tell what kind of file system it is")
    values = {"kind": mount.kind, "mount": mount.point, "options": sorted(mount.options)}
    if "ro" in mount.options:
        hint = "mount it for writing, or name another --root"
        return Finding("file system", Level.FAIL, f"{mount.point} is mounted read-only", hint, values)
    if "noexec" in mount.options:
        hint = "mount it without noexec, if the releases have programs that are to run from here"
        return Finding(
            "file system", Level.WARN, f"{mount.point} is mounted noexec: no program runs from it", hint, values
        )
    if mount.is_network:
        text = f"{mount.point} is a network file system ({mount.kind}): it works, without locks, but small files are slow there"
        hint = "install from one machine; clients may cache what current leads to for a few seconds"
        return Finding("file system", Level.WARN, text, hint, values)
    return Finding("file system", Level.OK, f"{mount.kind}, mounted on {mount.point}", values=values)


def _space(place: _Place) -> Iterator[Finding]:
    descriptor = os.open(place.existing, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        free = free_space(descriptor)
    finally:
        os.close(descriptor)
    values = {"bytes": free.bytes}
    level = Level.OK if free.bytes >= _LITTLE_BYTES else Level.WARN
    hint = "" if level is Level.OK else "pacball install RELEASE --plan says what one needs"
    yield Finding("space", level, f"{free.bytes / 1e9:,.1f} GB are free", hint, values)
    if free.inodes is not None:
        level = Level.OK if free.inodes >= _FEW_INODES else Level.WARN
        hint = "" if level is Level.OK else "releases have up to some 100,000 files"
        yield Finding("inodes", level, f"{free.inodes:,} inodes are free", hint, {"inodes": free.inodes})


def _parts(place: _Place) -> Iterator[Finding]:
    """Everything must be on one file system: trees are renamed from staging to their place."""
    device = os.stat(place.existing).st_dev
    for name in _PARTS:
        path = place.root / name
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode):
            hint = "make it a directory again; name another --root for another disk"
            yield Finding("one file system", Level.FAIL, f"{path} is a symbolic link, which is not followed", hint)
        elif found.st_dev != device:
            hint = "nothing can be renamed across; name another --root for another disk"
            yield Finding("one file system", Level.FAIL, f"{path} is another file system than {place.root}", hint)


@contextmanager
def _probing(directory: Path) -> Iterator[tuple[Path, int]]:
    """A new directory in `directory`, and a descriptor of it; gone afterwards."""
    path = directory / f".pacball-probe-{secrets.token_hex(8)}"
    path.mkdir(mode=0o700)
    try:
        descriptor = os.open(path, DIRECTORY_FLAGS)
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _powers(place: _Place) -> Iterator[Finding]:
    try:
        with _probing(place.existing) as (path, descriptor):
            yield Finding("writable", Level.OK, f"{place.existing} can be written to")
            for step, probe in _PROBES.items():
                try:
                    yield probe(path, descriptor)
                except OSError as error:
                    yield Finding(step, Level.WARN, f"could not be tried: {(error.strerror or str(error)).lower()}")
    except OSError as error:
        text = f"{place.existing} cannot be written to: {(error.strerror or str(error)).lower()}"
        yield Finding("writable", Level.FAIL, text, "run as a user who may write there, or name another --root")


def _case(_: Path, descriptor: int) -> Finding:
    if folds_case(descriptor):
        text = "names that differ in case only are one name here: releases that have such names are refused"
        return Finding("case", Level.WARN, text, "use a file system that tells them apart", {"folds": True})
    return Finding("case", Level.OK, "names that differ in case are told apart", values={"folds": False})


def _reflink(_: Path, descriptor: int) -> Finding:
    if can_clone(descriptor):
        return Finding(
            "reflink", Level.OK, "equal files of releases share their blocks (reflinks)", values={"can": True}
        )
    text = "no reflinks: what releases share is copied, unless --share=hardlink is given"
    return Finding("reflink", Level.OK, text, values={"can": False})


def _hard_links(path: Path, _: int) -> Finding:
    (path / "file").touch()
    try:
        os.link(path / "file", path / "link")
    except OSError:
        text = "no hard links can be made: releases that have some cannot be installed"
        return Finding("hard links", Level.WARN, text, "use another file system", {"can": False})
    return Finding("hard links", Level.OK, "hard links can be made", values={"can": True})


def _symlinks(path: Path, _: int) -> Finding:
    try:
        os.symlink("target", path / "symlink")
    except OSError:
        text = "no symbolic links can be made, and current is one"
        return Finding("symbolic links", Level.FAIL, text, "use another file system", {"can": False})
    return Finding("symbolic links", Level.OK, "symbolic links can be made", values={"can": True})


def _modes(path: Path, _: int) -> Finding:
    file = path / "program"
    file.touch()
    seen = []
    for mode in (0o755, 0o644):
        with contextlib.suppress(OSError):
            file.chmod(mode)
        seen.append(stat.S_IMODE(file.stat().st_mode))
    if seen == [0o755, 0o644]:
        return Finding("modes", Level.OK, "files can be executable or not", values={"can": True})
    text = "modes of files cannot be set: pacball verify will call them wrong"
    return Finding("modes", Level.WARN, text, "use another file system, or other options of the mount", {"can": False})


def _openat2(path: Path, descriptor: int) -> Finding:
    (path / "deep").mkdir()
    try:
        os.close(open_beneath(descriptor, b"deep"))
    except OSError:
        text = (
            "openat2 is missing (Linux before 5.6, or a container that forbids it): directories are opened one by one"
        )
        return Finding("openat2", Level.OK, text, values={"can": False})
    return Finding("openat2", Level.OK, "openat2 keeps every path below the root", values={"can": True})


_PROBES: dict[str, Callable[[Path, int], Finding]] = {
    "case": _case,
    "symbolic links": _symlinks,
    "hard links": _hard_links,
    "modes": _modes,
    "reflink": _reflink,
    "openat2": _openat2,
}

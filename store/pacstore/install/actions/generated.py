"""The record of what a release's own commands made in its tree when it was installed (docs/actions.md).

    ROOT/.pacball/manifests/RELEASE.generated     one JSON object; there only where commands were run

An attempt writes its record in its own directory, where it is durable before the tree gets its name. Whoever's tree got the
name then moves its record into place. Of two installers at once, only one has its tree taken away from its attempt: an attempt
that has a record but no tree is that one, and where it was killed in between, `settle` does the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from pacstore.digest import Digest
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.globs import Patterns
from pacstore.holdings import check_format, decode_json
from pacstore.install.root.layout import PRIVATE, Root
from pacstore.install.root.staging import RECORD, TAKEN, TREE
from pacstore.install.tree.disk import DIRECTORY_FLAGS, disk_at, write_durably
from pacstore.install.tree.paths import TOP, Children, Paths
from pacstore.limits import LIMITS, MIB
from pacstore.release import Release
from pacstore.tree import EntryKind, check_name, check_target

FORMAT = 1
RECORD_BYTES = 64 * MIB
PATHS = 200_000
_SIZE = 2**63
_KINDS = {kind.name.lower(): kind for kind in EntryKind}
_KEYS = {"format", "release", "tree_digest", "patterns", "paths"}


@dataclass(frozen=True, slots=True)
class Made:
    """One entry that a command made or changed. `bytes` and `digest` are of a file, `target` of a symbolic link."""

    kind: EntryKind
    bytes: int = 0
    digest: Digest | None = None
    target: str = ""

    def encode(self) -> dict[str, object]:
        """As it stands in the record."""
        value: dict[str, object] = {"kind": self.kind.name.lower()}
        if self.digest is not None:
            value |= {"bytes": self.bytes, "digest": self.digest.hex}
        if self.kind is EntryKind.SYMLINK:
            value["target"] = self.target
        return value

    @classmethod
    def decode(cls, value: object) -> Made:
        """Raises ValueError or PacballError for what is none."""
        if not isinstance(value, dict):
            raise TypeError("an entry is an object")
        kind = _KINDS[str(value.get("kind"))]
        keys = {"kind", *(("bytes", "digest") if kind.is_file else ("target",) if kind is EntryKind.SYMLINK else ())}
        if set(value) != keys:
            raise ValueError(f"a {kind.name.lower()} has the keys {sorted(keys)}")
        if kind.is_file:
            return cls(kind, _number(value["bytes"]), Digest.parse(value["digest"]))
        if kind is EntryKind.SYMLINK:
            target = _text(value["target"])
            check_target(target.encode())
            return cls(kind, target=target)
        return cls(kind)


@dataclass(frozen=True)
class Generated:
    """What the commands of `release` made: by path from its top, with '/' between names.

    `paths` has every directory, file and link that was made, and every file or link of the release that was changed; the
    release's own entries are never removed. `patterns`: what was declared; anything else that meets them came later.
    """

    release: Release
    tree_digest: Digest
    patterns: Patterns
    paths: Mapping[str, Made]

    def encode(self) -> bytes:
        """The record's bytes. Raises Refused where there is too much."""
        value = {
            "format": FORMAT,
            "release": str(self.release),
            "tree_digest": self.tree_digest.hex,
            "patterns": list(self.patterns.texts),
            "paths": {path: made.encode() for path, made in sorted(self.paths.items())},
        }
        data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        if len(data) > RECORD_BYTES or len(self.paths) > PATHS:
            raise Refused(
                f"its commands generate more than {PATHS} paths, or {RECORD_BYTES >> 20} MiB of names",
                place=str(self.release),
                hint="tell the publisher of the release",
            )
        return data

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Generated:
        """The record in `data`. Raises Corrupt, TooLarge or NewerFormat."""
        value = decode_json(data, limit=RECORD_BYTES, place=place)
        check_format(value, FORMAT, place)
        try:
            return _generated(value, place)
        except (Refused, KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"is no record of generated paths: {error}", place=place) from error


def _generated(value: dict[str, object], place: str) -> Generated:
    if set(value) != _KEYS:
        raise ValueError(f"it has the keys {sorted(_KEYS)}")
    patterns, paths = value["patterns"], value["paths"]
    if not isinstance(patterns, list) or not isinstance(paths, dict) or len(paths) > PATHS:
        raise TypeError("patterns are a list, paths an object of bounded size")
    return Generated(
        release=Release.parse(_text(value["release"])),
        tree_digest=Digest.parse(_text(value["tree_digest"])),
        patterns=Patterns([_text(pattern) for pattern in patterns], place=place),
        paths={_path(path): Made.decode(made) for path, made in paths.items()},
    )


def read_generated(root: Root, release: Release) -> Generated | None:
    """What the commands of the installed `release` made; None where none were run.

    Raises Corrupt, TooLarge, NewerFormat for a damaged record, Unavailable when the disk fails.
    """
    settle(root)
    place = str(root.path / PRIVATE / "manifests" / _name(release))
    with disk_at(place):
        data = _read(root.manifests, _name(release))
    if data is None:
        return None
    found = Generated.parse(data, place=place)
    if found.release != release:
        raise Corrupt(f"is of another release: {found.release}", place=place)
    return found


def changed_files(generated: Generated, paths: Paths) -> list[int]:
    """The numbers of the release's own files, whose entries are `paths`, that the commands changed."""
    children = Children(paths)
    names: dict[int, dict[bytes, int]] = {}
    found = []
    for path, made in generated.paths.items():
        at = TOP if made.kind is not EntryKind.DIRECTORY else None
        for name in path.encode().split(b"/"):
            if at is None:
                break
            if at not in names:
                names[at] = {paths.name(entry): entry for entry in children.of(at).tolist()}
            at = names[at].get(name)
        if at is not None and EntryKind(int(paths.tree.kinds[at])).is_file:
            found.append(int(paths.file_entries.searchsorted(at)))
    return found


def has_record(root: Root, release: Release) -> bool:
    """Whether there is a record of `release`, of whatever content. Raises OSError."""
    settle(root)
    return _exists(root.manifests, _name(release))


def stage(attempt: int, generated: Generated) -> None:
    """Write the record durably into the open directory of an attempt, before its tree gets its name. Raises OSError."""
    write_durably(attempt, RECORD, generated.encode(), through=attempt)


def place_record(root: Root, attempt: int) -> None:
    """Move the record of an attempt, whose tree has got its release's name, into place, durably.

    Nothing is done where there is none. Raises Corrupt for a damaged one, OSError.
    """
    data = _read(attempt, RECORD)
    if data is None:
        return
    release = Generated.parse(data, place=RECORD).release
    with contextlib.suppress(FileNotFoundError):  # another has done it
        os.rename(RECORD, _name(release), src_dir_fd=attempt, dst_dir_fd=root.manifests)
    os.fsync(root.manifests)


def settle(root: Root) -> None:
    """Move the records into place of those who were killed when their tree had got its name. Raises OSError."""
    for name in os.listdir(root.staging):
        try:
            attempt = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
        except OSError:
            continue
        try:
            # A tree that is taken over is renamed, from the one name to the other and never back.
            if _exists(attempt, RECORD) and not _exists(attempt, TREE) and not _exists(attempt, TAKEN):
                with contextlib.suppress(PacballError):
                    place_record(root, attempt)
        finally:
            os.close(attempt)


def _name(release: Release) -> str:
    return f"{release}.generated"


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(directory: int, name: str) -> bytes | None:
    """The file's bytes, one more than the limit at most; None where there is no such file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        return file.read(RECORD_BYTES + 1)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _SIZE:
        raise ValueError("a size was expected")
    return value


def _path(text: str) -> str:
    names = text.split("/")
    for name in names:
        check_name(name.encode())
    if len(text.encode()) > LIMITS.path_bytes:
        raise ValueError("a path is too long")
    return text

"""What a backup says of itself: `private/backup.json`, one file, replaced as a whole when a backup has come to its end.

A backup is a directory with the layout of a store. The record names one state of the store; what belongs to it is in the backup,
whatever a later attempt that was interrupted has added: so the last finished state can be restored at any time.
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from pacstore.backends.directory import read_bounded
from pacstore.digest import Digest
from pacstore.durable import replace_file
from pacstore.errors import Corrupt, NewerFormat, NotFound, Refused, TooLarge
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import MIB

FORMAT = 1
KIND = "pacball backup"
RECORD_NAME = "backup.json"
RECORD_BYTES = 256 * MIB
INCOMING = "incoming"
"""Below private/: files being written. A store's own is called otherwise, so no publisher takes a backup for a store of his."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PLAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_PATH = re.compile(
    rf"public/(?:store\.json|catalog/{_PLAIN}|placements/{_PLAIN})\Z"
    rf"|private/(?:settings\.json|[A-Za-z0-9_-]+\.sqlite|catalog(?:/{_PLAIN}){{1,4}})\Z"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the recorded state: its length in bytes and its digest."""

    length: int
    digest: Digest

    @classmethod
    def of(cls, data: bytes) -> Listed:
        """A file of these bytes."""
        return cls(len(data), Digest.of(data))

    @classmethod
    def of_file(cls, path: Path) -> Listed:
        """The file `path`. Raises OSError."""
        hasher, length = blake3(), 0
        with open(path, "rb", buffering=0) as file:
            while data := file.read(MIB):
                hasher.update(data)
                length += len(data)
        return cls(length, Digest(hasher.digest()))


def is_recorded(path: str) -> bool:
    """Whether `path`, below a backup or a store, is one of a file that records list: one that restoring writes."""
    return bool(_PATH.match(path)) and ".." not in path


@dataclass(frozen=True)
class BackupRecord:
    """The record of a backup.

    `complete`: the recorded state lacks nothing that the store's catalog names; then `damaged` is empty, which otherwise has the
    paths that the store could not give. A backup that never came to its end has no state: `time` is 0. `time` is when
    the recorded state was, in seconds since 1970; `begun` when a later attempt began that has not come to its end, or 0.
    `files`: all that is not named by its own digest, by path below the backup. `held`: the releases that the store held, or
    should have held. `catalog` is the digest of the catalog's first root, None if there is no catalog.
    """

    complete: bool = False
    catalog_version: int = 0
    time: int = 0
    packs: bool = False
    catalog: Digest | None = None
    held: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    begun: int = 0
    files: dict[str, Listed] = field(default_factory=dict)

    @property
    def has_state(self) -> bool:
        """Whether there is anything to restore."""
        return self.time > 0

    def encode(self) -> bytes:
        """The bytes of the record."""
        return encode_json(
            {
                "begun": _date(self.begun),
                "catalog": self.catalog.hex if self.catalog else "",
                "catalog_version": self.catalog_version,
                "complete": self.complete,
                "damaged": list(self.damaged),
                "files": {path: [one.length, one.digest.hex] for path, one in self.files.items()},
                "format": FORMAT,
                "held": list(self.held),
                "kind": KIND,
                "packs": self.packs,
                "time": _date(self.time),
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> BackupRecord:
        """The record in `data`. Raises Corrupt, TooLarge or NewerFormat."""
        value = decode_json(data, limit=RECORD_BYTES, place=place)
        if value.get("kind") != KIND:
            raise Corrupt("is not the record of a backup", place=place)
        check_format(value, FORMAT, place)
        try:
            return cls(
                complete=_flag(value, "complete"),
                catalog_version=_number(value.get("catalog_version")),
                time=_moment(value, "time"),
                packs=_flag(value, "packs"),
                catalog=Digest.parse(_text(value, "catalog")) if _text(value, "catalog") else None,
                held=tuple(_texts(value.get("held"))),
                damaged=tuple(_texts(value.get("damaged"))),
                begun=_moment(value, "begun"),
                files=dict(_files(value.get("files"))),
            )
        except (ValueError, Refused) as error:
            raise Corrupt(f"is not a valid record of a backup: {error}", place=place) from error


def read_record(backup: Path) -> BackupRecord:
    """The record of the backup in directory `backup`. Raises NotFound where there is none, Corrupt, NewerFormat, Unavailable."""
    path = record_path(backup)
    try:
        return BackupRecord.parse(read_bounded(path, RECORD_BYTES), place=str(path))
    except NotFound:
        raise NotFound("is not a backup of a pacball store", place=str(backup), hint="check the path") from None
    except TooLarge as error:
        raise Corrupt(error.message, place=str(path)) from error
    except NewerFormat:
        raise
    except Corrupt as error:
        hint = "run pacball store backup to it again, or restore from another backup"
        raise Corrupt(error.message, place=error.place, hint=hint) from error


def write_record(backup: Path, record: BackupRecord) -> None:
    """Replace the record, atomically and durably. Raises Unavailable."""
    replace_file(record_path(backup), record.encode(), staging=backup / "private" / INCOMING, mode=0o600)


def record_path(backup: Path) -> Path:
    """Where the record of a backup is."""
    return backup / "private" / RECORD_NAME


def _date(seconds: int) -> str:
    return time.strftime(_TIME, time.gmtime(seconds)) if seconds else ""


def _moment(value: dict[str, object], key: str) -> int:
    text = _text(value, key)
    return timegm(time.strptime(text, _TIME)) if text else 0


def _text(value: dict[str, object], key: str) -> str:
    found = value.get(key, "")
    if not isinstance(found, str):
        raise ValueError(f"its {key} is no text")  # noqa: TRY004 - one kind for all that is no record
    return found


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("a list of texts is none")
    return value


def _flag(value: dict[str, object], key: str) -> bool:
    found = value.get(key)
    if not isinstance(found, bool):
        raise ValueError(f"its {key} is neither true nor false")  # noqa: TRY004
    return found


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("a number is none")
    return value


def _files(value: object) -> list[tuple[str, Listed]]:
    if not isinstance(value, dict):
        raise ValueError("its files are no object")  # noqa: TRY004
    found = []
    for path, listed in value.items():
        # Restoring writes to these paths.
        if not is_recorded(path):
            raise ValueError(f"{path!r} is no file of a store")
        if not isinstance(listed, list) or len(listed) != 2 or not isinstance(listed[1], str):
            raise ValueError(f"what it says of {path} is not a length and a digest")
        found.append((path, Listed(_number(listed[0]), Digest.parse(listed[1]))))
    return found

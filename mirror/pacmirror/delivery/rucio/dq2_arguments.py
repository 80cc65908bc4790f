"""What scripts for DQ2 give to its verbs: lists of files, GUIDs, checksums, lifetimes. Nothing here asks Rucio."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.naming import Did
from pacstore.errors import Refused, printable

_CHECKSUM = re.compile(r"(?:ad:([0-9A-Fa-f]{8})|md5:([0-9A-Fa-f]{32}))\Z")
_GUID = re.compile(r"\{?([0-9A-Fa-f]{8})-?([0-9A-Fa-f]{4})-?([0-9A-Fa-f]{4})-?([0-9A-Fa-f]{4})-?([0-9A-Fa-f]{12})\}?\Z")
_SPAN = re.compile(r"(?:(\d{1,5}) days?(?:, (?=\d)|\Z))?(?:(\d{1,4}):(\d{1,2}):(\d{1,2}))?\Z")
_BYTES = 2**63


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as a script names it: `lfn` in its own words, `did` what that is in Rucio. Checksums are "" where not given."""

    lfn: str
    did: Did
    length: int
    adler32: str
    md5: str
    metadata: Mapping[str, Any]
    pfn: str

    def fields(self) -> dict[str, Any]:
        """As Rucio's client takes it."""
        sums = {"adler32": self.adler32, "md5": self.md5, "pfn": self.pfn, "meta": dict(self.metadata)}
        return {**self.did.fields(), "bytes": self.length, **{key: value for key, value in sums.items() if value}}

    def differs(self, known: FileRecord) -> str:
        """In what it is not the file that Rucio knows by that name; "" where it is."""
        if not known.is_file:
            return "is no file, but a dataset or container"
        if known.length != self.length:
            return f"has {known.length} bytes in Rucio, not {self.length}"
        for kind, here, there in (("adler32", self.adler32, known.adler32), ("md5", self.md5, known.md5)):
            if here and there and here != there:
                return f"has the {kind} {there} in Rucio, not {here}"
        return ""


def listed_files(
    scope: str,
    lfns: Sequence[str],
    guids: Sequence[str | None],
    sizes: Sequence[int],
    checksums: Sequence[str | None],
    *,
    pfns: Sequence[str],
    events: Sequence[int],
    lumiblocknrs: Sequence[int],
) -> list[ListedFile]:
    """The files that lists of the same length name; the last three may be empty. `scope` is that of an LFN without one.

    Raises Refused for lists that do not fit together, and for what cannot be a name, GUID, size or checksum.
    """
    needed = {"guids": guids, "sizes": sizes, "checksums": checksums}
    optional = {"pfns": pfns, "events": events, "lumiblocknrs": lumiblocknrs}
    for name, values in {**needed, **optional}.items():
        if len(values) != len(lfns) and (values or name in needed):
            raise Refused(f"has {len(values)} entries for {len(lfns)} LFNs", place=name, hint="one for each LFN")
    found = []
    for place, lfn in enumerate(lfns):
        did = Did.parse(lfn) if ":" in lfn else Did(scope, lfn)
        adler32, md5 = parse_checksum(checksums[place], place=str(did))
        metadata = dict(_metadata(str(did), guids[place], _at(events, place), _at(lumiblocknrs, place)))
        length = _length(sizes[place], place=str(did))
        found.append(ListedFile(lfn, did, length, adler32, md5, metadata, _at(pfns, place) or ""))
    _check_single(found)
    return found


def parse_checksum(text: str | None, *, place: str) -> tuple[str, str]:
    """adler32 and md5, one of them "", of `ad:<8 hex digits>` or `md5:<32 hex digits>`; both "" for "" and None."""
    if not text:
        return "", ""
    match = _CHECKSUM.match(text)
    if match is None:
        hint = "write ad:<8 hex digits> (adler32) or md5:<32 hex digits>"
        raise Refused(f"{printable(text[:80])} is no checksum of DQ2", place=place, hint=hint)
    return (match[1] or "").lower(), (match[2] or "").lower()


def parse_lifetime(text: str, *, place: str) -> int:
    """The seconds in "X days", "X days, HH:MM:SS" or "HH:MM:SS", more than none. Raises Refused."""
    match = _SPAN.match(text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        hint = "write X days; X days, HH:MM:SS; or HH:MM:SS"
        raise Refused(f"{printable(text[:80])} is no lifetime", place=place, hint=hint)
    return total


def format_guid(text: str) -> str:
    """A GUID as DQ2 writes it, in upper case with four '-'; other text as it is."""
    match = _GUID.match(text)
    return "-".join(match.groups()).upper() if match else text


def _length(size: object, *, place: str) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < _BYTES:
        raise Refused(f"{printable(repr(size)[:80])} is no size in bytes", place=place)
    return size


def _metadata(place: str, guid: str | None, events: int | None, lumiblocknr: int | None) -> Iterator[tuple[str, Any]]:
    if guid:
        if not _GUID.match(guid):
            hint = "32 hex digits, as 8-4-4-4-12; or None where there is none"
            raise Refused(f"{printable(guid[:80])} is no GUID", place=place, hint=hint)
        yield "guid", guid
    if events is not None:
        yield "events", events
    if lumiblocknr is not None:
        yield "lumiblocknr", lumiblocknr


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if values else None


def _check_single(files: Sequence[ListedFile]) -> None:
    seen: set[Did] = set()
    for file in files:
        if file.did in seen:
            raise Refused("is there twice among the LFNs", place=str(file.did))
        seen.add(file.did)

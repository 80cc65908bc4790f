"""A release as the TUF targets of a catalog, and back (FORMAT.md section 8)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuf.api.metadata import DelegatedRole, TargetFile

from pacstore.digest import Digest
from pacstore.errors import Corrupt, Refused, printable
from pacstore.limits import LIMITS
from pacstore.release import Release
from pacstore.storage import TARGETS_TOP
from pacstore.trust.metadata import LINE_PREFIX, PLACEMENT_PREFIX
from pacstore.trust.targets import CatalogRelease, SignedDocument, Withdrawal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MANIFEST = "manifest"
_ATTRIBUTES = "attributes"
_PLACEMENT = "placement"
_PROVENANCE = "provenance"
_WITHDRAWN = "withdrawn"
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which JSON can carry."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MAX_INTEGER = (1 << 63) - 1


def line_role(project: str) -> str:
    """The role that signs manifests and attributes of a line."""
    return f"{LINE_PREFIX}{project}"


def placement_role(project: str) -> str:
    """The role that signs placements of a line."""
    return f"{PLACEMENT_PREFIX}{project}"


def projects_of(roles: Iterable[str]) -> list[str]:
    """The projects that have a line among `roles`, sorted."""
    return sorted(role.removeprefix(LINE_PREFIX) for role in roles if role.startswith(LINE_PREFIX))


def delegations(project: str, *, line_threshold: int = 1, online_threshold: int = 1) -> list[DelegatedRole]:
    """The two roles of a line, in the order in which they must stand, without keys."""
    placement = DelegatedRole(
        placement_role(project), [], online_threshold, True, paths=[f"{TARGETS_TOP}/{project}/*/placement"]
    )
    line = DelegatedRole(line_role(project), [], line_threshold, True, paths=[f"{TARGETS_TOP}/{project}/*/*"])
    return [placement, line]


def paths_of(release: Release) -> tuple[str, str, str, str]:
    """The target paths of a release: manifest, attributes, placement, provenance."""
    top = f"{TARGETS_TOP}/{release.project}/{release}"
    return f"{top}/{_MANIFEST}", f"{top}/{_ATTRIBUTES}", f"{top}/{_PLACEMENT}", f"{top}/{_PROVENANCE}"


def encode_line(entry: CatalogRelease) -> list[TargetFile]:
    """The targets that the line's role signs. Raises Refused for a withdrawal that says nothing sensible."""
    manifest, attributes, _, provenance = paths_of(entry.release)
    custom: dict[str, object] = {
        "tree_digest": entry.tree_digest.hex,
        "bytes": entry.total_bytes,
        "files": entry.files,
        "published": _format_time(entry.published),
    }
    if entry.withdrawal is not None:
        custom[_WITHDRAWN] = _encode_withdrawal(entry.withdrawal, entry.release)
    targets = [_target(manifest, entry.manifest, custom), _target(attributes, entry.attributes, {})]
    if entry.provenance is not None:
        targets.append(_target(provenance, entry.provenance, {}))
    return targets


def encode_placement(entry: CatalogRelease) -> TargetFile:
    """The target that the placement role signs."""
    return _target(paths_of(entry.release)[2], entry.placement, {"number": entry.placement_number})


def decode(
    release: Release, line: Mapping[str, TargetFile], placements: Mapping[str, TargetFile]
) -> CatalogRelease | None:
    """The release that these targets, by path, describe, or None if its line does not list it. Raises Corrupt."""
    manifest, attributes, placement, provenance = paths_of(release)
    if manifest not in line:
        return None
    if attributes not in line or placement not in placements:
        raise _wrong("is incomplete in the catalog: its attributes or placement are missing", place=str(release))
    custom = _custom(line[manifest])
    return CatalogRelease(
        release=release,
        tree_digest=_digest(custom, "tree_digest", manifest),
        manifest=_document(line[manifest], LIMITS.manifest_bytes),
        attributes=_document(line[attributes], LIMITS.attributes_bytes),
        placement=_document(placements[placement], LIMITS.placement_bytes),
        placement_number=_integer(_custom(placements[placement]), "number", placement, least=1),
        total_bytes=_integer(custom, "bytes", manifest),
        files=_integer(custom, "files", manifest),
        published=_time(custom.get("published"), "time of publication", manifest),
        withdrawal=_decode_withdrawal(custom[_WITHDRAWN], release, manifest) if _WITHDRAWN in custom else None,
        provenance=_document(line[provenance], LIMITS.provenance_bytes) if provenance in line else None,
    )


def decode_all(
    project: str, line: Mapping[str, TargetFile], placements: Mapping[str, TargetFile]
) -> Iterator[CatalogRelease]:
    """Every release of a line, in the order of their names. Raises Corrupt."""
    names = [_release_in(path, project) for path in line if path.endswith(f"/{_MANIFEST}")]
    for release in sorted(names):
        entry = decode(release, line, placements)
        if entry is not None:
            yield entry


def _wrong(message: str, *, place: str) -> Corrupt:
    """The error that a catalog says nothing sensible, although whoever may do so has signed it."""
    return Corrupt(message, place=place, hint="it was signed like this: tell the operator of the catalog")


def _target(path: str, document: SignedDocument, custom: dict[str, object]) -> TargetFile:
    fields = {"custom": {"digest": document.digest.hex, **custom}}
    return TargetFile(document.length, {"sha256": document.sha256.hex()}, path, fields)


def _release_in(path: str, project: str) -> Release:
    # A line may only speak for its own project, whatever paths its metadata lists.
    parts = path.split("/")
    if len(parts) != 4 or parts[:2] != [TARGETS_TOP, project]:
        raise _wrong(f"is not a path that the line {project} may sign", place=printable(path[:200]))
    try:
        release = Release.parse(parts[2])
    except Refused as error:
        raise _wrong("names no release", place=printable(path[:200])) from error
    if release.project != project:
        raise _wrong(f"is not a release of the line {project}", place=str(release))
    return release


def _custom(target: TargetFile) -> dict[str, object]:
    custom = target.custom
    if not isinstance(custom, dict):
        raise _wrong("has no custom fields", place=target.path)
    return custom


def _document(target: TargetFile, limit: int) -> SignedDocument:
    sha256 = target.hashes.get("sha256")
    if not isinstance(sha256, str) or not _SHA256.match(sha256):
        raise _wrong("has no sha256 of 64 lower-case hexadecimal digits", place=target.path)
    length = _integer({"length": target.length}, "length", target.path, most=limit)
    return SignedDocument(_digest(_custom(target), "digest", target.path), length, bytes.fromhex(sha256))


def _digest(custom: dict[str, object], key: str, place: str) -> Digest:
    value = custom.get(key)
    try:
        return Digest.parse(value if isinstance(value, str) else "")
    except Refused as error:
        raise _wrong(f"its {key} is not a digest", place=place) from error


def _integer(custom: dict[str, object], key: str, place: str, *, least: int = 0, most: int = _MAX_INTEGER) -> int:
    value = custom.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(f"its {key} is not a whole number from {least} to {most}", place=place)
    return value


def _format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def _time(value: object, what: str, place: str) -> int:
    text = value if isinstance(value, str) else ""
    try:
        seconds = int(datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp())
    except ValueError:
        seconds = 0
    # strptime takes other spellings too: single digits, spaces, the digits of other scripts.
    if not text or _format_time(seconds) != text:
        raise _wrong(f"its {what} is not of the form YYYY-MM-DDTHH:MM:SSZ", place=place)
    return seconds


def _encode_withdrawal(withdrawal: Withdrawal, release: Release) -> dict[str, object]:
    reason = withdrawal.reason
    hint = f"write one line of 1 to {LIMITS.reason_characters} characters"
    if not 1 <= len(reason) <= LIMITS.reason_characters:
        raise Refused(f"the reason of its withdrawal has {len(reason)} characters", place=str(release), hint=hint)
    if not reason.isprintable() or not reason.strip():
        message = f"the reason of its withdrawal cannot be printed: {printable(reason)}"
        raise Refused(message, place=str(release), hint=hint)
    try:
        fields: dict[str, object] = {"at": _format_time(withdrawal.at), "reason": reason}
        _time(fields["at"], "time of withdrawal", str(release))
    except (ValueError, OverflowError, OSError, Corrupt) as error:
        raise Refused(f"{withdrawal.at} is no time at which it was withdrawn", place=str(release)) from error
    if withdrawal.replaced_by == release:
        raise Refused("cannot be replaced by itself", place=str(release), hint="name another release, or none")
    if withdrawal.replaced_by is not None:
        fields["replaced_by"] = str(withdrawal.replaced_by)
    return fields


def _decode_withdrawal(value: object, release: Release, place: str) -> Withdrawal:
    if not isinstance(value, dict):
        raise _wrong("its withdrawal is not an object", place=place)
    reason = value.get("reason")
    if not isinstance(reason, str) or not 1 <= len(reason) <= LIMITS.reason_characters or _NO_TEXT.search(reason):
        message = f"the reason of its withdrawal is not a text of 1 to {LIMITS.reason_characters} characters"
        raise _wrong(f"{message} without control characters", place=place)
    at = _time(value.get("at"), "time of withdrawal", place)
    if "replaced_by" not in value:
        return Withdrawal(at, reason)
    name = value["replaced_by"]
    try:
        replaced_by = Release.parse(name if isinstance(name, str) else "")
    except Refused as error:
        raise _wrong("what replaces it is not the name of a release", place=place) from error
    if replaced_by == release:
        raise _wrong("it is replaced by itself", place=place)
    return Withdrawal(at, reason, replaced_by)

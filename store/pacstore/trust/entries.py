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
from pacstore.trust.metadata import LINE_PREFIX, PLACEMENT_PREFIX
from pacstore.trust.targets import CatalogRelease, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MANIFEST = "manifest"
_ATTRIBUTES = "attributes"
_PLACEMENT = "placement"
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
        placement_role(project), [], online_threshold, True, paths=[f"releases/{project}/*/placement"]
    )
    line = DelegatedRole(line_role(project), [], line_threshold, True, paths=[f"releases/{project}/*/*"])
    return [placement, line]


def paths_of(release: Release) -> tuple[str, str, str]:
    """The target paths of a release: manifest, attributes, placement."""
    top = f"releases/{release.project}/{release}"
    return f"{top}/{_MANIFEST}", f"{top}/{_ATTRIBUTES}", f"{top}/{_PLACEMENT}"


def encode_line(entry: CatalogRelease) -> list[TargetFile]:
    """The targets that the line's role signs."""
    manifest, attributes, _ = paths_of(entry.release)
    custom = {
        "tree_digest": entry.tree_digest.hex,
        "bytes": entry.total_bytes,
        "files": entry.files,
        "published": datetime.fromtimestamp(entry.published, UTC).strftime(_TIME),
    }
    return [_target(manifest, entry.manifest, custom), _target(attributes, entry.attributes, {})]


def encode_placement(entry: CatalogRelease) -> TargetFile:
    """The target that the placement role signs."""
    return _target(paths_of(entry.release)[2], entry.placement, {"number": entry.placement_number})


def decode(
    release: Release, line: Mapping[str, TargetFile], placements: Mapping[str, TargetFile]
) -> CatalogRelease | None:
    """The release that these targets, by path, describe, or None if its line does not list it. Raises Corrupt."""
    manifest, attributes, placement = paths_of(release)
    if manifest not in line:
        return None
    if attributes not in line or placement not in placements:
        raise Corrupt("is incomplete in the catalog: its attributes or placement are missing", place=str(release))
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
        published=_time(custom, manifest),
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


def _target(path: str, document: SignedDocument, custom: dict[str, object]) -> TargetFile:
    fields = {"custom": {"digest": document.digest.hex, **custom}}
    return TargetFile(document.length, {"sha256": document.sha256.hex()}, path, fields)


def _release_in(path: str, project: str) -> Release:
    # A line may only speak for its own project, whatever paths its metadata lists.
    parts = path.split("/")
    if len(parts) != 4 or parts[:2] != ["releases", project]:
        raise Corrupt(f"is not a path that the line {project} may sign", place=printable(path[:200]))
    try:
        release = Release.parse(parts[2])
    except Refused as error:
        raise Corrupt("names no release", place=printable(path[:200])) from error
    if release.project != project:
        raise Corrupt(f"is not a release of the line {project}", place=str(release))
    return release


def _custom(target: TargetFile) -> dict[str, object]:
    custom = target.custom
    if not isinstance(custom, dict):
        raise Corrupt("has no custom fields", place=target.path)
    return custom


def _document(target: TargetFile, limit: int) -> SignedDocument:
    sha256 = target.hashes.get("sha256")
    if not isinstance(sha256, str) or not _SHA256.match(sha256):
        raise Corrupt("has no sha256 of 64 lower-case hexadecimal digits", place=target.path)
    length = _integer({"length": target.length}, "length", target.path, most=limit)
    return SignedDocument(_digest(_custom(target), "digest", target.path), length, bytes.fromhex(sha256))


def _digest(custom: dict[str, object], key: str, place: str) -> Digest:
    value = custom.get(key)
    try:
        return Digest.parse(value if isinstance(value, str) else "")
    except Refused as error:
        raise Corrupt(f"its {key} is not a digest", place=place) from error


def _integer(custom: dict[str, object], key: str, place: str, *, least: int = 0, most: int = _MAX_INTEGER) -> int:
    value = custom.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Corrupt(f"its {key} is not a whole number from {least} to {most}", place=place)
    return value


def _time(custom: dict[str, object], place: str) -> int:
    value = custom.get("published")
    try:
        moment = datetime.strptime(value if isinstance(value, str) else "", _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise Corrupt("its time of publication is not of the form YYYY-MM-DDTHH:MM:SSZ", place=place) from error
    return int(moment.timestamp())

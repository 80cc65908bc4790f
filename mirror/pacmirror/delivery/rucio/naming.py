"""Naming: what the objects of a store are called in Rucio, and back (FORMAT.md section 14).

    file        <64 hex digits>.pack, .manifest, .bundle        the object of that id
                RELEASE.b3-<64 hex digits of the tree digest>.sh        the pacball
    dataset     sw.RELEASE.b3-<16 hex digits of the tree digest>.p<number of the placement>
                sw.RELEASE.b3-<16 hex digits of the tree digest>.pacball
    container   sw.PROJECT

All of it fits the generic schema of Rucio and that of ATLAS, which differ. Nothing here needs Rucio.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from pacstore.digest import Digest
from pacstore.errors import Refused, printable
from pacstore.pacball.stub import file_name as pacball_name
from pacstore.release import Release, check_project
from pacstore.storage import ObjectKind
from pacstore.trust.targets import CatalogRelease

SCOPE = "sw"
"""The scope of releases, unless told otherwise."""
PREFIX = "sw."
"""How the names of our datasets and containers begin, in any scope."""
PACBALLS = "pacballs"
"""The directory below the base URL that has pacballs."""

_SCOPE = re.compile(r"[A-Za-z_.0-9-]{1,25}\Z")
# Generic: at most 250 of [/A-Za-z0-9][/A-Za-z0-9._-]*; ATLAS: no '/', and at least two. RSEs are the same in both.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,249}\Z")
_RSE = re.compile(r"[A-Z0-9]+(?:[_-][A-Z0-9]+)*\Z")
_FILE = re.compile(r"([0-9a-f]{64})\.(pack|manifest|bundle)\Z")
_DATASET = re.compile(r"sw\.(.+)\.b3-([0-9a-f]{16})\.p(0|[1-9][0-9]{0,17})\Z")
_PACBALL_DATASET = re.compile(r"sw\.(.+)\.b3-([0-9a-f]{16})\.pacball\Z")
_PACBALL = re.compile(r"(.+)\.b3-([0-9a-f]{64})\.sh\Z")
_TREE_DIGITS = 16


class FileKind(enum.StrEnum):
    """What the objects are that are registered; the value is how their names end."""

    PACK = "pack"
    MANIFEST = "manifest"
    BUNDLE = "bundle"

    @property
    def object_kind(self) -> ObjectKind:
        """The kind of object in a store."""
        return ObjectKind(f"{self.value}s")


class MetadataKey(enum.StrEnum):
    """The keys of a dataset's metadata; all of them are JSON metadata, so that one filter may name several.

    `project` and `version` by themselves would be columns of Rucio, of at most 50 characters, which no filter combines with
    others.
    """

    RELEASE = "sw_release"
    PROJECT = "sw_project"
    VERSION = "sw_version"
    PLATFORM = "sw_platform"
    TREE = "sw_tree"
    MANIFEST = "sw_manifest"
    BUNDLE = "sw_bundle"
    PACBALL = "sw_pacball"


@dataclass(frozen=True, slots=True, order=True)
class Did:
    """A data identifier of Rucio. Raises Refused for what cannot be one."""

    scope: str
    name: str

    def __post_init__(self) -> None:
        check_scope(self.scope)
        if not _NAME.match(self.name):
            hint = "2 to 250 letters, digits, '.', '_' and '-', beginning with a letter or digit"
            raise Refused("is no name that Rucio takes everywhere", place=printable(f"{self.scope}:{self.name[:260]}"),
                          hint=hint)  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> Did:
        """The DID written SCOPE:NAME. Raises Refused."""
        scope, colon, name = text.partition(":")
        if not colon:
            raise Refused("is no DID of Rucio", place=printable(text[:300]), hint="write SCOPE:NAME")
        return cls(scope, name)

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"

    def fields(self) -> dict[str, str]:
        """As Rucio's clients take it."""
        return {"scope": self.scope, "name": self.name}


@dataclass(frozen=True, slots=True)
class DatasetName:
    """What the name of a release's dataset says. `tree`: the first 16 digits of the tree digest."""

    release: Release
    tree: str
    placement_number: int


def check_scope(scope: str) -> None:
    """Raise Refused unless `scope` can be a scope in both schemas."""
    if not _SCOPE.match(scope):
        hint = "1 to 25 letters, digits, '.', '_' and '-'"
        raise Refused("is no scope of Rucio", place=printable(scope[:100]), hint=hint)


def check_rse(rse: str) -> None:
    """Raise Refused unless `rse` can be the name of an RSE."""
    if not _RSE.match(rse):
        hint = "upper-case letters and digits, with single '-' or '_' between"
        raise Refused("is no name of an RSE", place=printable(rse[:100]), hint=hint)


def file_name(kind: FileKind, digest: Digest) -> str:
    """The name of an object's file."""
    return f"{digest}.{kind}"


def parse_file_name(name: str) -> tuple[FileKind, Digest] | None:
    """The object whose file has that name; None for any other file."""
    match = _FILE.match(name)
    return (FileKind(match[2]), Digest.parse(match[1])) if match else None


def parse_pacball_name(name: str) -> tuple[Release, Digest] | None:
    """The release and tree digest of the pacball of that name; None for any other file."""
    match = _PACBALL.match(name)
    release = _release(match[1]) if match else None
    return (release, Digest.parse(match[2])) if match and release else None


def public_path(name: str) -> str:
    """Where the file of that name is below a base URL of ours. Raises Refused for a name that is none of ours."""
    found = parse_file_name(name)
    if found is not None:
        kind, digest = found
        return f"{kind.value}s/{digest.hex[:2]}/{digest}"
    if parse_pacball_name(name) is not None:
        return f"{PACBALLS}/{name}"
    raise Refused("is none of our files", place=printable(name[:300]))


def dataset_name(entry: CatalogRelease, placement_number: int | None = None) -> str:
    """The name of the release's dataset, with the placement that the catalog names unless another is given."""
    number = entry.placement_number if placement_number is None else placement_number
    return f"{dataset_stem(entry)}.p{number}"


def dataset_stem(entry: CatalogRelease) -> str:
    """How the names of all of a release's datasets begin, before `.p<number>` or `.pacball`."""
    return f"{PREFIX}{entry.release}.b3-{entry.tree_digest.hex[:_TREE_DIGITS]}"


def parse_dataset_name(name: str) -> DatasetName | None:
    """What the name of a release's dataset says; None for any other name."""
    match = _DATASET.match(name)
    release = _release(match[1]) if match else None
    return DatasetName(release, match[2], int(match[3])) if match and release else None


def pacball_dataset_name(entry: CatalogRelease) -> str:
    """The name of the dataset that has the release's pacball alone."""
    return f"{dataset_stem(entry)}.pacball"


def parse_pacball_dataset_name(name: str) -> tuple[Release, str] | None:
    """The release of a pacball's dataset, and the first 16 digits of its tree digest; None for any other name."""
    match = _PACBALL_DATASET.match(name)
    release = _release(match[1]) if match else None
    return (release, match[2]) if match and release else None


def container_name(project: str) -> str:
    """The name of the container that has the datasets of a line. Raises Refused."""
    check_project(project)
    return f"{PREFIX}{project}"


def metadata_of(entry: CatalogRelease, bundle: Digest | None) -> dict[str, str]:
    """The metadata of a release's dataset; `bundle` is None for that of its pacball."""
    release = entry.release
    values = {
        MetadataKey.RELEASE: str(release),
        MetadataKey.PROJECT: release.project,
        MetadataKey.VERSION: release.version,
        MetadataKey.PLATFORM: release.platform,
        MetadataKey.TREE: entry.tree_digest.hex,
        MetadataKey.MANIFEST: entry.manifest.digest.hex,
        MetadataKey.PACBALL: pacball_name(release, entry.tree_digest),
    }
    if bundle is not None:
        values[MetadataKey.BUNDLE] = bundle.hex
    return {key.value: value for key, value in values.items()}


def check_names(entry: CatalogRelease, scope: str) -> None:
    """Raise Refused unless everything that the release is called in `scope` fits both schemas."""
    # The longest release gives names of 221 characters; the tests hold that.
    for name in (dataset_name(entry), pacball_dataset_name(entry), pacball_name(entry.release, entry.tree_digest),
                 container_name(entry.release.project)):  # fmt: skip
        Did(scope, name)


def _release(text: str) -> Release | None:
    try:
        return Release.parse(text)
    except Refused:
        return None

"""A change to a catalog that waits for signatures, and the file in which it travels to them (FORMAT.md section 8.5).

It holds whole new metadata of root, targets and lines, each with the signatures collected so far. Nothing in it is
believed: whoever commits it checks every signature, whoever signs it sees first what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from pacstore.errors import Corrupt, Refused, printable
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.release import Release
from pacstore.trust import entries
from pacstore.trust.authority import is_line
from pacstore.trust.metadata import METADATA_LIMITS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FORMAT = 1
KIND = "pacball-change"
CHANGE_BYTES = 4 * METADATA_LIMITS.targets_bytes
MOST_VERSIONS = 1 << 31
"""No version of a catalog comes near this number by itself; all clients of TUF can count so far."""


@dataclass
class Proposed:
    """New metadata of one role, on top of its version `base` (0: there is none yet), with the signatures so far."""

    base: int
    metadata: Metadata[Any]


@dataclass
class Context:
    """What a change is based on, for those who have no store: the root chain, targets, and the lines that it changes."""

    roots: list[Metadata[Root]]
    targets: Metadata[Targets] | None
    lines: dict[str, Metadata[Targets]]


@dataclass
class Change:
    """Roles to be replaced, in no order, and the placements (target path -> target) that the origin signs with their lines.

    With `above` not 0, they are committed all at once, and whatever is signed with them gets versions above it.
    """

    roles: dict[str, Proposed] = field(default_factory=dict)
    placements: dict[str, TargetFile] = field(default_factory=dict)
    above: int = 0
    context: Context | None = None

    def __bool__(self) -> bool:
        return bool(self.roles)

    def only(self, roles: Mapping[str, Proposed]) -> Change:
        """The same with these roles, and those of its placements that belong to them."""
        if not roles:
            return Change()
        wanted = {
            placement_of(path) for role, one in roles.items() if is_line(role) for path in one.metadata.signed.targets
        }
        return Change(dict(roles), {p: t for p, t in self.placements.items() if p in wanted}, self.above)

    def without(self, roles: Collection[str]) -> Change:
        """The same without these roles. Targets and the lines that they begin stand or fall together."""
        new = {role for role, one in self.roles.items() if not one.base} | {Targets.type}
        gone = {*roles, *(new if new & set(roles) else ())}
        return self.only({role: one for role, one in self.roles.items() if role not in gone})

    def encode(self) -> bytes:
        """The bytes of the file."""
        value: dict[str, object] = {
            "format": FORMAT,
            "kind": KIND,
            "above": self.above,
            "roles": {
                name: {"base": proposed.base, "metadata": proposed.metadata.to_dict()}
                for name, proposed in self.roles.items()
            },
            "placements": {path: target.to_dict() for path, target in self.placements.items()},
        }
        if self.context is not None:
            value["context"] = {
                "roots": [root.to_dict() for root in self.context.roots],
                "targets": self.context.targets.to_dict() if self.context.targets is not None else None,
                "lines": {name: line.to_dict() for name, line in self.context.lines.items()},
            }
        return encode_json(value)

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Change:
        """The change in `data`, which can be encoded again. Raises Corrupt, TooLarge, NewerFormat; says nothing of signatures."""
        value = decode_json(data, limit=CHANGE_BYTES, place=place)
        if value.get("kind") != KIND:
            raise Corrupt("is not a change file", place=place, hint="make one with: pacball trust export")
        check_format(value, FORMAT, place)
        try:
            encode_json(value)  # which fails for what is no text
            context = value.get("context")
            return cls(
                {name: _proposed(name, _mapping(one)) for name, one in _mapping(value["roles"]).items()},
                _placements(_mapping(value["placements"])),
                _count(value["above"]),
                _context(_mapping(context)) if context is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, RepositoryError, Refused) as error:
            fault = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            message = f"is not a valid change file: {printable(fault)[:200]}"
            raise Corrupt(message, place=place, hint="get it anew from whom you have it") from error


def placement_of(path: str) -> str:
    """The target path of the placement of the release to which the target `path` belongs."""
    return f"{path.rpartition('/')[0]}/placement"


def same_content(one: Metadata[Any], other: Metadata[Any]) -> bool:
    """Whether both are the same apart from their signatures."""
    return bool(one.signed_bytes == other.signed_bytes)


def _proposed(name: str, value: Mapping[str, Any]) -> Proposed:
    base = _count(value["base"])
    if name not in (Root.type, Targets.type) and not is_line(name):
        raise ValueError(f"{name} is not a role that people sign")
    metadata = _metadata(value["metadata"], Root if name == Root.type else Targets)
    version = metadata.signed.version
    if version <= base or (name == Root.type and version != base + 1):
        raise ValueError(f"{name} does not follow its base")
    return Proposed(base, metadata)


def _placements(value: Mapping[str, Any]) -> dict[str, TargetFile]:
    found = {path: TargetFile.from_dict(dict(_mapping(one)), path) for path, one in value.items()}
    for path in found:
        name = path.split("/")[2:3]
        if not name or entries.paths_of(Release.parse(name[0]))[2] != path:
            raise ValueError("there is a placement of no release")
    _ = Metadata(Targets(targets=found)).signed_bytes  # which fails for what cannot be signed
    return found


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < MOST_VERSIONS:
        raise ValueError("a version is no number, or too high")
    return value


def _context(value: Mapping[str, Any]) -> Context:
    roots, targets = value["roots"], value["targets"]
    if not isinstance(roots, list) or len(roots) > METADATA_LIMITS.root_rotations + 1:
        raise ValueError("no list of roots")
    return Context(
        [_metadata(root, Root) for root in roots],
        _metadata(targets, Targets) if targets is not None else None,
        {name: _metadata(line, Targets) for name, line in _mapping(value["lines"]).items()},
    )


def _metadata(value: object, kind: type[Root | Targets]) -> Metadata[Any]:
    metadata: Metadata[Any] = Metadata.from_dict(dict(_mapping(value)))
    if not isinstance(metadata.signed, kind):
        raise TypeError(f"this is not {kind.type} metadata")
    if metadata.unrecognized_fields:
        raise ValueError("it has parts that nobody signs")
    _count(metadata.signed.version)
    _ = metadata.signed_bytes  # which fails for what cannot be signed
    return metadata


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object is missing")
    return value

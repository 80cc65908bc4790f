"""An opened release: its documents, read and compared once, from which its files and its pacball are read in any order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pacstore.assemble import Assembler
from pacstore.attributes import Attributes
from pacstore.digest import Digest
from pacstore.documents import read_object, read_placement
from pacstore.errors import NotFound, printable
from pacstore.install.tree.paths import TOP, Children
from pacstore.manifest import Manifest
from pacstore.pacball.assembling import AssembledPacball
from pacstore.pacball.digests import PacballDigests, take_digests
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import Stub
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.storage import ObjectKind, Storage, object_path
from pacstore.tree import EntryKind
from pacstore.trust.targets import CatalogRelease, SignedDocument

_MOST_LINKS = 40
"""As many as Linux follows."""
_CACHED_FRAMES = 3
"""There may be many readers at once; 8 instead of these would save 3 % of the decoding."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path of a release leads to: entry number `entry`, TOP for the release itself, and of what kind it is.

    `path` is its own, without symbolic links. For files `file` is their number, -1 otherwise; `size` in bytes.
    """

    entry: int
    kind: EntryKind
    path: bytes
    file: int = -1
    size: int = 0


def _copied(storage: Storage, kind: ObjectKind, signed: SignedDocument) -> bytes:
    """A document in memory: a file that is mapped for long ends the process if the disk fails meanwhile."""
    return bytes(read_object(storage, kind, signed))


class OpenedRelease:
    """The documents of `entry`, from `storage`. Threads may share it. Making it raises NotFound, Corrupt or Unavailable."""

    def __init__(self, entry: CatalogRelease, storage: Storage) -> None:
        self.entry = entry
        self._storage = storage
        self.manifest = Manifest.parse(
            _copied(storage, ObjectKind.MANIFEST, entry.manifest),
            place=object_path(ObjectKind.MANIFEST, entry.manifest.digest),
        )
        tree = self.manifest.tree
        self.attributes = Attributes.parse(
            _copied(storage, ObjectKind.ATTRIBUTES, entry.attributes),
            tree,
            place=object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
        )
        self.placement: Placement = read_placement(storage, entry, self.manifest)
        self.payload = Payload(tree, self.attributes)
        self.stub = Stub(entry.release, entry.tree_digest, self.payload.total_bytes, entry.files, self.payload.disk_kib)

    @property
    def document_bytes(self) -> int:
        """About how much memory it takes."""
        entry = self.entry
        return entry.manifest.length + entry.attributes.length + entry.placement.length

    def assembler(self, digests: PacballDigests | None = None) -> Assembler:
        """Reads its files; `digests` of its pacball, if they were taken, may have proven the placement. To be closed."""
        proven = digests is not None and digests.placement == self.entry.placement.digest
        return Assembler(self.manifest, self.placement, self._storage, is_proven=proven, cached=_CACHED_FRAMES)

    def pacball(self, assembler: Assembler, digests: PacballDigests | None = None) -> AssembledPacball:
        """Its pacball, by an assembler of its own. Without `digests` only what is behind the stub is right."""
        stub = self.stub if digests is None else self.stub.with_digest(digests.payload_sha256.hex())
        return AssembledPacball(stub, self.payload, self.manifest.tree, assembler)

    def take_digests(self, progress: Progress) -> PacballDigests:
        """The digests of its pacball: reads everything, twice. Raises as `Assembler.read`, and what `progress` raises."""
        placement: Digest = self.entry.placement.digest
        careful = self.assembler()
        quick = Assembler(self.manifest, self.placement, self._storage, is_proven=True)
        try:
            return take_digests(self.pacball(careful), self.pacball(quick), self.stub, placement, progress)
        finally:
            careful.frames.close()
            quick.frames.close()

    @cached_property
    def children(self) -> Children:
        """What each directory holds."""
        return Children(self.payload.paths)

    def mtime(self, place: Place) -> int:
        """When what is there was changed last, in seconds since 1970; of the release itself when it was published."""
        return self.entry.published if place.entry == TOP else int(self.attributes.mtimes[place.entry])

    def find(self, names: list[bytes]) -> Place:
        """What is at the path of these names, symbolic links followed as far as they stay inside.

        Raises NotFound, which says where the path ends, or what a link points to.
        """
        stack: list[int] = []
        left = names[::-1]
        links = 0
        while left:
            name = left.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if not stack:
                    raise NotFound("leads out of the release", place=str(self.entry.release))
                stack.pop()
                continue
            entry = self._child(stack[-1] if stack else TOP, name)
            if self._kind(entry) is not EntryKind.SYMLINK:
                stack.append(entry)
                continue
            links += 1
            target = self._target(entry)
            if target.startswith(b"/") or links > _MOST_LINKS:
                fault = "is a symbolic link that leads nowhere inside the release, to"
                shown = printable(target.decode("utf-8", "backslashreplace"))
                raise NotFound(f"{fault} {shown}", place=self.payload.paths.shown(entry))
            left += reversed(target.split(b"/"))
        return self._place(stack[-1] if stack else TOP)

    def listing(self, directory: int, most: int) -> tuple[list[Place], int]:
        """What lies directly in a directory, in order; symbolic links as such. `most` of it, and how much more there is."""
        held = self.children.of(directory)
        return [self._place(entry) for entry in held[:most].tolist()], max(len(held) - most, 0)

    def target(self, place: Place) -> bytes:
        """What a symbolic link points to."""
        return self._target(place.entry)

    def _place(self, entry: int) -> Place:
        kind = self._kind(entry)
        path = b"" if entry == TOP else self.payload.paths.path(entry)
        if not kind.is_file:
            return Place(entry, kind, path)
        file = self.payload.file_of(entry)
        return Place(entry, kind, path, file, int(self.manifest.tree.sizes[file]))

    def _kind(self, entry: int) -> EntryKind:
        return EntryKind.DIRECTORY if entry == TOP else EntryKind(int(self.manifest.tree.kinds[entry]))

    def _target(self, entry: int) -> bytes:
        return next(self.payload.members(entry, entry + 1)).target

    def _child(self, directory: int, name: bytes) -> int:
        if self._kind(directory) is EntryKind.DIRECTORY:
            held = self.children.of(directory)
            paths = self.payload.paths
            low, high = 0, len(held)
            while low < high:
                middle = (low + high) // 2
                if paths.name(int(held[middle])) < name:
                    low = middle + 1
                else:
                    high = middle
            if low < len(held) and paths.name(int(held[low])) == name:
                return int(held[low])
        where = "the release" if directory == TOP else self.payload.paths.shown(directory)
        raise NotFound(f"is not in {where}", place=printable(name.decode("utf-8", "backslashreplace")))

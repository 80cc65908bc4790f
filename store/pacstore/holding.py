"""Whether a release is here whole, and saying so: holdings are written when every pack that its placement names is here."""

from __future__ import annotations

from contextlib import suppress

from pacstore.attributes import Attributes
from pacstore.confirm import confirm
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_object, read_placement
from pacstore.errors import NotFound, TooLarge
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS
from pacstore.placement import Placement
from pacstore.storage import DocumentKind, DocumentStorage, ObjectKind, Storage, object_path
from pacstore.trust.targets import CatalogRelease


def holdings_of(entry: CatalogRelease) -> Holdings:
    """The holdings of a server that has this release with this placement."""
    return Holdings(
        release=entry.release,
        tree_digest=entry.tree_digest,
        manifest_digest=entry.manifest.digest,
        attributes_digest=entry.attributes.digest,
        placement_digest=entry.placement.digest,
        placement_number=entry.placement_number,
    )


def is_held(storage: DocumentStorage, entry: CatalogRelease) -> bool:
    """Whether the holdings say that this release is here with this placement."""
    with suppress(NotFound, TooLarge):
        data = storage.get(DocumentKind.HOLDINGS, str(entry.release), limit=LIMITS.holdings_bytes)
        return data == holdings_of(entry).encode()
    return False


def hold(storage: Storage, entry: CatalogRelease) -> None:
    """Put the holdings of a release whose packs are here, each of them verified when it came (see `verify_whole`)."""
    verify_whole(storage, entry)
    put_holdings(storage, entry)


def verify_whole(storage: Storage, entry: CatalogRelease) -> Placement:
    """The placement of a release, all of which is here; its packs were verified when they came.

    Its documents are read and compared with the catalog, and its placement with the tables of the packs. Raises NotFound for what
    is not here and Corrupt for what is not right, naming it.
    """
    manifest = read_manifest(storage, entry)
    attributes = read_object(storage, ObjectKind.ATTRIBUTES, entry.attributes)
    Attributes.parse(attributes, manifest.tree, place=object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest))
    placement = read_placement(storage, entry, manifest)
    missing = _missing(storage, placement)
    if missing:
        message = f"is missing, and {len(missing) - 1} more of its packs" if len(missing) > 1 else "is missing"
        raise NotFound(message, place=object_path(ObjectKind.PACK, min(missing)))
    confirm(placement, manifest, storage)
    return placement


def put_holdings(storage: DocumentStorage, entry: CatalogRelease) -> None:
    """Say that a release is here; only for who has verified it."""
    if not is_held(storage, entry):
        storage.put(DocumentKind.HOLDINGS, str(entry.release), holdings_of(entry).encode())


def packs_of(placement: Placement) -> dict[Digest, int]:
    """The packs that a placement names, with their lengths in bytes."""
    return {placement.pack(number): length for number, length in enumerate(placement.pack_lengths.tolist())}


def missing_packs(storage: Storage, entry: CatalogRelease) -> dict[Digest, int]:
    """The packs that the placement of a release names and that are not here, with their lengths. Raises NotFound, Corrupt."""
    return _missing(storage, read_placement(storage, entry, read_manifest(storage, entry)))


def _missing(storage: Storage, placement: Placement) -> dict[Digest, int]:
    return {pack: length for pack, length in packs_of(placement).items() if not has_pack(storage, pack, length)}


def has_pack(storage: Storage, pack: Digest, length: int) -> bool:
    """Whether a pack is here in this length. Raises Unavailable if that cannot be known."""
    with suppress(NotFound):
        return storage.size(ObjectKind.PACK, pack) == length
    return False

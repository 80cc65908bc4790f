"""A shipment: one dataset as it is to be in Rucio, and what Rucio has of it now.

Looking changes nothing; `settle` brings Rucio from what it has to what is to be, in steps each of which may be repeated, and
made by several at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from pacmirror.delivery.rucio.catalogue import CollectionRecord, FileRecord, RucioCatalogue
from pacmirror.delivery.rucio.naming import Did, MetadataKey
from pacstore.errors import Refused, Unavailable, printable

AVAILABLE = "AVAILABLE"
_SHOWN = 3
_ROUNDS = 5
_FIXED = (MetadataKey.TREE.value, MetadataKey.MANIFEST.value)


class OtherBundle(Refused):
    """The dataset has another bundle, which was there first: everything is to be looked at again, with that one."""


@dataclass(frozen=True)
class Shipment:
    """A dataset as it is to be: `files` by name, its metadata, the container that it goes into, if any, and the RSE."""

    dataset: Did
    files: Mapping[str, FileRecord]
    metadata: Mapping[str, str]
    container: Did | None
    rse: str


@dataclass(frozen=True)
class Standing:
    """What Rucio has of a shipment. `found`: the dataset, None if there is none; by name `attached` files, those `known`, and
    of replicas at the RSE `new`, none yet, and `waiting`, which are not available. `has_container`, and `is_in_container`.
    """

    found: CollectionRecord | None
    attached: frozenset[str]
    known: frozenset[str]
    new: tuple[str, ...]
    waiting: tuple[str, ...]
    has_container: bool
    is_in_container: bool

    def is_settled(self, shipment: Shipment) -> bool:
        """Whether nothing is to be done."""
        return (
            self.found is not None
            and not (self.found.is_open or self.found.expires)
            and len(self.attached) == len(shipment.files)
            and not (self.new or self.waiting)
            and self.is_in_container
            and not self.lacking(shipment)
        )

    def lacking(self, shipment: Shipment) -> dict[str, str]:
        """The metadata that the dataset does not have, or has otherwise."""
        there = self.found.metadata if self.found is not None else {}
        return {key: value for key, value in shipment.metadata.items() if there.get(key) != value}


@dataclass(frozen=True)
class Settled:
    """What was done: how many DIDs and replicas were new, how many replicas became available; whether nothing was to be done."""

    dids: int = 0
    replicas: int = 0
    made_available: int = 0
    was_complete: bool = False


def look(catalogue: RucioCatalogue, shipment: Shipment, found: CollectionRecord | None) -> Standing:
    """What Rucio has of a shipment, `found` being what it has of the dataset. Changes nothing.

    Raises Refused, before anything is registered, where Rucio has something under one of the names that is another thing;
    Unavailable where it deletes replicas that are to be there.
    """
    scope, names = shipment.dataset.scope, sorted(shipment.files)
    if found is not None:
        _check_dataset(found, shipment)
    known = catalogue.files(scope, names)
    for name, record in known.items():
        _check_file(record, shipment.files[name], scope)
    attached = _attached(catalogue, shipment, found)
    new, waiting = _replicas(catalogue, shipment, found, known.keys())
    has_container = is_inside = True
    if shipment.container is not None:
        container = catalogue.collection(shipment.container)
        has_container = container is not None
        if container is not None and container.kind != "CONTAINER":
            _refuse_kind(container, "container")
        is_inside = (
            found is not None and has_container and str(shipment.container) in catalogue.parents(shipment.dataset)
        )
    return Standing(found, attached, frozenset(known), new, waiting, has_container, is_inside)


def settle(catalogue: RucioCatalogue, shipment: Shipment, standing: Standing) -> Settled:
    """Bring Rucio from `standing` to what the shipment says. Raises as `look`, and Unavailable."""
    if standing.is_settled(shipment):
        return Settled(was_complete=True)
    done = Settled(
        len(shipment.files) - len(standing.known), len(standing.new), len(standing.waiting), was_complete=False
    )
    for _ in range(_ROUNDS):
        try:
            if _bring(catalogue, shipment, standing):
                return done
        except OtherBundle:
            raise
        except Refused:
            # Others may have been at it, and closed it meanwhile: then there is less to do. If not, it is the same again.
            last, standing = standing, _look_again(catalogue, shipment)
            if standing == last:
                raise
        else:
            standing = _look_again(catalogue, shipment)
        if standing.is_settled(shipment):
            return done
    raise Unavailable("others change it all the time", place=str(shipment.dataset), hint="run the same command again")


def _look_again(catalogue: RucioCatalogue, shipment: Shipment) -> Standing:
    return look(catalogue, shipment, catalogue.collection(shipment.dataset))


def _bring(catalogue: RucioCatalogue, shipment: Shipment, standing: Standing) -> bool:
    """The steps, in the order that whoever looks at any moment sees nothing unfinished as finished.

    False where somebody else made the dataset at the same moment, and it is to be looked at first.
    """
    dataset, scope = shipment.dataset, shipment.dataset.scope
    if shipment.container is not None and not standing.has_container:
        catalogue.add_collection(shipment.container, "CONTAINER", metadata={})
    if standing.found is None:
        if not catalogue.add_collection(dataset, "DATASET", metadata=dict(shipment.metadata)):
            return False
    else:
        if lacking := standing.lacking(shipment):
            catalogue.set_metadata(dataset, lacking)
        if standing.found.expires:
            catalogue.keep(dataset)
    catalogue.add_replicas(shipment.rse, scope, [shipment.files[name] for name in standing.new])
    catalogue.set_available(shipment.rse, scope, standing.waiting)
    if standing.found is None or standing.found.is_open:
        catalogue.attach(dataset, sorted(shipment.files.keys() - standing.attached))
        catalogue.close(dataset)
    if shipment.container is not None and not standing.is_in_container:
        catalogue.attach(shipment.container, [dataset.name])
    return True


def _check_dataset(found: CollectionRecord, shipment: Shipment) -> None:
    if found.kind != "DATASET":
        _refuse_kind(found, "dataset")
    for key in _FIXED:
        there, ours = found.metadata.get(key), shipment.metadata.get(key)
        if there is not None and ours is not None and there != ours:
            raise Refused(
                f"is another dataset: its {key} is {printable(there[:80])}, that of the release here {ours}",
                place=str(found.did),
                hint="register into another scope, or find out who made it: rucio did show " + str(found.did),
            )

    key = MetadataKey.BUNDLE.value
    if found.metadata.get(key, shipment.metadata.get(key)) != shipment.metadata.get(key):
        raise OtherBundle("has another bundle", place=str(found.did), hint="run the same command again")


def _check_file(there: FileRecord, here: FileRecord, scope: str) -> None:
    """Rucio takes a second registration with other sizes and checksums silently, so it must not come to that."""
    if there == here:
        return
    place = f"{scope}:{here.name}"
    if not there.is_file:
        raise Refused("is no file in Rucio", place=place, hint="register into another scope")
    raise Refused(
        f"is another file in Rucio: {_described(there)} there, {_described(here)} here",
        place=place,
        hint=f"nothing was registered; find out whose it is: rucio replica list file {place}. Where the registration is wrong, "
        "remove the file from Rucio; until then, register into another scope",
    )


def _described(record: FileRecord) -> str:
    return (
        f"{record.length:,} bytes, adler32 {printable(record.adler32) or 'none'}, md5 {printable(record.md5) or 'none'}"
    )


def _refuse_kind(found: CollectionRecord, wanted: str) -> NoReturn:
    message = f"is no {wanted} in Rucio, but a {printable(found.kind.lower())}"
    raise Refused(message, place=str(found.did), hint="register into another scope")


def _attached(catalogue: RucioCatalogue, shipment: Shipment, found: CollectionRecord | None) -> frozenset[str]:
    if found is None:
        return frozenset()
    content = catalogue.content(shipment.dataset).keys()
    strange = sorted(content - shipment.files.keys())
    place = str(shipment.dataset)
    if strange:
        message = f"has {_count(strange)} that the release does not have: {_names(strange)}"
        hint = f"take them out: rucio did content remove --from-did {place} SCOPE:NAME; or register into another scope"
        raise Refused(message, place=place, hint=hint)
    missing = sorted(shipment.files.keys() - content)
    if missing and not found.is_open:
        message = f"is closed, but lacks {len(missing)} of its files: {_names(missing)}"
        hint = f"let an administrator open it, rucio did update --open {place}, and run the same command again"
        raise Refused(message, place=place, hint=hint)
    return frozenset(content)


def _replicas(
    catalogue: RucioCatalogue, shipment: Shipment, found: CollectionRecord | None, known: object
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that have no replica at the RSE, and those whose replica is not available."""
    names, scope = sorted(shipment.files), shipment.dataset.scope
    if (
        found is not None
        and not found.is_open
        and catalogue.available(shipment.dataset).get(shipment.rse) == len(names)
    ):
        return (), ()
    states = catalogue.replica_states(shipment.rse, scope, sorted(known))  # type: ignore[call-overload]
    new = tuple(name for name in names if name not in states)
    waiting = tuple(name for name in names if states.get(name, AVAILABLE) != AVAILABLE)
    for state, message, hint in _HINDRANCES:
        bad = [name for name in waiting if states[name] == state]
        if bad:
            place = f"{scope}:{bad[0]} at {shipment.rse}"
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise (Unavailable if state == "BEING_DELETED" else Refused)(
                message + more, place=place, hint=hint.format(rse=shipment.rse)
            )
    return new, waiting


_HINDRANCES = (
    ("BEING_DELETED", "is being deleted by Rucio", "run the same command again when that is over"),
    (
        "BAD",
        "was declared bad",
        "read the store back, pacball store check --repair, then: pacball rucio declare --rse {rse} --store DIR",
    ),
)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name[:100]) for name in names[:_SHOWN]) + more


def _count(names: list[str]) -> str:
    return f"{len(names)} file{'' if len(names) == 1 else 's'}"

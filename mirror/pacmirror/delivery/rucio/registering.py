"""Registering: a release that a store has becomes a dataset in Rucio, with replicas at the store's RSE (FORMAT.md section 14).

Everything is looked at before anything is registered. Nothing is remembered here: what Rucio says is there decides what is left
to do, so the same call continues what was interrupted anywhere, changes nothing where all is done, and may be made by several
at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pacmirror.delivery.rucio.catalogue import CollectionRecord, RucioCatalogue
from pacmirror.delivery.rucio.material import Material, Supply
from pacmirror.delivery.rucio.naming import (
    Did,
    MetadataKey,
    check_names,
    check_rse,
    container_name,
    dataset_name,
    metadata_of,
    pacball_dataset_name,
)
from pacmirror.delivery.rucio.shipment import OtherBundle, Settled, Shipment, look, settle
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable, printable
from pacstore.trust.targets import CatalogRelease

_ROUNDS = 3
_AGAIN = "run the same command again"


@dataclass(frozen=True)
class Target:
    """Where a release is registered. `make_scope`: if the scope is missing."""

    rse: str
    scope: str
    make_scope: bool = False
    with_pacball: bool = False


@dataclass(frozen=True)
class Registered:
    """What is in Rucio now. `files` of the dataset and their `bytes_total`; what was new: `dids`, `replicas`; `was_complete`
    if nothing was to be done. `pacball` is the dataset of the pacball, None unless asked for.
    """

    dataset: Did
    container: Did
    rse: str
    bundle: Digest
    files: int
    bytes_total: int
    dids: int
    replicas: int
    made_available: int
    was_complete: bool
    pacball: Did | None


def register(catalogue: RucioCatalogue, supply: Supply, target: Target) -> Registered:
    """Register a release. When this returns, its dataset is closed and complete, and available at the RSE.

    Raises NotFound for an RSE or scope that is not there, Refused where the account may not, where the RSE cannot be used, and
    where Rucio has anything else under one of the names, before anything was registered; Unavailable where Rucio fails, then
    the same call continues; and what `supply` raises.
    """
    entry = supply.entry
    if entry.withdrawal is not None:
        message = f"was withdrawn: {printable(entry.withdrawal.reason)}"
        raise Refused(message, place=str(entry.release), hint="register another release")
    check_names(entry, target.scope)
    _check_rse(catalogue, target.rse)
    lacks_scope = _lacks_scope(catalogue, target)
    for _ in range(_ROUNDS):
        with suppress(OtherBundle):
            return _register(catalogue, supply, target, lacks_scope=lacks_scope)
    raise Unavailable("others register it at the same time", place=str(entry.release), hint=_AGAIN)


def _register(catalogue: RucioCatalogue, supply: Supply, target: Target, *, lacks_scope: bool) -> Registered:
    entry = supply.entry
    found = dataset_of(catalogue, entry, target.scope)
    known = bundle_of(found) if found is not None else None
    material = supply.consign(known, with_pacball=target.with_pacball)
    shipments = list(_shipments(entry, material, target))
    try:
        standings = [look(catalogue, one, catalogue.collection(one.dataset)) for one in shipments]
    except OtherBundle:
        raise
    except (NotFound, Refused):
        if material.is_new and (found is None or found.kind != "DATASET"):
            supply.take_back()  # nothing was registered for which it would be kept
        raise
    if lacks_scope:
        catalogue.add_scope(target.scope)
    done = [settle(catalogue, *pair) for pair in zip(shipments, standings, strict=True)]
    return _result(shipments, done)


def dataset_of(catalogue: RucioCatalogue, entry: CatalogRelease, scope: str) -> CollectionRecord | None:
    """The dataset of a release with the placement that it has now, or None."""
    return catalogue.collection(Did(scope, dataset_name(entry)))


def bundle_of(record: CollectionRecord) -> Digest | None:
    """The bundle that a dataset's metadata names; None where they name none. Raises Corrupt where it is no id."""
    text = record.metadata.get(MetadataKey.BUNDLE.value)
    try:
        return Digest.parse(text) if text is not None else None
    except Refused as error:
        message = f"its {MetadataKey.BUNDLE.value} is no id: {printable(str(text)[:80])}"
        raise Corrupt(message, place=str(record.did), hint="somebody has changed its metadata: set it right") from error


def _shipments(entry: CatalogRelease, material: Material, target: Target) -> Iterator[Shipment]:
    files = {record.name: record for record in material.files}
    dataset = Did(target.scope, dataset_name(entry))
    container = Did(target.scope, container_name(entry.release.project))
    yield Shipment(dataset, files, metadata_of(entry, material.bundle), container, target.rse)
    if material.pacball is not None:
        pacball = Did(target.scope, pacball_dataset_name(entry))
        yield Shipment(pacball, {material.pacball.name: material.pacball}, metadata_of(entry, None), None, target.rse)


def _check_rse(catalogue: RucioCatalogue, name: str) -> None:
    check_rse(name)
    rse = catalogue.rse(name)
    if not rse.is_deterministic:
        message = "is not deterministic: Rucio could not tell where the files are that a rule brings to such an RSE"
        hint = f"make it anew: rucio rse add {name}, without --non-deterministic (docs/rucio.md)"
        raise Refused(message, place=name, hint=hint)
    if not rse.protocols:
        hint = "docs/rucio.md tells how it is set up"
        raise Refused("has no protocol, so that nobody could fetch from it", place=name, hint=hint)


def _lacks_scope(catalogue: RucioCatalogue, target: Target) -> bool:
    if catalogue.has_scope(target.scope):
        return False
    if not target.make_scope:
        hint = f"make it: rucio scope add --account {catalogue.account} {target.scope}; or say --create-scope"
        raise NotFound("is no scope in Rucio", place=target.scope, hint=hint)
    return True


def _result(shipments: Sequence[Shipment], done: Sequence[Settled]) -> Registered:
    first = shipments[0]
    assert first.container is not None
    return Registered(
        dataset=first.dataset,
        container=first.container,
        rse=first.rse,
        bundle=Digest.parse(first.metadata[MetadataKey.BUNDLE.value]),
        files=len(first.files),
        bytes_total=sum(record.length for record in first.files.values()),
        dids=sum(one.dids for one in done),
        replicas=sum(one.replicas for one in done),
        made_available=sum(one.made_available for one in done),
        was_complete=all(one.was_complete for one in done),
        pacball=shipments[1].dataset if len(shipments) > 1 else None,
    )

"""Located: what scopes of Rucio have of some releases, as parts of a list of sources (`pacmirror.mirrors.MirrorList`).

Each dataset that may be the right one is a part that is asked for documents and its catalog; each RSE is one that is asked for
packs. After the datasets of the releases come the latest of the scope: the catalog in the bundle of a release is as old as its
registration, and may have expired, or be older than what was seen here before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.lookup import bundle_did, datasets_of, latest
from pacmirror.delivery.rucio.replicas import Replicas
from pacmirror.delivery.rucio.source import bundled, find_replicas
from pacmirror.delivery.rucio.storages import open_storages
from pacmirror.part import BlockingPart
from pacmirror.verdict import all_failed
from pacstore.errors import NotFound, PacballError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pacmirror.delivery.rucio.bundled import BundledDocuments
    from pacmirror.delivery.rucio.catalogue import RucioCatalogue
    from pacmirror.delivery.rucio.lookup import Address, Found
    from pacmirror.delivery.rucio.naming import Did
    from pacmirror.limits import ClientLimits
    from pacmirror.mirrors import MirrorList
    from pacmirror.part import Part
    from pacmirror.source import HttpSource
    from pacmirror.surroundings import Surroundings
    from pacmirror.throttle import Throttle
    from pacstore.release import Release


@dataclass
class Located:
    """`documents`, in the order in which they are to be asked, by the names of their parts; where they are; and `storages`."""

    documents: dict[str, BundledDocuments] = field(default_factory=dict)
    addresses: dict[str, Address] = field(default_factory=dict)
    storages: list[HttpSource] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """All of it: whoever takes them closes them."""
        return [*map(BlockingPart, self.documents.values()), *self.storages]

    @property
    def packs_only(self) -> set[str]:
        """The names of the storages."""
        return {storage.name for storage in self.storages}

    def join(self, sources: MirrorList) -> None:
        """The parts are in this list now: bundles are fetched from its storages, the best one first."""
        for documents in self.documents.values():
            documents.carriers = sources.carriers


def locate(
    catalogue: RucioCatalogue,
    addresses: Sequence[Address],
    releases: Sequence[Release],
    *,
    limits: ClientLimits,
    surroundings: Surroundings | None = None,
    throttle: Throttle | None = None,
    warn: Callable[[str], None],
) -> Located:
    """What the scopes have of `releases`, and their latest catalogs.

    `warn` is told of datasets that are of no use. Raises NotFound for a release that is nowhere registered, Unavailable where
    nothing can be had, Refused.
    """
    looking = _Looking(catalogue, addresses)
    for release in releases:
        looking.look_for(release, warn)
    looking.look_for_latest()
    place = ", ".join(map(str, (*addresses, *releases)))
    if not looking.located.documents:
        raise NotFound("no release is registered", place=place, hint="pacball rucio register registers one")
    looking.located.storages = open_storages(
        looking.replicas, place=place, limits=limits, surroundings=surroundings, throttle=throttle
    )
    return looking.located


class _Looking:
    def __init__(self, catalogue: RucioCatalogue, addresses: Sequence[Address]) -> None:
        self.located = Located()
        self.replicas = Replicas()
        self._catalogue = catalogue
        self._addresses = addresses

    def look_for(self, release: Release, warn: Callable[[str], None]) -> None:
        """Take every dataset of a release that is of use. Raises what they say together if there is none."""
        errors: dict[str, PacballError] = {}
        taken = 0
        for address in self._addresses:
            try:
                found = datasets_of(self._catalogue, address.scope, release)
            except NotFound as absent:
                errors[str(address)] = absent
                continue
            for one in found:
                try:
                    self._take(address, one, one.did)
                    taken += 1
                except PacballError as useless:
                    errors[str(one.did)] = useless
        if not taken:
            raise all_failed(release, errors)
        for name, error in errors.items():
            if name not in map(str, self._addresses):  # that one of several scopes does not have it is nothing to tell
                warn(str(error))

    def look_for_latest(self) -> None:
        """Take the bundles of the datasets that were registered last."""
        for address in self._addresses:
            for one in latest(self._catalogue, address.scope, but=self.located.documents):
                try:
                    self._take(address, one, bundle_did(one))
                except PacballError:
                    continue  # it would only have been newer

    def _take(self, address: Address, found: Found, asked: Did) -> None:
        there = find_replicas(self._catalogue, asked, expression=address.expression, site=address.site)
        documents = bundled(found.did, there, preferred=found.bundle)
        self.located.documents[documents.name] = documents
        self.located.addresses[documents.name] = address
        self.replicas.merge(there)

"""RucioSource: one dataset of a release as a source: its documents from its bundle, its packs from the replicas of RSEs.

Rucio only says where things are. What comes is verified by whoever takes it, as from any source; of several RSEs all are asked
at once, by their speed, and what fails or is wrong at one comes from another.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from pacmirror.delivery.rucio.bundled import BundledDocuments
from pacmirror.delivery.rucio.replicas import SCHEMES, Replicas, parse_replicas
from pacmirror.delivery.rucio.storages import open_storages
from pacmirror.limits import LIST_LIMITS
from pacmirror.mirrors import MirrorList
from pacmirror.part import BlockingPart
from pacstore.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacmirror.delivery.rucio.catalogue import RucioCatalogue
    from pacmirror.delivery.rucio.naming import Did
    from pacmirror.limits import ClientLimits, MirrorLimits
    from pacmirror.part import Part
    from pacmirror.surroundings import Surroundings
    from pacmirror.throttle import Throttle
    from pacstore.digest import Bytes, Digest
    from pacstore.errors import PacballError
    from pacstore.source import PackRange, SourceState, Tail, Traffic
    from pacstore.volumes.volume import Volume

_FILES = 200_000
"""So many files of a dataset are looked at, at most."""


class RucioSource:
    """A dataset as the protocol `pacstore.source.Source` demands, and as several parts. Any number of threads may use it."""

    def __init__(
        self,
        did: Did,
        replicas: Replicas,
        *,
        each: ClientLimits = LIST_LIMITS,
        limits: MirrorLimits | None = None,
        surroundings: Surroundings | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """Nothing is sent yet. Raises NotFound where the dataset has no bundle, Unavailable where nothing of it can be had."""
        self.did = did
        self.documents = bundled(did, replicas)
        with ExitStack() as undo:
            storages = open_storages(
                replicas, place=str(did), limits=each, surroundings=surroundings, throttle=throttle
            )
            for storage in storages:
                undo.callback(storage.close)
            parts: list[Part] = [*storages, BlockingPart(self.documents)]
            self._list = MirrorList(
                parts, limits=limits, throttle=throttle, files_only={self.documents.name},
                packs_only={storage.name for storage in storages}
            )  # fmt: skip
            undo.pop_all()
        self.documents.carriers = self._list.carriers

    @classmethod
    def open(
        cls,
        catalogue: RucioCatalogue,
        did: Did,
        *,
        expression: str = "",
        site: str = "",
        each: ClientLimits = LIST_LIMITS,
        limits: MirrorLimits | None = None,
        surroundings: Surroundings | None = None,
        throttle: Throttle | None = None,
    ) -> Self:
        """The dataset `did`, with the replicas that Rucio knows now. `expression`: of RSEs, only those; `site`: where we are.

        `each`, `limits`: of each RSE, and of all together. Raises NotFound for a dataset that is not there or has no bundle,
        Refused, Unavailable.
        """
        replicas = find_replicas(catalogue, did, expression=expression, site=site)
        return cls(did, replicas, each=each, limits=limits, surroundings=surroundings, throttle=throttle)

    def volume(self) -> Volume:
        """The bundle, fetched the first time. Raises as `BundledDocuments.volume`."""
        return self.documents.volume()

    @property
    def name(self) -> str:
        """The DID."""
        return str(self.did)

    @property
    def traffic(self) -> Traffic:
        """That of all RSEs."""
        return self._list.traffic

    def states(self) -> tuple[SourceState, ...]:
        """How each RSE does."""
        return tuple(state for state in self._list.states() if state.name != self.documents.name)

    def range_bytes(self) -> int:
        """As `pacstore.source.Pace`."""
        return self._list.range_bytes()

    def read(self, path: str, *, limit: int) -> bytes:
        """A file of the bundle."""
        return self.documents.read(path, limit=limit)

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range in any order, from all RSEs at once."""
        return self._list.ranges(wanted)

    def tail(self, pack: Digest, *, length: int) -> Tail:
        """As `pacstore.source.Tailed`."""
        return self._list.tail(pack, length=length)

    def blame(self, given: PackRange | str, error: PacballError) -> str:
        """As `pacstore.source.Answerable`."""
        return self._list.blame(given, error)

    def close(self) -> None:
        """End all that is under way. May be repeated."""
        self._list.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_replicas(catalogue: RucioCatalogue, did: Did, *, expression: str = "", site: str = "") -> Replicas:
    """The replicas of a dataset's files. Raises NotFound where it has no files, or is not there; Refused, Unavailable."""
    more: dict[str, Any] = {"client_location": {"site": site}} if site else {}

    def ask() -> Replicas:
        # Sorted by nothing: by distance, it takes ten times as long.
        rows = catalogue.client.list_replicas(
            [did.fields()], schemes=list(SCHEMES), rse_expression=expression or None, sort="random", **more
        )
        return parse_replicas(islice(rows, _FILES))

    hint = "pacball rucio status tells what is registered"
    if expression:
        hint = f"see which RSEs these are: rucio rse list --rses '{expression}'"
    place = f"{did} at {expression}" if expression else str(did)
    replicas = catalogue.ask(place, ask, hint=hint)
    if not replicas.lengths:
        raise NotFound("is no dataset that Rucio has replicas of", place=place, hint=hint)
    return replicas


def bundled(did: Did, replicas: Replicas, *, preferred: Digest | None = None) -> BundledDocuments:
    """What is in the bundle of a dataset: the `preferred` one if it has several. Raises NotFound where it has none."""
    if not replicas.bundles:
        hint = "pacball rucio register makes datasets that have one"
        raise NotFound("has no bundle, which names what is in its packs", place=str(did), hint=hint)
    digest = preferred if preferred in replicas.bundles else replicas.bundles[0]
    return BundledDocuments(str(did), digest, replicas.lengths[digest])

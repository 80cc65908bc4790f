"""Record: which datasets an agent has in its store for Rucio, and since when Rucio does not want one of them any more.

It is a small file beside the store's databases. Where it is lost, the agent lets nothing go that it does not find wanted again:
what is here then stays until a person looks after it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path

from pacmirror.delivery.rucio.naming import Did
from pacstore.backends.directory import read_bounded
from pacstore.durable import replace_file
from pacstore.errors import Corrupt, NotFound, PacballError, Refused
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import MIB
from pacstore.release import Release

RECORD_NAME = "rucio-agent.json"
FORMAT = 1
_BYTES = 256 * MIB
_STORE_BYTES = 16
ANSWERS = 4
"""The time between two answers of Rucio counts for one of so many parts of the grace time, at most."""
MASS = 4
"""Of so many datasets or more, ..."""
MASS_FACTOR = 7
"""... more than half that leave at once wait so many times as long: that may be a fault of Rucio, and somebody should look."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A dataset that the agent has brought here, or begun to. `release`: its name, "" while that is not known.

    `was_here`: the release was here whole before Rucio wanted it: then it is not Rucio's to remove.
    `unwanted_since`: since when Rucio has said, whenever it was asked, that nobody wants it here; None while somebody does. It
    is put off by the time for which Rucio was not asked, so that only what was said counts.
    """

    did: Did
    release: str = ""
    is_whole: bool = False
    was_here: bool = False
    unwanted_since: float | None = None


@dataclass(frozen=True)
class AgentRecord:
    """What an agent knows: the RSE that the store is for, by which name the store is told from others, and its datasets.

    `asked_at`: when Rucio was asked last, where something leaves; else None.
    """

    rse: str
    store: str = field(default_factory=lambda: secrets.token_hex(_STORE_BYTES))
    kept: dict[Did, Kept] = field(default_factory=dict)
    asked_at: float | None = None

    def encode(self) -> bytes:
        """The bytes of the file."""
        datasets = [
            {
                "did": str(one.did),
                "release": one.release,
                "unwanted_since": one.unwanted_since,
                "was_here": one.was_here,
                "whole": one.is_whole,
            }
            for _, one in sorted(self.kept.items())
        ]
        values: dict[str, object] = {"asked_at": self.asked_at, "datasets": datasets, "format": FORMAT}
        return encode_json({**values, "rse": self.rse, "store": self.store})

    def with_(self, kept: Kept) -> AgentRecord:
        """The same with a dataset added, or in the place of what was known of it."""
        return replace(self, kept={**self.kept, kept.did: kept})

    def without(self, did: Did) -> AgentRecord:
        """The same without a dataset."""
        return replace(self, kept={key: one for key, one in self.kept.items() if key != did})

    def seen(self, wanted: set[Did], *, now: float, grace_seconds: float) -> AgentRecord:
        """The same after Rucio has said, at `now`, which datasets are `wanted`; new ones are begun.

        Whatever the clock did meanwhile, and however long nobody asked: what passed since it was asked last counts for no more
        than a part of the grace time, so that several answers must agree.
        """
        kept = {did: self.kept.get(did, Kept(did)) for did in wanted}
        kept |= {did: one for did, one in self.kept.items() if did not in wanted}
        passed = max(now - self.asked_at, 0.0) if self.asked_at is not None else 0.0
        counted = min(passed, grace_seconds / ANSWERS)
        before = self.asked_at if self.asked_at is not None else now
        kept = {did: _at(one, now, now - counted - before, is_wanted=did in wanted) for did, one in kept.items()}
        leaves = any(one.unwanted_since is not None for one in kept.values())
        return replace(self, kept=kept, asked_at=now if leaves else None)

    def leaving(self) -> list[Kept]:
        """Those that are not wanted any more."""
        return [one for one in self.kept.values() if one.unwanted_since is not None]

    def is_mass(self) -> bool:
        """Whether so many leave that Rucio itself may be at fault."""
        return len(self.kept) >= MASS and len(self.leaving()) * 2 > len(self.kept)

    def due(self, *, now: float, grace_seconds: float) -> list[Kept]:
        """Those that leave now, since they have not been wanted for the grace time, which is longer where many leave."""
        grace = grace_seconds * (MASS_FACTOR if self.is_mass() else 1)
        return [one for one in self.leaving() if one.unwanted_since is not None and now - one.unwanted_since >= grace]


def load(directory: Path, rse: str) -> AgentRecord:
    """The record in a store's state directory, a new one if there is none. Raises Corrupt; Refused for another RSE's store."""
    path = directory / RECORD_NAME
    try:
        record = decode(read_bounded(path, _BYTES), str(path))
    except NotFound:
        return AgentRecord(rse)
    if record.rse != rse:
        raise Refused(
            f"is for the RSE {record.rse}, not for {rse}",
            place=str(path),
            hint=f"give --rse {record.rse}, or a store of its own for {rse}: a store's replicas are those of one RSE",
        )
    return record


def save(directory: Path, record: AgentRecord) -> None:
    """Write the record, durably. Raises Unavailable."""
    replace_file(directory / RECORD_NAME, record.encode(), staging=directory, mode=0o644)


def decode(data: bytes, place: str) -> AgentRecord:
    """The record in the bytes of a file. Raises Corrupt or NewerFormat."""
    value = decode_json(data, limit=_BYTES, place=place)
    check_format(value, FORMAT, place)
    datasets = value.get("datasets")
    try:
        if not isinstance(datasets, list):
            raise TypeError("no list of datasets")  # noqa: TRY301 - one kind for all damage
        kept = [_kept(one) for one in datasets]
        asked_at = _moment(value.get("asked_at"))
        return AgentRecord(str(value["rse"]), str(value["store"]), {one.did: one for one in kept}, asked_at)
    except (KeyError, TypeError, ValueError, PacballError) as error:
        hint = "move it away: what the agent has brought then stays here until it is wanted again, or dropped by hand"
        raise Corrupt(f"is not what pacball wrote: {error}", place=place, hint=hint) from error


def _kept(value: dict[str, object]) -> Kept:
    release, flags = str(value["release"]), (value["whole"] is True, value["was_here"] is True)
    if release:
        Release.parse(release)
    return Kept(Did.parse(str(value["did"])), release, *flags, _moment(value["unwanted_since"]))


def _moment(value: object) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float):
        raise ValueError("a time is no number")
    return float(value)  # type: ignore[arg-type]


def _at(kept: Kept, now: float, put_off: float, *, is_wanted: bool) -> Kept:
    if is_wanted:
        return replace(kept, unwanted_since=None)
    since = now if kept.unwanted_since is None else min(kept.unwanted_since + put_off, now)
    return replace(kept, unwanted_since=since)

"""Figures: registering a release of 1,000 packs in Rucio, beside the calls of Rucio's own client; delivering, beside mirroring.

Who registers writes to a real Rucio, which must do the same work for either: names and checksums are made up, and each run has
its own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rucio.client import Client

from benchmarks import rucio_agent
from benchmarks.bench import COSTS, Bench, Tally
from benchmarks.mirrors import LARGE_BYTES, SYNC
from benchmarks.report import Outcome, Target
from pacmirror.delivery.rucio.catalogue import BATCH, FileRecord, RucioCatalogue, batches
from pacmirror.delivery.rucio.material import Material
from pacmirror.delivery.rucio.naming import FileKind, container_name, dataset_name, file_name, metadata_of
from pacmirror.delivery.rucio.registering import Target as Where
from pacmirror.delivery.rucio.registering import register
from pacstore.digest import Digest
from pacstore.release import Release
from pacstore.trust.targets import CatalogRelease, SignedDocument
from tests.peers.rucio.server import running_rucio

PACKS = 1_000
LIMIT = 1.5
OURS, AGAIN, RAW = "pacball register", "pacball register, again", "rucio-clients, the calls alone"
_RSE = "BENCH-ORIGIN"
_DOCUMENT = SignedDocument.of_all([b"what is in a document does not matter here"])


@dataclass
class Made:
    """A release with 1,000 packs, as a store would have it whose checksums were taken."""

    entry: CatalogRelease

    @classmethod
    def make(cls, number: int) -> Made:
        name = f"Bench-{number}-x86_64-linux"
        tree = Digest.of(name.encode())
        return cls(CatalogRelease(Release.parse(name), tree, _DOCUMENT, _DOCUMENT, _DOCUMENT, 1, 1, 1, 1))

    def consign(self, known: Digest | None, *, with_pacball: bool) -> Material:
        assert not with_pacball
        bundle, seed = known or self.entry.tree_digest, self.entry.tree_digest.hex
        packs = [_record(FileKind.PACK, Digest.of(f"{seed} {number}".encode())) for number in range(PACKS)]
        files = [_record(FileKind.BUNDLE, bundle), _record(FileKind.MANIFEST, Digest.of(seed.encode())), *packs]
        return Material(bundle, tuple(files), None, is_new=False)

    def take_back(self) -> None:
        raise NotImplementedError


def measure(bench: Bench) -> Outcome:
    title = f"registering a release of {PACKS:,} packs in Rucio; delivering one of {LARGE_BYTES / 1e9:.1f} GB"
    outcome = Outcome(title, {**COSTS, "calls": ""})
    taken: dict[str, list[float]] = {OURS: [], AGAIN: [], RAW: []}
    with running_rucio() as rucio:
        os.environ["RUCIO_HOME"] = str(rucio.client_home())
        client = Client()
        _add_rse(client)
        for number in range(2 * bench.repeat):
            scope, made = f"bench{number}", Made.make(number)
            client.add_scope("root", scope)
            if number % 2:
                seconds, calls = _timed(lambda s=scope, m=made: _raw(s, m))  # type: ignore[misc]
                _note(bench, outcome, taken, RAW, seconds, calls)
            else:
                for row in (OURS, AGAIN):
                    seconds, calls = _timed(lambda s=scope, m=made: _register(s, m))  # type: ignore[misc]
                    _note(bench, outcome, taken, row, seconds, calls)
        tally = Tally(bench, outcome)
        rucio_agent.measure(bench, tally, client, {"RUCIO_HOME": str(rucio.client_home())})
    tally.finish([rucio_agent.AGENT, SYNC])
    for row, all_of_it in taken.items():
        outcome.rows[row]["wall"] = statistics.median(all_of_it)
    ours, raw = (outcome.value(row, "wall") for row in (OURS, RAW))
    outcome.targets.append(Target(f"registering {PACKS:,} packs, wall", "s", ours, raw, RAW, LIMIT))
    limit = 1 / rucio_agent.SPEED
    outcome.aim("agent, wall, against mirror sync", "wall", ours=rucio_agent.AGENT, peers=[SYNC], limit=limit)
    return outcome


def _note(
    bench: Bench, outcome: Outcome, taken: dict[str, list[float]], row: str, seconds: float, calls: int
) -> None:  # fmt: skip
    bench.say(f"{row}: {seconds:.2f} s, {calls} calls")
    taken[row].append(seconds)
    outcome.rows.setdefault(row, {})["calls"] = calls
    outcome.samples.append({"row": row, "wall_s": seconds, "calls": calls})


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    began = time.perf_counter()
    calls = work()
    return time.perf_counter() - began, calls


def _register(scope: str, made: Made) -> int:
    catalogue = RucioCatalogue.connect()
    register(catalogue, made, Where(_RSE, scope))
    return catalogue.calls


def _raw(scope: str, made: Made) -> int:
    """The calls that one cannot do without, in batches as large as Rucio takes; nothing is looked at."""
    client, name, calls = Client(), dataset_name(made.entry), 1
    material = made.consign(None, with_pacball=False)
    container = container_name(made.entry.release.project)
    client.add_container(scope, container)
    client.add_dataset(scope, name, meta=metadata_of(made.entry, material.bundle))
    for batch in batches(material.files, BATCH):
        client.add_replicas(_RSE, [record.fields(scope) for record in batch])
        client.add_files_to_dataset(scope, name, [{"scope": scope, "name": record.name} for record in batch])
        calls += 2
    client.close(scope, name)
    client.add_datasets_to_container(scope, container, [{"scope": scope, "name": name}])
    return calls + 4


def _add_rse(client: Any) -> None:
    client.add_rse(_RSE, deterministic=True)
    client.add_rse_attribute(_RSE, "lfn2pfn_algorithm", "identity")
    domain = {"read": 1, "write": 0, "delete": 0}
    values = {"scheme": "https", "hostname": "origin.example.org", "port": 443, "prefix": "/rucio/"}
    client.add_protocol(
        _RSE, {**values, "impl": "rucio.rse.protocols.webdav.Default", "domains": {"lan": domain, "wan": domain}}
    )


def _record(kind: FileKind, digest: Digest) -> FileRecord:
    return FileRecord(file_name(kind, digest), True, 64 << 20, digest.hex[:8], digest.hex[:32])

"""Datasets in a real Rucio as `pacball rucio register` leaves them, of files that exist in Rucio alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pacmirror.delivery.rucio.catalogue import FileRecord, RucioCatalogue
from pacmirror.delivery.rucio.naming import Did
from tests.peers.rucio.server import Rucio

TREE = "0123456789abcdef"


@contextmanager
def asking(rucio: Rucio) -> Iterator[RucioCatalogue]:
    """The catalogue of a running Rucio, in this process."""
    from rucio.common import config  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUCIO_HOME", str(rucio.client_home()))
        config.clean_cached_config()
        yield RucioCatalogue.connect()
        config.clean_cached_config()


def add_rses(catalogue: RucioCatalogue, *names: str) -> None:
    """RSEs as docs/rucio.md sets them up."""
    for name in names:
        catalogue.client.add_rse(name, deterministic=True)
        catalogue.client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
        catalogue.client.set_local_account_limit("root", name, 10**15)


def files_of(seed: str, count: int) -> list[FileRecord]:
    """Files of 1,000 bytes and some; the same for the same seed."""
    names = [hashlib.sha256(f"{seed} {number}".encode()).hexdigest() for number in range(count)]
    return [FileRecord(f"{name}.pack", True, 1000 + n, name[:8], name[:32]) for n, name in enumerate(names)]


def add_dataset(
    catalogue: RucioCatalogue, scope: str, name: str, files: list[FileRecord], rse: str, *, close: bool = True
) -> Did:
    """A dataset of the files, which are at the RSE."""
    did = Did(scope, name)
    catalogue.add_collection(did, "DATASET", metadata={})
    catalogue.add_replicas(rse, scope, files)
    catalogue.attach(did, [file.name for file in files])
    if close:
        catalogue.close(did)
    return did

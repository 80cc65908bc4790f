"""Sending a directory or an archive: read once, what is missing of it asked in large questions, packed and sent meanwhile."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.description import Description
from pacstore.packing import Packer
from pacstore.reader import batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from pacstore.material import Material
    from pacstore.outgoing.origin import Origin
    from pacstore.outgoing.outbox import Outbox
    from pacstore.packing import PackingOptions
    from pacstore.progress import Progress
    from pacstore.reader import Batch
    from pacstore.release import Release

_QUESTIONS = 4
"""Batches whose chunks are asked about at once: so that a long way to the origin costs little time. Each takes some 5 MiB."""


@dataclass(frozen=True)
class Sent:
    """What has its chunks at the origin, as far as that knows. Bytes: `new` plain, of which `beside_new` are of the archive
    between its files; `stored` in packs.
    """

    description: Description
    new_bytes: int
    stored_bytes: int
    beside_new_bytes: int = 0


def send_chunks(
    material: Material,
    release: Release,
    origin: Origin,
    outbox: Outbox,
    *,
    asked_ids: int,
    options: PackingOptions,
    progress: Progress,
    spools: Path,
) -> Sent:
    """Send what the origin lacks of `material`; all of it was verified there when this returns.

    Spools grow in the directory `spools`. Raises Refused for what no release may contain and for files that change meanwhile, and
    what the origin does.
    """
    description = Description(spools)
    with Packer(outbox.storage, outbox, options) as packer, _giving_up(outbox):
        packing = _Packing(packer, outbox)
        with batches(material.contents, progress) as stream:
            for batch, questions in _asked(stream, release, origin, asked_ids):
                packing.take(batch, questions)
                description.absorb(batch)
        new_bytes = packing.new_bytes
        if material.archive is not None:
            description.original = material.archive.original
            # In frames of their own: who installs the release needs none of them.
            packer.end_frame()
            for batch, questions in _asked(material.archive.residue(), release, origin, asked_ids):
                packing.take(batch, questions)
                description.absorb_residue(batch)
        packer.finish()
    if outbox.left_bytes:
        progress.begin("sending", outbox.left_bytes)
        outbox.progress = progress
    outbox.finish()
    outbox.progress = None
    return Sent(description, packing.new_bytes, packer.stored_bytes, packing.new_bytes - new_bytes)


class _Packing:
    """Gives the packer what is missing, each chunk once."""

    def __init__(self, packer: Packer, outbox: Outbox) -> None:
        self.new_bytes = 0
        self._packer = packer
        self._outbox = outbox
        self._packed: deque[set[bytes]] = deque(maxlen=_QUESTIONS + 1)

    def take(self, batch: Batch, questions: list[Future[set[bytes]]]) -> None:
        missing = set[bytes]().union(*(question.result() for question in questions))
        # What was packed since this was asked is on its way, or there by now.
        missing = {one for one in missing - set[bytes]().union(*self._packed) if not self._outbox.has(one)}
        self._packed.append(set(missing))
        for chunk_id, data in zip(batch.ids, batch.data, strict=True):
            if chunk_id in missing:
                missing.discard(chunk_id)
                if self._packer.find(chunk_id) is None:
                    self._packer.add(chunk_id, data)
                    self.new_bytes += len(data)


@contextmanager
def _giving_up(outbox: Outbox) -> Iterator[None]:
    """Before the packer ends in an error: its thread may wait for room in the outbox."""
    try:
        yield
    except BaseException:
        outbox.give_up()
        raise


def _asked(
    stream: Iterator[Batch], release: Release, origin: Origin, most: int
) -> Iterator[tuple[Batch, list[Future[set[bytes]]]]]:
    """Each batch with what was asked about its chunks; some batches ahead."""
    ahead: deque[tuple[Batch, list[Future[set[bytes]]]]] = deque()
    for batch in stream:
        ids = list(dict.fromkeys(batch.ids))
        ahead.append((batch, [origin.start_missing(release, ids[at : at + most]) for at in range(0, len(ids), most)]))
        if len(ahead) > _QUESTIONS:
            yield ahead.popleft()
    yield from ahead

"""Origin: what a publisher asks of the origin that it publishes to; others implement it over a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from pacstore.digest import Digest
    from pacstore.incoming.publication import Placed
    from pacstore.release import Release
    from pacstore.storage import ObjectKind
    from pacstore.trust.change import Change
    from pacstore.trust.targets import SignedDocument


@dataclass(frozen=True)
class Terms:
    """`commits`: whether the origin commits a signed change at once. `asked_ids`: chunks in one question, at most."""

    commits: bool
    asked_ids: int


class Origin(Protocol):
    """One origin. All methods raise Refused where it does not allow something, and Unavailable if it cannot be reached."""

    @property
    def name(self) -> str:
        """For messages."""

    def begin(self, release: Release) -> Terms:
        """Ask whether a release may be published. From here on, what is said to be there stays for a while."""

    def start_missing(self, release: Release, ids: Sequence[bytes]) -> Future[set[bytes]]:
        """Those of the chunks `ids` that are not there."""

    def start_upload(
        self, release: Release, kind: ObjectKind, digest: Digest, path: Path, sent: Callable[[int], None]
    ) -> Future[None]:
        """Send the object in the file `path`, of which the origin may have a part or all; done when it was verified there.

        `sent` is told how many bytes more were acknowledged. Raises Corrupt if something else arrived.
        """

    def place(self, release: Release, manifest: SignedDocument, attributes: SignedDocument) -> Placed:
        """Where the release's chunks are there. Raises StillMissing."""

    def pending(self, release: Release) -> Change | None:
        """What waits there of the line."""

    def commit(self, release: Release, change: Change) -> bool:
        """Hand in a signed change of the line; whether it was committed: otherwise it waits. Raises Outdated, StillMissing."""

    def end(self, release: Release) -> None:
        """Say that nothing more comes."""

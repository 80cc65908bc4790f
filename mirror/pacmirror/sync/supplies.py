"""What a sync needs from the rest of the daemon. Everything is used in the daemon's event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease


class CatalogView(Protocol):
    """The catalog that is here, verified; `pacmirror.replication.Replication` is one."""

    def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release, withdrawn ones too; not to be changed."""

    @property
    def version(self) -> int | None:
        """The catalog's version; None while there is none: then nothing can be said of any release."""

    async def changed(self, changes: int) -> int:
        """Return as soon as it has changed more than `changes` times since the start, and how often it has."""

    async def loaded(self) -> None:
        """Return once it is known which catalog is here, if any."""


class DocumentSupply(Protocol):
    """Brings the documents of a release."""

    async def fetch(self, entry: CatalogRelease) -> None:
        """Return when all documents of the release are here: verified, durable, public.

        Raises NotFound (definite), Corrupt, TooLarge or Unavailable.
        """


class PackSupply(Protocol):
    """Brings packs; `pacmirror.cache.filler.Filler` is one."""

    async def fetch(self, pack: Digest, *, length: int | None, urgent: bool) -> None:
        """Return when the whole pack is here: verified, durable, public. It goes on when the caller is cancelled.

        Raises NotFound (definite: every source says so), Corrupt, TooLarge or Unavailable.
        """

"""Documents of releases, for a sync: what is missing or wrong here comes from the sources, compared with the catalog."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pacmirror.threads import start_thread
from pacmirror.verdict import as_gateway
from pacstore.documents import fetch_signed, read_object
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge
from pacstore.placement import placement_name
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacstore.source import Source
    from pacstore.storage import Storage
    from pacstore.trust.targets import CatalogRelease, SignedDocument


class SourceDocuments:
    """Fetches documents from `source` into what `storage` gives; as `pacmirror.sync.supplies.DocumentSupply` says."""

    def __init__(self, source: Source, storage: Callable[[], Storage]) -> None:
        self._source = source
        self._storage = storage

    async def fetch(self, entry: CatalogRelease) -> None:
        """Return when all documents of the release are here."""
        await start_thread(partial(self._fetch, entry), name="pacball-documents")

    def _fetch(self, entry: CatalogRelease) -> None:
        storage = self._storage()
        objects = {ObjectKind.MANIFEST: entry.manifest, ObjectKind.ATTRIBUTES: entry.attributes}
        if entry.provenance is not None:
            objects[ObjectKind.PROVENANCE] = entry.provenance
        for kind, signed in objects.items():
            with suppress(NotFound, Corrupt):
                read_object(storage, kind, signed)
                continue
            data = self._fetched(object_path(kind, signed.digest), signed)
            with storage.stage(kind) as staged:
                staged.write(data)
                staged.publish(signed.digest)
        name = placement_name(entry.release, entry.placement_number)
        with suppress(NotFound, TooLarge):
            if entry.placement.matches(storage.get(DocumentKind.PLACEMENT, name, limit=entry.placement.length)):
                return
        data = self._fetched(document_path(DocumentKind.PLACEMENT, name), entry.placement)
        storage.put(DocumentKind.PLACEMENT, name, data)

    def _fetched(self, path: str, signed: SignedDocument) -> bytes:
        try:
            return fetch_signed(self._source, path, signed)
        except PacballError as error:
            raise as_gateway(error) from error

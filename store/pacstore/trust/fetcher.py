"""A Source as python-tuf's fetcher, and python-tuf's errors as pacball's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import FetcherInterface

from pacstore.errors import NotFound, PacballError, Unavailable, Untrusted
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacstore.source import Source

BASE_URL = "pacball:///"
_OTHER = "use another source, or try again later"
_ONLINE_ROLES = ("timestamp", "snapshot", "placement-")
_BEHIND = "this source is behind what was seen before, or lies: use another source"
_NEW_KEYS = "use another source; if the catalog really has new keys, get its new root from its operator"


class SourceFetcher(FetcherInterface):
    """Fetches catalog files from `source`; the URL is `BASE_URL` and the file's name."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._path = ""

    @property
    def place(self) -> str:
        """The file that was asked for last, for messages."""
        return f"{self._source.name}/{self._path}"

    @property
    def file(self) -> str:
        """The name of that file alone."""
        return self._path.rpartition("/")[2]

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes. Unlike the inherited method, it never takes in more than `max_length` of them."""
        try:
            # A role's name, and the length of its metadata, are the signer's words: both are checked before use.
            self._path = document_path(DocumentKind.CATALOG, url.removeprefix(BASE_URL))
            return self._source.read(self._path, limit=min(max_length, METADATA_LIMITS.targets_bytes))
        except NotFound as error:
            # This is how python-tuf learns that a root is the last one.
            raise DownloadHTTPError(str(error), 404) from error
        except PacballError as error:
            raise DownloadError(str(error)) from error

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, METADATA_LIMITS.targets_bytes)


@contextmanager
def pacball_errors(fetcher: SourceFetcher) -> Iterator[None]:
    """Turn python-tuf's errors into pacball's: Untrusted for what does not verify, and what the source itself raised."""
    try:
        yield
    except DownloadError as error:
        raise _of_source(fetcher, error) from error
    except ExpiredMetadataError as error:
        raise Untrusted(f"the catalog is out of date: {error}", place=fetcher.place, hint=_cure(str(error))) from error
    except BadVersionNumberError as error:
        message = f"the catalog was rolled back, or mixed from several versions: {error}"
        raise Untrusted(message, place=fetcher.place, hint=_BEHIND) from error
    except (RepositoryError, ValueError) as error:
        hint = _NEW_KEYS if isinstance(error, UnsignedMetadataError) else _OTHER
        reason = str(error) or type(error).__name__
        raise Untrusted(f"this catalog cannot be believed: {reason}", place=fetcher.place, hint=hint) from error


def _of_source(fetcher: SourceFetcher, error: DownloadError) -> PacballError:
    cause = error.__cause__
    if isinstance(cause, NotFound):
        if fetcher.file == TIMESTAMP_NAME:
            return NotFound("has no catalog", place=fetcher.place, hint="is this the address of a pacball store?")
        # It was promised by a signed file, so its absence says nothing about the catalog.
        return Unavailable("the catalog names this file, but it is missing here", place=fetcher.place, hint=_OTHER)
    if isinstance(cause, PacballError):
        return cause
    return Unavailable(str(error), place=fetcher.place, hint=_OTHER)


def _cure(reason: str) -> str:
    # python-tuf names the role in its message only: "timestamp.json is expired", "New placement-X is expired".
    if any(role in reason for role in _ONLINE_ROLES):
        return "the operator of the origin runs: pacball catalog refresh; or use a source that is up to date"
    return "the operator of the origin runs, with the offline keys: pacball catalog renew; or use a newer source"

"""A Source as python-tuf's fetcher, and python-tuf's errors as pacball's."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Root
from tuf.ngclient import FetcherInterface

from pacstore.errors import NotFound, PacballError, Unavailable, Untrusted
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME, file_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacstore.source import Source

BASE_URL = "pacball:///"
_OTHER = "use another source, or try again later"
_BEHIND = "this source is behind what was seen before, or lies: use another source"
_MIXED = "it was read while it changed, or files of several versions are mixed there: try again, or use another source"
_PIN_LATER = "pin a later one, from its operator, who gets it with: pacball trust export --newest-root --store STORE -o root.json"
_NEW_KEYS = (
    "use another source; if the catalog really has new keys, get its new root from its operator, who sees who has signed "
    "with: pacball trust status --store STORE"
)

# python-tuf says versions in its messages alone, and in more than one order: (pattern, is it a rollback?, our words).
_VERSIONS = (
    (r"New timestamp version (?P<new>\d+) must be >= (?P<old>\d+)", True, "timestamp"),
    (r"New snapshot version must be >= (?P<old>\d+), got version (?P<new>\d+)", True, "snapshot"),
    (r"Expected (?P<role>\S+)\.json version (?P<new>\d+), got (?P<old>\d+)", True, "{role}"),
    (r"Expected root version (?P<old>\d+) instead got version (?P<new>\d+)", False, "root"),
    (r"Expected snapshot version (?P<old>\d+), got (?P<new>\d+)", False, "snapshot"),
    (r"Expected (?P<role>\S+) v(?P<old>\d+), got v(?P<new>\d+)", False, "{role}"),
)


class SourceFetcher(FetcherInterface):
    """Fetches catalog files from `source`; the URL is `BASE_URL` and the file's name.

    `last_root` is the last version of the root that can be followed from the pinned one, which is version 1 unless told
    otherwise. That there is a later one is an error: if it were not looked at, what it revokes would be trusted for ever.
    """

    def __init__(self, source: Source, *, last_root: int = METADATA_LIMITS.root_rotations + 1) -> None:
        self._source = source
        self._last_root = last_root
        self._path = ""

    @property
    def place(self) -> str:
        """The file that was asked for last, for messages."""
        return f"{self._source.name}/{self._path}"

    @property
    def file(self) -> str:
        """The name of that file alone."""
        return self._path.rpartition("/")[2]

    @property
    def subject(self) -> str:
        """The role and the version of that file, in words."""
        role, _, _ = self.file.rpartition(".json")
        version, dot, name = role.partition(".")
        return f"{name}, version {version}" if dot and version.isdecimal() else role

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file's bytes. Unlike the inherited method, it never takes in more than `max_length` of them."""
        try:
            # A role's name, and the length of its metadata, are the signer's words: both are checked before use.
            self._path = document_path(DocumentKind.CATALOG, url.removeprefix(BASE_URL))
            data = self._source.read(self._path, limit=min(max_length, METADATA_LIMITS.targets_bytes))
            if self.file == file_name(Root.type, self._last_root + 1):
                raise Untrusted(
                    "the root was changed too often since the pinned one", place=self.place, hint=_PIN_LATER
                )
        except NotFound as error:
            # This is how python-tuf learns that a root is the last one.
            raise DownloadHTTPError(str(error), 404) from error
        except PacballError as error:
            raise DownloadError(str(error)) from error
        else:
            return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, METADATA_LIMITS.targets_bytes)


@contextmanager
def pacball_errors(fetcher: SourceFetcher) -> Iterator[None]:
    """Turn python-tuf's errors into pacball's: Untrusted for what does not verify, and what the source itself raised."""
    try:
        yield
    except DownloadError as error:
        raise _of_source(fetcher, error) from error
    except BadVersionNumberError as error:
        raise _of_versions(fetcher, str(error)) from error
    except (RepositoryError, ValueError) as error:
        hint = _NEW_KEYS if isinstance(error, UnsignedMetadataError) else _OTHER
        reason = str(error) or type(error).__name__
        subject = "" if reason.startswith(fetcher.subject) else f"{fetcher.subject}: "
        message = f"this catalog cannot be believed: {subject}{reason}"
        raise Untrusted(message, place=fetcher.place, hint=hint) from error


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


def _of_versions(fetcher: SourceFetcher, reason: str) -> Untrusted:
    for pattern, is_rollback, words in _VERSIONS:
        match = re.match(pattern, reason)
        if match is None:
            continue
        role = words.format_map(match.groupdict())
        if is_rollback:
            message = f"the catalog was rolled back: {role} is version {match['new']}, and version {match['old']} was seen before"
            return Untrusted(message, place=fetcher.place, hint=_BEHIND)
        message = f"the catalog is mixed from several versions: {role} is version {match['new']}, not {match['old']}"
        return Untrusted(message, place=fetcher.place, hint=_MIXED)
    message = f"the catalog was rolled back, or mixed from several versions: {fetcher.subject}: {reason}"
    return Untrusted(message, place=fetcher.place, hint=_BEHIND)

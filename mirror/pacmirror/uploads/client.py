"""HttpOrigin: an origin that takes releases over HTTP, for synchronous callers (FORMAT.md section 11.1)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING, Self

from pacmirror.background import BackgroundLoop
from pacmirror.base_url import parse_base_url
from pacmirror.limits import ClientLimits
from pacmirror.session import open_session
from pacmirror.surroundings import Surroundings
from pacmirror.uploads.consignments import CONSIGNMENT_BYTES, parse_consignment
from pacmirror.uploads.sender import Sender
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.errors import Corrupt, PacballError
from pacstore.incoming.publication import Placed
from pacstore.limits import KIB
from pacstore.outgoing.origin import Terms
from pacstore.trust.change import CHANGE_BYTES, Change
from pacstore.trust.targets import SignedDocument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from pacstore.consignment import Consignment
    from pacstore.release import Release
    from pacstore.storage import ObjectKind

USER_AGENT = "pacball-publish"
_ANSWER_BYTES = 256 * KIB
_JSON = "application/json"
_MOST_IDS = 16_384
_QUESTIONS_AT_ONCE = 4


class HttpOrigin:
    """The origin at a base URL, as the protocol `pacstore.outgoing.origin.Origin` demands.

    Any number of threads may use it; it owns one thread with an event loop, until `close`.
    """

    def __init__(
        self, base_url: str, *, limits: ClientLimits | None = None, surroundings: Surroundings | None = None
    ) -> None:
        """Nothing is sent yet. Raises Refused if `base_url` is no http or https URL, and as `Surroundings.access`."""
        self._base = parse_base_url(base_url)
        self._limits = limits or ClientLimits()
        self._access = (surroundings or Surroundings()).access(self._base)
        self._loop = BackgroundLoop(self._session())

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        headers = {"User-Agent": USER_AGENT}
        async with open_session(self._access, self._limits, headers=headers, throttled=False) as session:
            self._sender = Sender(session, self._base, self._limits, proxy=self._access.route.proxy_name)
            self._questions = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
            yield

    @property
    def name(self) -> str:
        """The base URL."""
        return self._base

    def begin(self, release: Release) -> Terms:
        """Ask whether a release may be published. Raises Refused, Unavailable."""
        value = self._ask("POST", f"v1/publications/{release}", b"")
        limits = value.get("limits")
        if not isinstance(limits, dict) or not isinstance(value.get("commits"), bool):
            raise self._strange()
        asked, piece = limits.get("asked_ids"), limits.get("piece_bytes")
        if type(asked) is not int or type(piece) is not int or asked < 1 or piece < 1:
            raise self._strange()
        self._sender.limit(piece)
        return Terms(commits=bool(value["commits"]), asked_ids=min(asked, _MOST_IDS))

    def start_missing(self, release: Release, ids: Sequence[bytes]) -> Future[set[bytes]]:
        """Those of the chunks `ids` that are not there."""
        return self._loop.start(self._missing(release, ids))

    def start_upload(
        self, release: Release, kind: ObjectKind, digest: Digest, path: Path, sent: Callable[[int], None]
    ) -> Future[None]:
        """Send an object, of which a part or all may be there."""
        where = f"v1/publications/{release}/uploads/{kind.value}/{digest.hex}"
        return self._loop.start(self._sender.upload(where, path, sent))

    def place(self, release: Release, manifest: SignedDocument, attributes: SignedDocument) -> Placed:
        """Where the release's chunks are there. Raises StillMissing."""
        body = json.dumps({"manifest": _fields(manifest), "attributes": _fields(attributes)}).encode()
        value = self._ask("POST", f"v1/publications/{release}/placement", body)
        number, rewritten = value.get("number"), value.get("bytes_rewritten")
        if type(number) is not int or type(rewritten) is not int or number < 1 or rewritten < 0:
            raise self._strange()
        return Placed(self._document(value.get("placement")), number, rewritten)

    def pending(self, release: Release) -> Change | None:
        """What waits there of the line."""
        path = f"v1/publications/{release}/change"
        data = self._loop.call(self._sender.ask("GET", path, most=CHANGE_BYTES))
        return Change.parse(data, place=f"{self._base}/{path}") if data else None

    def commit(self, release: Release, change: Change) -> bool:
        """Hand in a signed change of the line; whether it was committed. Raises Outdated, StillMissing, Refused."""
        value = self._ask("POST", f"v1/publications/{release}/change", change.encode())
        committed, waiting = value.get("committed"), value.get("waiting")
        if not isinstance(committed, list) or not isinstance(waiting, list):
            raise self._strange()
        roles = {one.get("role") for one in waiting if isinstance(one, dict)}
        return not set(change.roles) & roles

    def consign(self, release: Release, known: Digest | None, *, with_pacball: bool) -> Consignment:
        """Let a release be kept as it is, for who registers it elsewhere. Raises Refused, NotFound, Corrupt, Unavailable."""
        body = json.dumps({"bundle": known.hex if known is not None else None, "pacball": with_pacball}).encode()
        path = f"v1/publications/{release}/consignment"
        data = self._loop.call(self._sender.ask("POST", path, data=body, kind=_JSON, most=CONSIGNMENT_BYTES))
        return parse_consignment(data, place=self._base)

    def take_back(self, release: Release) -> bool:
        """Let a release be kept for that no longer; whether it was kept."""
        return self._ask("DELETE", f"v1/publications/{release}/consignment", b"").get("was_kept") is True

    def end(self, release: Release) -> None:
        """Say that nothing more comes; where that cannot be said, the origin finds out by itself."""
        with contextlib.suppress(PacballError):
            self._loop.call(self._sender.ask("DELETE", f"v1/publications/{release}", most=_ANSWER_BYTES))

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread. May be repeated."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _missing(self, release: Release, ids: Sequence[bytes]) -> set[bytes]:
        async with self._questions:
            path, body = f"v1/publications/{release}/missing", b"".join(ids)
            data = await self._sender.ask("POST", path, data=body, most=len(body))
        found = {data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)}
        if not found <= set(ids):
            raise self._strange()
        return found

    def _ask(self, method: str, path: str, body: bytes) -> Mapping[str, object]:
        data = self._loop.call(self._sender.ask(method, path, data=body, kind=_JSON, most=_ANSWER_BYTES))
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._strange() from error
        if not isinstance(value, dict):
            raise self._strange()
        return value

    def _document(self, value: object) -> SignedDocument:
        fields = value if isinstance(value, dict) else {}
        digest, length, sha256 = fields.get("digest"), fields.get("length"), fields.get("sha256")
        if not all(re.fullmatch(r"[0-9a-f]{64}", str(one)) for one in (digest, sha256)) or type(length) is not int:
            raise self._strange()
        return SignedDocument(Digest.parse(str(digest)), length, bytes.fromhex(str(sha256)))

    def _strange(self) -> Corrupt:
        return Corrupt("answers what is no answer", place=self._base, hint="is it an origin of pacball?")


def _fields(document: SignedDocument) -> dict[str, object]:
    return {"digest": document.digest.hex, "length": document.length, "sha256": document.sha256.hex()}

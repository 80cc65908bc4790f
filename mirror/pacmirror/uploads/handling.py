"""The requests of who publishes over HTTP (FORMAT.md section 11.1): parse, one call, answer.

Nothing here believes a client: names, numbers and lengths are checked before anything is done with them, and what is wrong with
a body is the client's fault (422), never an upstream's.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from aiohttp import ClientError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from pacmirror.access import TOKEN
from pacmirror.uploads.consignments import encode_consignment
from pacmirror.uploads.intake import Intake
from pacmirror.uploads.publications import Publications
from pacmirror.uploads.refusals import Wrong, answer_refusal, as_sent
from pacmirror.uploads.wire import COMPLETE_HEADER, IDS_TYPE, LENGTH_HEADER, LIMIT_HEADER, OFFSET_HEADER, PIECE_TYPE
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.errors import Corrupt, PacballError, Refused, TooLarge, Unavailable, printable
from pacstore.incoming.admission import LENGTHS
from pacstore.incoming.spool import Upload, UploadName
from pacstore.release import Release
from pacstore.storage import ObjectKind
from pacstore.trust.targets import SignedDocument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pacmirror.limits import UploadLimits
    from pacmirror.uploads.publications import Begun
    from pacstore.trust.repository import Outcome

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

INTAKE = web.AppKey("INTAKE", Intake)
PUBLICATIONS = web.AppKey("PUBLICATIONS", Publications)
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,17})\Z")
_NEVER_KEPT = {"Cache-Control": "no-store"}
_DOCUMENT_BYTES = 4_096


def refusing(handler: Handler) -> Handler:
    """The handler, whose errors are answered as this part of the interface does."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Corrupt, TooLarge) as error:
            return answer_refusal(as_sent(error), request)
        except PacballError as error:
            return answer_refusal(error, request)

    return handle


@refusing
async def begin_publication(request: web.Request) -> web.StreamResponse:
    """Whether a release may be published here, and within which limits."""
    limits = request.app[INTAKE].limits
    begun = await request.app[PUBLICATIONS].begin(_owner(request), _release(request))
    return _json(_begun(begun, limits))


@refusing
async def end_publication(request: web.Request) -> web.StreamResponse:
    """The client is done."""
    await request.app[PUBLICATIONS].close(_owner(request), _release(request))
    return web.Response(status=204, headers=_NEVER_KEPT)


@refusing
async def ask_missing(request: web.Request) -> web.StreamResponse:
    """Those of the ids in the body whose chunks are not here, in the same form."""
    most = request.app[INTAKE].limits.asked_ids * DIGEST_BYTES
    data = await _read(request, most)
    if len(data) % DIGEST_BYTES:
        raise Wrong("is no list of ids of 32 bytes each", place="the body")
    ids = [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]
    missing = await request.app[PUBLICATIONS].missing(_owner(request), _release(request), ids)
    return web.Response(body=b"".join(missing), content_type=IDS_TYPE, headers=_NEVER_KEPT)


@refusing
async def begin_upload(request: web.Request) -> web.StreamResponse:
    """Begin an upload, or say how far the one is that was begun."""
    name, length = _name(request), _number(request, LENGTH_HEADER)
    if _is_complete(request) or request.can_read_body:
        raise Refused("an upload is begun without its bytes", hint="send them with PATCH, and Upload-Complete: ?0 here")
    upload = await request.app[INTAKE].begin(name, length)
    headers = {**_progress(upload, length, request), "Location": request.rel_url.raw_path}
    status = 201 if upload is not None and not upload.offset else 200
    return web.Response(status=status, headers=headers)


@refusing
async def look_at_upload(request: web.Request) -> web.StreamResponse:
    """How far an upload is."""
    upload = await request.app[INTAKE].look(_name(request))
    return web.Response(status=204, headers=_progress(upload, None, request))


@refusing
async def append_to_upload(request: web.Request) -> web.StreamResponse:
    """The next piece of an upload."""
    name, offset = _name(request), _number(request, OFFSET_HEADER)
    if request.content_type != PIECE_TYPE:
        raise Refused(f"has not the Content-Type {PIECE_TYPE}", place="the piece")
    most = request.app[INTAKE].limits.piece_bytes
    _check_plain(request)
    if (request.content_length or 0) > most:
        raise TooLarge(f"a piece of more than {most} bytes", hint="send smaller pieces")
    is_last = _is_complete(request)
    upload = await request.app[INTAKE].append(name, request.content, offset=offset, is_last=is_last)
    return web.Response(status=204 if upload is not None else 200, headers=_progress(upload, None, request))


@refusing
async def cancel_upload(request: web.Request) -> web.StreamResponse:
    """Cancel an upload."""
    await request.app[INTAKE].drop(_name(request))
    return web.Response(status=204, headers=_NEVER_KEPT)


@refusing
async def make_placement(request: web.Request) -> web.StreamResponse:
    """Where the chunks of the release are, as the catalog will sign it."""
    value = _object(await _read(request, _DOCUMENT_BYTES))
    if set(value) != {"manifest", "attributes"}:
        raise Wrong("has not just manifest and attributes", place="the body")
    manifest, attributes = _document(value["manifest"]), _document(value["attributes"])
    placed = await request.app[PUBLICATIONS].place(_owner(request), _release(request), manifest, attributes)
    document = {"digest": placed.placement.digest.hex, "length": placed.placement.length,
                "sha256": placed.placement.sha256.hex()}  # fmt: skip
    return _json({"placement": document, "number": placed.number, "bytes_rewritten": placed.rewritten_bytes})


@refusing
async def get_change(request: web.Request) -> web.StreamResponse:
    """What waits of the line, on top of which the release is signed; 204 if nothing does."""
    change = await request.app[PUBLICATIONS].pending(_release(request))
    if change is None:
        return web.Response(status=204, headers=_NEVER_KEPT)
    data = await asyncio.to_thread(change.encode)
    return web.Response(body=data, content_type="application/json", headers=_NEVER_KEPT)


@refusing
async def commit_change(request: web.Request) -> web.StreamResponse:
    """Take in the change of the line, signed; the release is in the catalog then, or waits there."""
    data = await _read(request, request.app[INTAKE].limits.change_bytes)
    release = _release(request)
    return _json(_outcome(await request.app[PUBLICATIONS].commit(_owner(request), release, data)))


@refusing
async def consign_release(request: web.Request) -> web.StreamResponse:
    """Keep a release as it is, and say with which checksums it is registered elsewhere."""
    value = _object(await _read(request, _DOCUMENT_BYTES))
    if not set(value) <= {"bundle", "pacball"} or type(value.get("pacball", False)) is not bool:
        raise Wrong("has not just bundle, an id or null, and pacball, true or false", place="the body")
    known = None if value.get("bundle") is None else _digest(value["bundle"])
    made = await request.app[PUBLICATIONS].consign(
        _owner(request), _release(request), known, with_pacball=value.get("pacball", False) is True
    )
    return _json(encode_consignment(made))


@refusing
async def take_back_release(request: web.Request) -> web.StreamResponse:
    """Keep a release for others no longer."""
    _check_plain(request)
    return _json({"was_kept": await request.app[PUBLICATIONS].take_back(_release(request))})


PUBLISHING_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/publications/{release}", begin_publication),
    ("DELETE", "/v1/publications/{release}", end_publication),
    ("POST", "/v1/publications/{release}/missing", ask_missing),
    ("POST", "/v1/publications/{release}/uploads/{kind}/{digest}", begin_upload),
    ("HEAD", "/v1/publications/{release}/uploads/{kind}/{digest}", look_at_upload),
    ("PATCH", "/v1/publications/{release}/uploads/{kind}/{digest}", append_to_upload),
    ("DELETE", "/v1/publications/{release}/uploads/{kind}/{digest}", cancel_upload),
    ("POST", "/v1/publications/{release}/placement", make_placement),
    ("GET", "/v1/publications/{release}/change", get_change),
    ("POST", "/v1/publications/{release}/change", commit_change),
    ("POST", "/v1/publications/{release}/consignment", consign_release),
    ("DELETE", "/v1/publications/{release}/consignment", take_back_release),
)
"""Method, path, handler: what takes a body, or changes something."""


def _owner(request: web.Request) -> str:
    # Without uploads no token is asked for; whoever has the store refuses then.
    return request[TOKEN].id if TOKEN in request else "00000000"


def _release(request: web.Request) -> Release:
    return Release.parse(request.match_info["release"])


def _name(request: web.Request) -> UploadName:
    _release(request)
    kind, digest = request.match_info["kind"], request.match_info["digest"]
    if kind not in [one.value for one in LENGTHS]:
        raise Refused("is nothing that is uploaded", place=printable(kind[:40]), hint=f"known are {', '.join(LENGTHS)}")
    return UploadName(_owner(request), ObjectKind(kind), _digest(digest))


def _digest(text: object) -> Digest:
    try:
        return Digest.parse(str(text))
    except PacballError as error:
        raise Refused("is no digest", place=printable(str(text)[:80])) from error


def _number(request: web.Request, header: str) -> int:
    given = request.headers.getall(header, [])
    if len(given) != 1 or not _NUMBER.match(given[0]):
        raise Refused(f"needs one header {header} with a number of bytes", place=request.method)
    return int(given[0])


def _is_complete(request: web.Request) -> bool:
    """Upload-Complete, a boolean of RFC 9651: whether the upload is to be whole with this piece."""
    given = request.headers.getall(COMPLETE_HEADER, [])
    if given not in (["?0"], ["?1"]):
        raise Refused(f"needs one header {COMPLETE_HEADER}: ?0 or ?1", place=request.method)
    return given == ["?1"]


def _progress(upload: Upload | None, length: int | None, request: web.Request) -> dict[str, str]:
    headers = {**_NEVER_KEPT, LIMIT_HEADER: f"max-append-size={request.app[INTAKE].limits.piece_bytes}"}
    if upload is not None:
        headers |= {OFFSET_HEADER: str(upload.offset), LENGTH_HEADER: str(upload.length), COMPLETE_HEADER: "?0"}
        return headers
    if length is not None:
        headers |= {OFFSET_HEADER: str(length), LENGTH_HEADER: str(length)}
    return headers | {COMPLETE_HEADER: "?1"}


async def _read(request: web.Request, most: int) -> bytes:
    """The whole body. Raises TooLarge, and Unavailable where it is broken off."""
    limits = request.app[INTAKE].limits
    _check_plain(request)
    if (request.content_length or 0) > most:
        raise TooLarge(f"a body of more than {most} bytes")
    try:
        async with asyncio.timeout(2 * limits.stall_seconds + most / (16 * limits.min_bytes_per_second)):
            async with request.app[INTAKE].bodies.take(_owner(request), request.content_length or most):
                return await _collect(request.content, most, limits.stall_seconds)
    except TimeoutError as error:
        raise Unavailable("the body took too long", hint="try again") from error
    except (ClientError, HttpProcessingError, OSError) as error:
        raise Unavailable("the body was broken off", hint="try again") from error


async def _collect(content: StreamReader, most: int, stall_seconds: float) -> bytes:
    data = bytearray()
    while True:
        # Others wait for the room: who is silent does not keep it as long as the largest body may take.
        async with asyncio.timeout(stall_seconds):
            piece = await content.readany()
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > most:
            raise TooLarge(f"a body of more than {most} bytes")


def _check_plain(request: web.Request) -> None:
    """Limits, and the room that is taken for a body, are of what was sent: it must not become more here."""
    if any(one.strip().lower() not in ("", "identity") for one in request.headers.getall("Content-Encoding", [])):
        raise Refused("a body must not be compressed", place="Content-Encoding", hint="send it as it is")


def _object(data: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Wrong("is no JSON", place="the body") from error
    if not isinstance(value, dict):
        raise Wrong("is no JSON object", place="the body")
    return value


def _document(value: object) -> SignedDocument:
    if not isinstance(value, dict) or set(value) != {"digest", "length", "sha256"}:
        raise Wrong("names no document: digest, length, sha256", place="the body")
    length, sha256 = value["length"], value["sha256"]
    if type(length) is not int or not 0 <= length < 1 << 63 or not re.fullmatch(r"[0-9a-f]{64}", str(sha256)):
        raise Wrong("names no document: a length or a SHA-256 is none", place="the body")
    return SignedDocument(_digest(value["digest"]), length, bytes.fromhex(str(sha256)))


def _begun(begun: Begun, limits: UploadLimits) -> dict[str, object]:
    entry = begun.entry
    return {
        "tree_digest": entry.tree_digest.hex if entry is not None else None,
        "waits": begun.waits,
        "commits": begun.commits,
        "limits": {
            "asked_ids": limits.asked_ids,
            "piece_bytes": limits.piece_bytes,
            "pack_bytes": limits.pack_bytes,
            "document_bytes": limits.document_bytes,
            "pieces_at_once": limits.receiving_per_token,
        },
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    waiting = [{"role": one.role, "missing": one.missing} for one in outcome.waiting]
    return {
        "changed": outcome.changed,
        "version": outcome.version,
        "committed": list(outcome.committed),
        "waiting": waiting,
    }


def _json(value: Mapping[str, object]) -> web.Response:
    return web.json_response(value, headers=_NEVER_KEPT)

"""Answering: pacballs, their metalinks and the list of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import error_answer
from pacmirror.beginning import begin_answer
from pacmirror.files import BINARY, CHANGING, PublicFile
from pacmirror.pacballs.fields import disposition, instance_digests, repr_digest
from pacmirror.pacballs.offer import Offered
from pacmirror.pacballs.pages import index_page
from pacmirror.pacballs.service import Pacballs
from pacmirror.request_keys import is_in
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, printable
from pacstore.pacball.casync import encode_index
from pacstore.pacball.digests import PacballKey
from pacstore.pacball.metalink import METALINK_TYPE, encode_metalink
from pacstore.pacball.stub import STUB_BYTES, file_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.conditions import Answer
    from pacstore.assemble import Assembler
    from pacstore.digest import Bytes
    from pacstore.pacball.digests import PacballDigests

from pacmirror.pacballs.delivering import CONFIG, PACBALLS, answer_data, answer_page, send_assembled

LASTING = "public, max-age=3600, no-transform"
"""The name of a pacball says which files it has; a later version may put another stub before them."""
_NAME = re.compile(r"([A-Za-z0-9._-]+)\.b3-([0-9a-f]{64})\.sh\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
_ETAG_TAG = "pb"


async def get_index(request: web.Request) -> web.StreamResponse:
    """The pacballs that can be had here, for people."""
    held = await request.app[PACBALLS].offer.held()
    most = request.app[CONFIG].limits.pacballs.listed
    return await answer_page(request, lambda: index_page(held[:most], left_out=max(len(held) - most, 0)))


async def get_pacball(request: web.Request) -> web.StreamResponse:
    """A pacball, whole or one range of it, or its metalink, or its index for casync."""
    name = request.rel_url.raw_path.rpartition("/")[2]
    for suffix, answer in _BESIDE.items():
        if name.endswith(suffix):
            return await answer(request, *await find_pacball(request, name.removesuffix(suffix)))
    return await _answer_pacball(request, *await find_pacball(request, name))


async def _answer_pacball(request: web.Request, offered: Offered, name: str) -> web.StreamResponse:
    service, entry = request.app[PACBALLS], offered.entry
    opened = await service.offer.open(entry)
    digests = await service.digesting.find(entry)
    public = PublicFile(f"pacballs/{name}", "", LASTING, BINARY)

    def begin() -> tuple[Answer, web.StreamResponse]:
        etag = f'"{_ETAG_TAG}-{PacballKey.of(entry).etag_id}"'
        size = STUB_BYTES + opened.payload.total_bytes
        more = _more_headers(request, name, digests)
        return begin_answer(request, public, size=size, etag=etag, modified=entry.published, more=more)

    answer, response = begin()
    begins, ends = answer.offset, answer.offset + answer.length
    if answer.has_body:
        await service.offer.check(offered, opened, lambda frames: frames.in_pacball(begins, ends))
    if request.method == "GET" and answer.has_body and digests is None and answer.offset < STUB_BYTES:
        digests = await want_digests(service, offered)
        if digests is None:
            return not_ready(request, opened.payload.total_bytes)
        answer, response = begin()

    def pieces(assembler: Assembler) -> Iterator[Bytes]:
        return opened.pacball(assembler, digests).read(answer.offset, answer.offset + answer.length)

    return await send_assembled(request, answer, response, opened, digests, pieces)


def _more_headers(request: web.Request, name: str, digests: PacballDigests | None) -> dict[str, str]:
    mirrors = request.app[CONFIG].pacballs.mirrors
    links = [f'<{name}.meta4>; rel=describedby; type="{METALINK_TYPE}"']
    links += [f"<{url}/pacballs/{name}>; rel=duplicate; pri={number}" for number, url in enumerate(mirrors, start=1)]
    headers = {"Content-Disposition": disposition(name), "Link": ", ".join(links)}
    if digests is not None:
        headers["Repr-Digest"] = repr_digest(digests)
        # Who names duplicates says what they must be (RFC 6249, section 6).
        wanted = request.headers.getall("Want-Digest", ["sha-256"] if mirrors else [])
        if value := instance_digests(wanted, digests):
            headers["Digest"] = value
    return headers


async def _answer_metalink(request: web.Request, offered: Offered, name: str) -> web.StreamResponse:
    service, config, entry = request.app[PACBALLS], request.app[CONFIG], offered.entry
    digests = await want_digests(service, offered)
    if digests is None:
        opened = await service.offer.open(entry)
        return not_ready(request, opened.payload.total_bytes)
    own = config.pacballs.url or _own_url(request)
    data = encode_metalink(entry, name, digests, [f"{url}/pacballs/{name}" for url in (own, *config.pacballs.mirrors)])
    # What a client says of our address is for that client alone.
    cache_control = CHANGING if config.pacballs.url else f"private, {CHANGING}"
    public = PublicFile(f"pacballs/{name}.meta4", "", cache_control, METALINK_TYPE)
    return await answer_data(request, public, data)


async def _answer_casync_index(request: web.Request, offered: Offered, name: str) -> web.StreamResponse:
    service = request.app[PACBALLS]
    digests = await want_digests(service, offered)
    if digests is None:
        opened = await service.offer.open(offered.entry)
        return not_ready(request, opened.payload.total_bytes)
    return await answer_data(request, PublicFile(f"pacballs/{name}.caibx", "", LASTING, BINARY), encode_index(digests))


_BESIDE = {".meta4": _answer_metalink, ".caibx": _answer_casync_index}
"""What there is beside a pacball, by what stands behind its name."""


def _own_url(request: web.Request) -> str:
    """Where the client says that it reaches us; proxies in front are believed about TLS. Raises Refused for what is no host."""
    if not _HOST.match(request.host):
        raise Refused("names no host", place="the header Host", hint="send the one of the URL")
    trusted = request.app[CONFIG].access.trusted_proxies
    said = request.headers.get("X-Forwarded-Proto", "").strip().lower()
    scheme = said if said in ("http", "https") and is_in(request.remote or "", trusted) else request.scheme
    return f"{scheme}://{request.host}"


# For this module, pacmirror.pacballs.browsing and pacmirror.pacballs.chunks


async def find_pacball(request: web.Request, name: str) -> tuple[Offered, str]:
    """The release whose pacball has that name, and the name. Raises NotFound, or Unavailable for one that will be here again."""
    match = _NAME.match(name)
    if match is None:
        raise NotFound("is not the name of a pacball", place=printable(name[:300]), hint="/pacballs/ lists them")
    offered = await request.app[PACBALLS].offer.find(match[1])
    entry = offered.entry
    right = file_name(entry.release, entry.tree_digest)
    if entry.tree_digest != Digest.parse(match[2]):
        raise NotFound("is not here: the release has other files", place=name, hint=f"its pacball is {right}")
    return offered, right


async def want_digests(service: Pacballs, offered: Offered) -> PacballDigests | None:
    """The digests of a release's pacball, if they can be had soon. Raises Unavailable for one that has to be repaired first."""
    if not offered.damaged:
        return await service.digesting.want(offered.entry)
    digests = await service.digesting.find(offered.entry)
    if digests is None:
        raise offered.unavailable()
    return digests


def not_ready(request: web.Request, total_bytes: int) -> web.Response:
    speed = request.app[CONFIG].limits.pacballs.hashed_bytes_per_second
    seconds = min(max(total_bytes // speed, 5), 600)
    message = "the SHA-256 that its beginning names is still being computed"
    hint = f"ask again in {seconds} s; what is behind the first {STUB_BYTES} bytes can be had at once"
    headers = {"Retry-After": str(seconds)}
    return error_answer(503, "Unavailable", message, hint=hint, headers=headers)

"""Browsing: single files of a release, by their paths, and lists of its directories."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from aiohttp import web

from pacmirror.beginning import begin_answer
from pacmirror.files import BINARY, PublicFile
from pacmirror.pacballs.answering import LASTING
from pacmirror.pacballs.delivering import CONFIG, PACBALLS, answer_page, assembling, send_assembled
from pacmirror.pacballs.fields import disposition, instance_digests, repr_digest, wants_digests
from pacmirror.pacballs.pages import directory_page
from pacmirror.threads import start_thread
from pacstore.digest import Digest
from pacstore.errors import NotFound, printable
from pacstore.limits import LIMITS
from pacstore.tree import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.pacballs.offer import Offered
    from pacstore.assemble import Assembler
    from pacstore.digest import Bytes
    from pacstore.pacball.opened import OpenedRelease, Place

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_THREAD = "pacball-browse"


async def get_file(request: web.Request) -> web.StreamResponse:
    """A file of a release, whole or one range of it, or what lies in a directory. Symbolic links are followed inside."""
    _, _, release, *parts = request.rel_url.raw_path.split("/")
    names = [_decode(part, last=number == len(parts)) for number, part in enumerate(parts, start=1)]
    service = request.app[PACBALLS]
    offered = await service.offer.find(release)
    opened = await service.offer.open(offered.entry)
    place = await start_thread(lambda: opened.find(names), name=_THREAD)
    if place.kind is not EntryKind.DIRECTORY:
        if parts[-1:] == [""]:
            raise NotFound("is no directory", place=opened.payload.paths.shown(place.entry), hint="without the last /")
        return await _answer_file(request, offered, opened, place)
    if parts[-1:] != [""]:
        return _with_slash(request)
    most = request.app[CONFIG].limits.pacballs.listed

    def page() -> web.Response:
        places, left_out = opened.listing(place.entry, most)
        return directory_page(opened, b"/".join(names), places, left_out=left_out)

    return await answer_page(request, page)


async def get_release(request: web.Request) -> web.StreamResponse:
    """The list of a release is found at the URL with a slash."""
    await request.app[PACBALLS].offer.find(request.rel_url.raw_path.rpartition("/")[2])
    return _with_slash(request)


async def add_slash(request: web.Request) -> web.StreamResponse:
    """A list is found at the URL with a slash, from which its links count."""
    return _with_slash(request)


def _with_slash(request: web.Request) -> web.Response:
    last = request.rel_url.raw_path.rpartition("/")[2]
    return web.Response(status=308, headers={"Location": f"./{last}/", "Cache-Control": LASTING})


async def _answer_file(
    request: web.Request, offered: Offered, opened: OpenedRelease, place: Place
) -> web.StreamResponse:
    content = Digest(opened.manifest.tree.contents[place.file].tobytes())
    public = PublicFile(request.path, "", LASTING, BINARY)
    name = place.path.rpartition(b"/")[2].decode("utf-8", "backslashreplace")
    more = {"Content-Disposition": disposition(name)}
    # No file is newer than its release: a date in the future would be wrong in every answer.
    modified = max(min(opened.mtime(place), opened.entry.published), 0)
    answer, response = begin_answer(
        request, public, size=place.size, etag=f'"b3-{content.hex}"', modified=modified, more=more
    )

    def pieces(assembler: Assembler) -> Iterator[Bytes]:
        return assembler.read(place.file, answer.offset, answer.length)

    service = request.app[PACBALLS]
    begins, ends = answer.offset, answer.offset + answer.length
    if answer.has_body:
        await service.offer.check(offered, opened, lambda frames: frames.in_file(place.file, begins, ends))
    digests = await service.digesting.find(opened.entry)

    @contextmanager
    def reading() -> Iterator[Iterator[Bytes]]:
        with assembling(request, opened, digests) as assembler:
            yield assembler.read(place.file, 0, place.size)

    most = request.app[CONFIG].limits.pacballs.digested_file_bytes
    if answer.has_body and place.size <= most and wants_digests(request.headers):
        taken = await service.file_digesting.take(content, opened.payload.paths.shown(place.entry), reading)
        response.headers["Repr-Digest"] = repr_digest(taken)
        if value := instance_digests(request.headers.getall("Want-Digest", []), taken):
            response.headers["Digest"] = value
    return await send_assembled(request, answer, response, opened, digests, pieces)


def _decode(part: str, *, last: bool) -> bytes:
    """The name that a part of a path means. Raises NotFound for what cannot be one."""
    name = unquote_to_bytes(part)
    is_wrong = name in (b".", b"..") or (not name and not last) or b"/" in name or b"\0" in name
    if is_wrong or _PERCENT.search(part) or len(name) > LIMITS.name_bytes:
        raise NotFound("is no name of a file in a release", place=printable(part[:300]))
    return name

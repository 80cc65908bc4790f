"""Chunks: the pieces of a pacball as casync reads them, as chunks that the index beside it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacmirror.beginning import begin_answer
from pacmirror.files import BINARY, PublicFile
from pacmirror.pacballs.answering import LASTING, find_pacball, not_ready, want_digests
from pacmirror.pacballs.delivering import PACBALLS, send_assembled
from pacstore.errors import NotFound
from pacstore.pacball import casync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from pacstore.assemble import Assembler
    from pacstore.digest import Bytes

_STORE_SUFFIX = ".castr"


async def get_chunk(request: web.Request) -> web.StreamResponse:
    """A piece of a pacball, as a chunk of a store of casync."""
    _, _, store, path = request.rel_url.raw_path.split("/", 3)
    name = store.removesuffix(_STORE_SUFFIX)
    if name == store:
        raise NotFound("is not here", place=request.path, hint=f"the chunks of NAME.sh are in NAME.sh{_STORE_SUFFIX}")
    service = request.app[PACBALLS]
    offered, _ = await find_pacball(request, name)
    opened, digests = await service.offer.open(offered.entry), await want_digests(service, offered)
    if digests is None:
        return not_ready(request, opened.payload.total_bytes)
    first, end = casync.piece_at(digests, path)
    public = PublicFile(f"pacballs/{store}/{path}", "", LASTING, BINARY)
    etag = f'"castr-{path[5:69]}"'
    await service.offer.check(offered, opened, lambda frames: frames.in_pacball(first, end))
    answer, response = begin_answer(request, public, size=casync.chunk_bytes(end - first), etag=etag)

    def pieces(assembler: Assembler) -> Iterator[Bytes]:
        chunk = casync.encode_chunk(opened.pacball(assembler, digests).read(first, end), end - first)
        return casync.cut(chunk, answer.offset, answer.offset + answer.length)

    return await send_assembled(request, answer, response, opened, digests, pieces)

"""What a daemon without upstreams answers for what it had to withdraw: all that is good of it, and never that it is absent."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

from pacmirror.beginning import begin_answer
from pacmirror.sending import send_part
from pacstore.backends.directory import DirectoryStorage
from pacstore.digest import Digest
from pacstore.errors import Corrupt, Unavailable
from pacstore.partial import PartialPacks
from pacstore.repair.documents import is_put_aside

if TYPE_CHECKING:
    from aiohttp import web

    from pacmirror.config import Config
    from pacmirror.files import PublicFile
    from pacstore.partial_pack import PartialPack

_HINT = "ask another source, or again later: it is served as soon as it is repaired"


async def answer_withdrawn_pack(request: web.Request, public: PublicFile, config: Config) -> web.StreamResponse:
    """A pack that was withdrawn, or the range of it that was asked for, if no damaged frame is in that.

    Raises NotFound where there is no such pack, Unavailable for what is damaged.
    """
    partial = await asyncio.to_thread(_open, config, Digest.parse(public.etag_id))
    with closing(partial):
        size = partial.frames.pack_length
        answer, response = begin_answer(request, public, size=size, etag=f'"b3-{public.etag_id}"')
        if not answer.has_body:
            return response
        is_sent = request.method != "HEAD"
        wanted = partial.frames.covering(answer.offset, answer.length if is_sent else 0)
        missing = await asyncio.to_thread(partial.missing, wanted)
        if missing:
            message = f"{len(missing)} of the {len(wanted)} frames asked for are damaged here"
            raise Unavailable(message, place=public.path, hint=_HINT)
        with partial.open_file() as file:
            await send_part(request, response, file, offset=answer.offset, length=answer.length, limits=config.limits)
        return response


def check_withdrawn(public: PublicFile, config: Config) -> None:
    """Raise Unavailable if the document or link was put aside because it is damaged. Blocking."""
    if is_put_aside(config.store / "private", public.path):
        raise Unavailable("is damaged here", place=public.path, hint=_HINT)


def _open(config: Config, pack: Digest) -> PartialPack:
    private = config.store / "private"
    try:
        return PartialPacks(private, DirectoryStorage(config.public, private / "staging")).open(pack)
    except Corrupt as error:
        raise Unavailable("is damaged here as a whole", place=str(pack), hint=_HINT) from error

"""The end of a pack of unknown length: asked for by a suffix range, believed only where the answer can be nothing else."""

from __future__ import annotations

import pytest

from pacmirror.limits import LIST_LIMITS, MirrorLimits
from pacmirror.mirrors import MirrorList
from pacmirror.part import BlockingPart
from pacmirror.source import HttpSource
from pacstore.digest import Digest
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, Unavailable
from pacstore.source import Tail, Tailed
from tests.mirror.daemons import PACK, PACK_ID
from tests.mirror.mischief import serving
from tests.mirror.scripted import answer, playing

ID = Digest.parse(PACK_ID)
BODY = bytes(range(250))


def ranged(body: bytes, where: str, status: str = "206 Partial Content", *headers: str) -> bytes:
    return answer(status, body, f"Content-Range: bytes {where}", *headers)


def ask(*connections, attempts=1):
    """What a list of this one server says, and what was asked of it."""
    limits = MirrorLimits(attempts=attempts, patience_seconds=0)
    with (
        playing(*connections) as script,
        MirrorList([HttpSource(script.url, limits=LIST_LIMITS)], limits=limits) as source,
    ):
        try:
            return source.tail(ID, length=100), script.requests
        except PacballError as error:
            return error, script.requests


def test_the_last_bytes_and_the_length_come_in_one_request():
    tail, requests = ask([ranged(BODY[150:], "150-249/250")])
    assert tail == Tail(250, BODY[150:])
    assert len(requests) == 1
    assert "Range: bytes=-100\r\n" in requests[0]


def test_a_shorter_pack_comes_whole():
    assert ask([ranged(BODY[:50], "0-49/50")])[0] == Tail(50, BODY[:50])
    assert ask([answer("200 OK", BODY[:50])])[0] == Tail(50, BODY[:50])


def test_a_server_without_suffix_ranges_is_asked_again_for_the_range():
    tail, requests = ask([answer("200 OK", BODY)], [ranged(BODY[150:], "150-249/250")])
    assert tail == Tail(250, BODY[150:])
    assert "Range: bytes=150-249\r\n" in requests[1]


@pytest.mark.parametrize(
    ("answered", "kind"),
    [
        (ranged(BODY[150:], "150-249/*"), Corrupt),
        (ranged(BODY[150:], "150-249/251"), Corrupt),
        (ranged(BODY[149:249], "149-248/250"), Corrupt),
        (ranged(BODY[:100], "0-99/250"), Corrupt),
        (ranged(BODY[151:], "150-249/250"), Corrupt),
        (ranged(BODY[150:], "150-249/250", "206 Partial Content", "Content-Encoding: gzip"), Corrupt),
        (answer("206 Partial Content", BODY[150:]), Corrupt),
        (answer("206 Partial Content", BODY[150:], "Content-Range: pages 1-2/3"), Corrupt),
        (answer("200 OK", BODY, "Transfer-Encoding: identity", length=-1), Corrupt),
        (answer("204 No Content"), Corrupt),
        (answer("200 OK", b"<html>", "Content-Type: text/html"), Corrupt),
        (answer("416 Range Not Satisfiable", b""), Corrupt),
        (answer("404 Not Found", b""), NotFound),
        (answer("410 Gone", b""), NotFound),
        (answer("403 Forbidden", b""), Refused),
        (answer("302 Found", b"", "Location: /elsewhere"), Refused),
        (answer("500 Internal Server Error", b""), Unavailable),
        (b"", Unavailable),
        (b"nonsense\r\n\r\n", Unavailable),
        (ranged(BODY[150:], "150-249/250")[:-1], Unavailable),
        (ranged(BODY[150:], "150-249/250") + b"more", Unavailable),
    ],
)
def test_whatever_else_is_answered_is_not_believed(answered, kind):
    found, _ = ask([answered])
    assert isinstance(found, kind), found


def test_what_breaks_off_is_asked_for_again():
    whole = ranged(BODY[150:], "150-249/250")
    assert ask([whole[:-20]], [whole], attempts=2)[0] == Tail(250, BODY[150:])


def test_of_several_sources_whoever_was_wrong_is_asked_last():
    files = {f"packs/ab/{PACK_ID}": PACK}
    with (
        serving(files) as one,
        serving(files) as other,
        MirrorList([HttpSource(mirror.url, limits=LIST_LIMITS) for mirror in (one, other)]) as source,
    ):
        assert source.tail(ID, length=10) == Tail(len(PACK), PACK[-10:])
        assert source.blame(f"packs/ab/{PACK_ID}", Corrupt("is wrong")) == one.url
        assert source.tail(ID, length=10).pack_length == len(PACK)
        assert (len(one.requests), len(other.requests)) == (1, 1)


def test_a_daemon_and_a_directory_give_the_same(daemon):
    directory = DirectorySource(daemon.store)
    assert isinstance(directory, Tailed)
    expected = Tail(len(PACK), PACK[-1000:])
    with HttpSource(daemon.url) as http:
        for part in (http, BlockingPart(directory)):
            with MirrorList([part]) as source:
                assert source.tail(ID, length=1000) == expected
                assert source.tail(ID, length=len(PACK) + 5) == Tail(len(PACK), PACK)
                with pytest.raises(NotFound):
                    source.tail(Digest(bytes(32)), length=5)

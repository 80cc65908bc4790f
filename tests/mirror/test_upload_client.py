"""HttpOrigin against a real daemon in this process, and against what is none."""

from __future__ import annotations

import contextlib

import pytest

from pacmirror.limits import ClientLimits
from pacmirror.proxies import Proxies
from pacmirror.source import HttpSource
from pacmirror.surroundings import Surroundings
from pacmirror.uploads.client import HttpOrigin
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable
from pacstore.outgoing.authoring import LineCopy
from pacstore.outgoing.publishing import publish_there
from pacstore.release import Release
from pacstore.storage import ObjectKind
from tests.mirror.scripted import Pause, answer, playing
from tests.mirror.uploading import RELEASE, taking
from tests.store.outgoing import pack_of
from tests.store.releases import NEXT, NOW, OPTIONS, Notes, make_tree, noise, originals, write

NAME = Release.parse(RELEASE)
LIMITS = ClientLimits(attempts=2, backoff_seconds=0.01, backoff_max_seconds=0.01)


@pytest.fixture
def made(tmp_path):
    with taking(tmp_path) as made:
        yield made


@contextlib.contextmanager
def reaching(made, tmp_path, role="publish"):
    """An HttpOrigin with a token of its own."""
    file = write(tmp_path / "token", made.client(role).token.encode())
    file.chmod(0o600)
    surroundings = Surroundings(Proxies(), None, {made.daemon.url: file})
    with HttpOrigin(made.daemon.url, limits=LIMITS, surroundings=surroundings) as origin:
        yield origin


def publish(made, origin, tree, tmp_path, name=NAME):
    with HttpSource(made.daemon.url) as source:

        def copy():
            return LineCopy(source, name, origin.pending(name), pinned=made.origin.catalog.root_bytes, least=1)

        return publish_there(
            tree,
            name,
            origin,
            copy,
            keys=made.origin.keys,
            options=OPTIONS,
            progress=Notes(),
            now=lambda: NOW,
            work=tmp_path / "work",
        )


def test_releases_are_published_and_served_at_once(made, tmp_path):
    trees = [make_tree(tmp_path / f"tree{n}", version=str(n)) for n in (1, 2)]
    with reaching(made, tmp_path) as origin:
        first = publish(made, origin, trees[0], tmp_path)
        second = publish(made, origin, trees[1], tmp_path, Release.parse(NEXT))
        assert publish(made, origin, trees[1], tmp_path, Release.parse(NEXT)).existed
    assert second.bytes_sent < first.bytes_sent / 2
    assert (first.waiting, second.waiting) == (False, False)
    for tree, name in zip(trees, (RELEASE, NEXT), strict=True):
        assert made.origin.assembled(name) == originals(tree)
        assert made.daemon.request(f"/holdings/{name}")[0] == 200
    assert made.spooled() == []
    assert made.daemon.status()["publications"] == {"under_way": 0, "committed": 2}


def test_what_another_client_begins_or_ends_meanwhile_does_not_stop_an_upload(made, tmp_path):
    digest, data = pack_of(noise("shared", 2_000_000))
    file, sent = write(tmp_path / "pack", data), []
    with reaching(made, tmp_path) as origin:
        both = [origin.start_upload(NAME, ObjectKind.PACK, digest, file, sent.append) for _ in range(2)]
        for one in both:
            one.result(60)
        origin.start_upload(NAME, ObjectKind.PACK, digest, file, sent.append).result(60)
        assert origin.start_missing(NAME, [Digest.of(noise("shared", 2_000_000)).raw]).result(60) == set()
    assert made.spooled() == []


def test_a_file_that_is_damaged_here_is_told_of_and_changes_nothing_there(made, tmp_path):
    digest, data = pack_of(noise("damaged", 5000))
    file = write(tmp_path / "pack", data[:-20] + bytes(20))
    with reaching(made, tmp_path) as origin, pytest.raises(Corrupt, match="was dropped"):
        origin.start_upload(NAME, ObjectKind.PACK, digest, file, lambda _: None).result(60)
    assert made.spooled() == []


def test_refusals_have_the_words_of_the_origin(made, tmp_path):
    with reaching(made, tmp_path, "read") as origin, pytest.raises(Refused, match="does not allow to publish"):
        origin.begin(NAME)
    with reaching(made, tmp_path, "admin") as origin, pytest.raises(Refused, match="no such line"):
        origin.begin(Release.parse("Other-1.0-x"))


ANSWERS = {
    "a web page": (answer("200 OK", b"<html>", "Content-Type: text/html"), Corrupt),
    "nothing of ours": (answer("200 OK", b"{}"), Corrupt),
    "an endless number": (answer("200 OK", b"1" * 300_000), TooLarge),
    "a redirect": (answer("302 Found", b"", "Location: http://127.0.0.1:1/"), Refused),
    "no such page": (answer("404 Not Found"), Refused),
    "a failure": (answer("500 Failed"), Unavailable),
    "an end": (b"", Unavailable),
}


@pytest.mark.parametrize("said", ANSWERS)
def test_what_is_no_origin_is_told_of(said):
    data, kind = ANSWERS[said]
    around = Surroundings(Proxies())
    with (
        playing([data]) as server,
        HttpOrigin(server.url, limits=LIMITS, surroundings=around) as origin,
        pytest.raises(kind),
    ):
        origin.begin(NAME)


def test_the_words_of_the_origin_may_come_bit_by_bit():
    """As through a proxy, or in several records of TLS."""
    said = answer("404 Not Found", b'{"error": "NotFound", "message": "no releases are published here"}')
    with (
        playing([said[:-20], Pause(0.3), said[-20:]]) as server,
        HttpOrigin(server.url, limits=LIMITS, surroundings=Surroundings(Proxies())) as origin,
        pytest.raises(NotFound, match="no releases are published here"),
    ):
        origin.begin(NAME)


def test_an_origin_that_takes_nothing_is_not_sent_the_same_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("pacmirror.uploads.sender._MOST_STRAYS", 2)
    digest, data = pack_of(noise("nowhere", 5000))
    file = write(tmp_path / "pack", data)
    where = answer("204 No Content", b"", "Upload-Offset: 0", "Upload-Complete: ?0", "Connection: close")
    with (
        playing([where]) as server,
        HttpOrigin(server.url, limits=LIMITS, surroundings=Surroundings(Proxies())) as origin,
        pytest.raises(Unavailable, match="has 0 bytes after"),
    ):
        origin.start_upload(NAME, ObjectKind.PACK, digest, file, lambda _: None).result(60)

"""Uploads at an origin, request by request: in pieces, broken off, lying, too many, and by whom they may be made."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pacmirror.config import AccessConfig, Config, UploadConfig, UpstreamConfig
from pacmirror.config_rules import check_config
from pacmirror.limits import ServerLimits, UploadLimits
from pacmirror.token_file import revoke_token
from pacmirror.uploads.publications import AtWork, Publications
from pacmirror.uploads.refusals import Later, TooMany
from pacstore.digest import Digest
from pacstore.errors import Refused
from pacstore.limits import GIB, MIB
from pacstore.storage import ObjectKind
from tests.mirror.daemons import eventually, parse_answer
from tests.mirror.uploading import Client, sample, taking
from tests.store.outgoing import pack_of
from tests.store.releases import noise


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A daemon for tests that leave nothing behind that others see."""
    with taking(tmp_path_factory.mktemp("uploads")) as made:
        yield made


def test_an_upload_comes_in_pieces_and_counts_when_it_is_verified(shared):
    client = shared.client()
    digest, data = sample("pieces")
    chunk = Digest.of(noise("pieces", 5000)).raw
    assert client.missing(chunk).body == chunk
    assert client.look(digest).status == 404
    made = client.create(digest, len(data))
    assert (made.status, made.headers["location"], made.offset) == (201, client.upload(digest), 0)
    assert made.headers["upload-limit"].startswith("max-append-size=")
    assert client.append(digest, data[:1000], 0, last=False).offset == 1000
    looked = client.look(digest)
    assert (looked.status, looked.offset, looked.headers["upload-complete"]) == (204, 1000, "?0")
    assert looked.headers["upload-length"] == str(len(data))
    assert looked.headers["cache-control"] == "no-store"
    assert client.create(digest, len(data)).offset == 1000  # again: no change
    done = client.append(digest, data[1000:], 1000, last=True)
    assert (done.status, done.headers["upload-complete"]) == (200, "?1")
    assert client.missing(chunk).body == b""
    assert client.look(digest).headers["upload-complete"] == "?1"
    assert client.create(digest, len(data)).headers["upload-complete"] == "?1"
    assert shared.spooled() == []


def test_a_piece_at_another_place_is_refused_and_told_the_right_one(shared):
    client = shared.client()
    digest, data = sample("step")
    client.create(digest, len(data))
    client.append(digest, data[:100], 0, last=False)
    for offset in (0, 99, 101, 10**17):
        answer = client.append(digest, b"x", offset, last=False)
        assert (answer.status, answer.offset, answer.json["error"]) == (409, 100, "OutOfStep")
    early = client.append(digest, data[100:200], 100, last=True)
    assert (early.status, early.offset) == (409, 200)
    assert client.append(digest, data[200:], 200, last=True).status == 200


def test_what_came_before_the_line_broke_is_not_sent_again(shared):
    client = shared.client()
    digest, data = sample("broken", 2_000_000)
    client.create(digest, len(data))
    head = client.patch_head(digest, len(data))
    before = shared.status()["received_bytes"]
    with socket.create_connection(shared.daemon.address) as sock:
        sock.sendall(head + data[:1_900_000])
        eventually(lambda: any(path.stat().st_size >= MIB for path in shared.spooled()))
    eventually(lambda: not shared.status()["receiving"])
    offset = client.look(digest).offset
    assert MIB <= offset <= 1_900_000
    assert client.append(digest, data[offset:], offset, last=True).status == 200
    assert shared.status()["received_bytes"] - before == len(data)


def test_who_asks_how_far_it_is_ends_a_piece_that_hangs(shared):
    client = shared.client()
    digest, data = sample("hangs", 300_000)
    client.create(digest, len(data))
    head = client.patch_head(digest, len(data))
    with socket.create_connection(shared.daemon.address, timeout=30) as sock:
        sock.sendall(head + data[:100_000])
        eventually(lambda: shared.status()["receiving"])
        assert client.append(digest, b"x", 0, last=False).status == 409
        offset = client.look(digest).offset
        status, headers, _ = parse_answer(sock.recv(65_536))
        assert (status, headers["upload-offset"]) == (409, str(offset))
    assert client.append(digest, data[offset:], offset, last=True).status == 200


LIES = {
    "another pack": lambda: (sample("one")[0], sample("two")[1]),
    "noise": lambda: (sample("three")[0], noise("n", 5000)),
    "chunks that are others": lambda: pack_of(b"x" * 100, ids=Digest.of(b"not this").raw),
    "what does not decode": lambda: pack_of(b"x" * 100, compressed=noise("z", 90)),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_what_its_name_says_is_dropped_whole(shared, lie):
    client = shared.client()
    digest, data = LIES[lie]()
    before = shared.origin.public()
    answer = client.send(digest, data)
    assert (answer.status, answer.json["error"]) == (422, "Corrupt")
    assert client.look(digest).status == 404
    assert (shared.origin.public(), shared.spooled()) == (before, [])


def test_more_than_was_announced_is_refused_and_a_length_does_not_change(shared):
    client = shared.client()
    digest, data = sample("longer")
    client.create(digest, len(data) - 1)
    answer = client.append(digest, data, 0, last=True)
    assert answer.status == 413
    assert client.create(digest, len(data)).status == 400
    assert client.ask("DELETE", client.upload(digest)).status == 204
    assert client.ask("DELETE", client.upload(digest)).status == 404
    assert client.send(digest, data).status == 200


@pytest.mark.parametrize("length", ["0", "-1", "1e3", "", "99999999999999999999", str(10 * GIB)])
def test_a_length_that_makes_no_sense_is_refused(shared, length):
    client = shared.client()
    answer = client.ask("POST", client.upload(sample("l")[0]), Upload_Length=length, Upload_Complete="?0")
    assert answer.status in (400, 413)
    assert answer.json["message"]


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("packs", "..%2f..%2fsecret"),
        ("packs", "AB" * 32),
        ("packs", "ab"),
        ("placements", "ab" * 32),
        ("..", "ab" * 32),
    ],
)
def test_no_name_leads_anywhere_else(shared, kind, digest):
    client = shared.client()
    before = shared.origin.public()
    assert client.create(digest, 10, kind).status in (400, 404)
    assert (shared.origin.public(), shared.spooled()) == (before, [])


@pytest.mark.parametrize("release", ["Demo", "Demo-1.0", "Demo-..-x", "Demo-1.0-x%2f..", "Demo-" + "1" * 200 + "-x"])
def test_what_is_no_release_is_refused(shared, release):
    client = shared.client()
    client.release = release
    answer = client.publication()
    assert answer.status in (400, 403)


def test_questions_are_bounded_and_whole(shared):
    client = shared.client()
    assert client.missing(b"x" * 31).status == 422
    assert client.missing().body == b""
    assert client.missing(b"x" * 32 * 16_385).status == 413
    assert client.missing(*[bytes([n]) * 32 for n in range(200)]).status == 200
    assert client.publication("POST", "/placement", b"{").status == 422
    assert client.publication("POST", "/placement", b"[" * 3000).status == 422
    assert client.publication("POST", "/placement", b" " * 5000).status == 413
    nothing = {"digest": "ab" * 32, "length": 1, "sha256": "ab" * 32}
    answer = client.publication("POST", "/placement", json.dumps({"manifest": nothing, "attributes": nothing}).encode())
    assert (answer.status, answer.json["error"]) == (409, "StillMissing")
    assert client.publication("POST", "/change", b"{}").status == 422
    assert client.publication("GET", "/change").status == 204
    assert client.publication("DELETE").status == 204


def test_no_body_becomes_more_than_was_sent(shared):
    """60 kB of gzip are 60 MB: neither the room for bodies nor the length of a piece would be what is taken."""
    client = shared.client()
    digest, data = sample("gzip")
    client.create(digest, len(data))
    client.headers = {"Content-Encoding": "gzip"}
    for answer in (
        client.missing(gzip.compress(b"x" * 32)),
        client.publication("POST", "/placement", gzip.compress(b"{}")),
        client.publication("POST", "/change", gzip.compress(b" " * 1000)),
        client.append(digest, gzip.compress(data), 0, last=True),
    ):
        assert (answer.status, "must not be compressed" in answer.json["message"]) == (400, True)
    client.headers = {}
    assert client.append(digest, data, 0, last=True).status == 200


def test_every_refusal_of_a_token_says_why(shared):
    for client, status, words in (
        (Client(shared.daemon), 401, "a token is needed"),
        (Client(shared.daemon, "pacball_00000000_" + "0" * 64), 401, "not known here"),
        (shared.client(expires=1), 401, "not known here"),
        (shared.client("read"), 403, "does not allow to publish"),
        (shared.client("report"), 403, "does not allow to publish"),
        (shared.client(lines=("Other", "Dem")), 403, "not for the line Demo"),
    ):
        digest, data = sample("tokens")
        for answer in (
            client.publication(),
            client.missing(b"x" * 32),
            client.create(digest, len(data)),
            client.append(digest, data, 0, last=True),
            client.publication("POST", "/change", b"{}"),
            client.publication("GET", "/change"),
        ):
            assert answer.status == status
            assert words in answer.json["message"]
            assert answer.json["hint"]
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.look(digest).status == status
    assert shared.client("admin").publication().status == 200
    assert shared.client(lines=()).publication().status == 200
    assert shared.client("report").ask("GET", "/v1/status").status == 200


def test_a_revoked_token_ends_at_once(shared, monkeypatch):
    monkeypatch.setattr("pacmirror.access.TOKENS_SECONDS", 0.0)
    client = shared.client()
    assert client.publication().status == 200
    revoke_token(shared.file, f"t{shared.made}")
    assert client.publication().status == 401


def test_one_token_can_neither_see_nor_end_the_uploads_of_another(shared):
    one, other = shared.client(), shared.client()
    digest, data = sample("owners")
    one.create(digest, len(data))
    one.append(digest, data[:100], 0, last=False)
    assert other.look(digest).status == 404
    assert other.ask("DELETE", other.upload(digest)).status == 404
    assert other.send(digest, data).status == 200
    assert one.append(digest, data[100:], 100, last=True).status == 200
    assert shared.spooled() == []


def test_a_line_that_was_not_begun_is_refused(shared):
    client = shared.client(lines=())
    client.release = "Other-1.0-x"
    answer = client.publication()
    assert (answer.status, "pacball trust add-line" in answer.json["hint"]) == (400, True)


@pytest.mark.slow
def test_uploads_are_bounded_in_number_and_bytes_for_each_token_and_in_all(tmp_path):
    limits = UploadLimits(open_per_token=2, open=3)
    uploads = UploadConfig(reserve_bytes=1, max_bytes=25_000, max_bytes_per_token=15_000)
    with taking(tmp_path, uploads=uploads, limits=limits) as made:
        one, two, three = made.client(), made.client(), made.client()
        assert one.create(sample("1")[0], 10_000).status == 201
        assert one.create(sample("2")[0], 10_000).status == 429
        assert one.create(sample("2")[0], 100).status == 201
        answer = one.create(sample("3")[0], 100)
        assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        assert two.create(sample("4")[0], 15_000).status == 507
        assert two.create(sample("4")[0], 14_000).status == 201
        assert three.create(sample("5")[0], 1).status == 507
        assert made.status()["open"] == 3
        one.ask("DELETE", one.upload(sample("1")[0]))
        assert three.create(sample("5")[0], 1).status == 201


@pytest.mark.slow
def test_one_token_does_not_take_the_place_of_all_who_publish(tmp_path):
    with taking(tmp_path, limits=UploadLimits(publications=3, publications_per_token=2)) as made:
        one, two, three = made.client(), made.client(), made.client()
        answers = []
        for version in ("1", "2", "1", "3"):
            one.release = f"Demo-{version}.0-x"
            answers.append(one.publication())
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert "with this token" in answers[-1].json["message"]
        assert two.publication().status == 200
        assert three.publication().status == 503
        one.release = "Demo-1.0-x"
        assert one.publication("DELETE").status == 204
        assert three.publication().status == 200


@pytest.mark.slow
def test_a_disk_that_is_nearly_full_takes_no_uploads(tmp_path):
    with taking(tmp_path, uploads=UploadConfig(reserve_bytes=1 << 60)) as made:
        answer = made.client().create(*[sample("f")[0], 1000])
        assert (answer.status, "too full" in answer.json["message"]) == (507, True)
        assert made.spooled() == []


@pytest.mark.slow
def test_uploads_that_were_left_are_collected(tmp_path):
    with taking(tmp_path, uploads=UploadConfig(reserve_bytes=1, keep_seconds=0.4)) as made:
        client = made.client()
        client.create(sample("left")[0], 1000)
        eventually(lambda: made.status()["collected"] == 1)
        assert made.spooled() == []
        assert made.status()["open_bytes"] == 0


def test_a_daemon_that_starts_again_knows_what_was_acknowledged(tmp_path):
    with taking(tmp_path) as made:
        client, origin = made.client(), made.origin
        digest, data = sample("again")
        client.create(digest, len(data))
        client.append(digest, data[:1000], 0, last=False)
    with taking(tmp_path, origin=origin) as made:
        client.daemon = made.daemon
        assert made.status()["open"] == 1
        assert client.look(digest).offset == 1000
        assert client.append(digest, data[1000:], 1000, last=True).status == 200


@pytest.mark.slow
def test_a_whole_upload_that_was_not_verified_yet_is_verified_when_it_is_asked_for(tmp_path):
    """As a daemon leaves it that was killed in between."""
    with taking(tmp_path) as made:
        client = made.client()
        digest, data = sample("whole")
        client.create(digest, len(data))
        client.append(digest, data[:-1], 0, last=False)
        file = next(path for path in made.spooled() if path.suffix != ".state")
        file.write_bytes(data)
        file.with_name(file.name + ".state").write_bytes(b"%020d %020d\n" % (len(data), len(data)))
        assert client.look(digest).headers["upload-complete"] == "?0"
        assert client.append(digest, b"", len(data), last=True).status == 200
        assert list(made.origin.store.storage.digests(ObjectKind.PACK)) == [digest]


def test_where_uploads_are_not_enabled_there_are_none(store):
    from tests.mirror.daemons import running  # noqa: PLC0415

    with running(store) as daemon:
        client = Client(daemon)
        answer = client.publication()
        assert (answer.status, "[uploads] enabled" in answer.json["hint"]) == (404, True)
        assert client.create(sample("n")[0], 10).status == 404
        assert client.missing(b"x" * 32).status == 404


def test_half_of_a_configuration_is_refused(tmp_path):
    on = UploadConfig(enabled=True)
    with pytest.raises(Refused, match="no file of tokens"):
        check_config(Config(tmp_path, uploads=on))
    access = AccessConfig(token_file=tmp_path / "tokens")
    with pytest.raises(Refused, match="plain http"):
        check_config(Config(tmp_path, uploads=on, access=access, host="0.0.0.0"))
    with pytest.raises(Refused, match="a mirror takes no releases"):
        check_config(Config(tmp_path, uploads=on, access=access, upstream=UpstreamConfig(urls=("http://x",))))
    check_config(Config(tmp_path, uploads=on, access=access))


def test_what_a_client_was_told_to_be_here_stays_while_it_is_at_work(tmp_path):
    with taking(tmp_path) as made:
        client = made.client()
        assert made.origin.store.leases.live() == frozenset()
        client.missing(b"x" * 32)
        assert len(made.origin.store.leases.live()) == 1
        client.missing(b"y" * 32)
        assert len(made.origin.store.leases.live()) == 1
        client.publication("DELETE")
        assert made.origin.store.leases.live() == frozenset()
        client.publication()
        assert made.daemon.status()["publications"]["under_way"] == 1
    assert made.origin.store.leases.live() == frozenset()


@pytest.mark.slow
def test_a_client_that_sends_nothing_is_not_waited_for(tmp_path):
    with taking(tmp_path, limits=UploadLimits(stall_seconds=0.2)) as made:
        client = made.client()
        digest, data = sample("slow")
        client.create(digest, len(data))
        head = client.patch_head(digest, len(data))
        with socket.create_connection(made.daemon.address, timeout=50) as sock:
            sock.sendall(head + data[:10])
            assert parse_answer(sock.recv(65_536))[0] == 409
        assert client.look(digest).offset == 10


@pytest.mark.slow
def test_a_body_that_does_not_come_takes_the_room_of_others_only_for_a_moment(tmp_path):
    limits = UploadLimits(stall_seconds=0.2, bodies_bytes=1000)
    with taking(tmp_path, limits=limits) as made:
        client = made.client()
        lines = ["POST /v1/publications/Demo-1.0-x/change HTTP/1.1", "Host: x", f"Authorization: Bearer {client.token}"]
        head = "\r\n".join([*lines, f"Content-Length: {limits.change_bytes}", "", ""]).encode()
        with socket.create_connection(made.daemon.address, timeout=60) as sock:
            sock.sendall(head + b"{")
            assert parse_answer(sock.recv(65_536))[0] == 503
        assert client.missing(b"x" * 32).status == 200


def test_bodies_that_do_not_come_leave_room_for_other_tokens(tmp_path):
    limits = UploadLimits(change_bytes=1000, bodies_bytes=2000, bodies_bytes_per_token=1000)
    with taking(tmp_path, limits=limits) as made, contextlib.ExitStack() as stack:
        one, two = made.client(), made.client()
        lines = ["POST /v1/publications/Demo-1.0-x/change HTTP/1.1", "Host: x", f"Authorization: Bearer {one.token}"]
        silent = []
        for _ in range(4):
            silent.append(stack.enter_context(socket.create_connection(made.daemon.address, timeout=60)))
            silent[-1].sendall("\r\n".join([*lines, "Content-Length: 1000", "", "{"]).encode())
        assert two.publication().status == 200
        assert two.missing(b"x" * 32).status == 200
        for sock in silent:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)


def test_the_work_for_one_token_does_not_keep_others_waiting(tmp_path):
    limits = ServerLimits(uploads=UploadLimits(wait_seconds=0, jobs=3, jobs_per_token=2))
    publications = Publications(Config(tmp_path, limits=limits), None, None)

    async def ask():
        go = asyncio.Event()
        for key, raised in (
            (("one", 1), AtWork),
            (("one", 2), AtWork),
            (("one", 3), TooMany),
            (("one", 2), AtWork),
            (("two", 1), AtWork),
            (("three", 1), Later),
        ):
            with pytest.raises(Later) as found:
                await publications._job(key, go.wait)
            assert type(found.value) is raised, key
        go.set()
        await publications._tasks.ended()
        with contextlib.suppress(AtWork):
            await publications._job(("one", 3), go.wait)
        await publications._tasks.ended()

    asyncio.run(ask())


def test_requests_that_come_at_once_are_counted_like_others(tmp_path):
    with taking(tmp_path, limits=UploadLimits(publications_per_token=1)) as made:
        clients = [made.client()] * 8
        clients = [replace(one, release=f"Demo-{number}.0-x") for number, one in enumerate(clients)]
        with ThreadPoolExecutor(8) as pool:
            answers = sorted(pool.map(lambda one: one.publication().status, clients))
        assert answers == [200] + [429] * 7


def test_a_result_waits_for_who_asks_again_and_not_for_ever(tmp_path):
    publications = Publications(Config(tmp_path, limits=ServerLimits(uploads=UploadLimits(wait_seconds=0))), None, None)
    done = []

    async def ask():
        go = asyncio.Event()

        async def work():
            await go.wait()
            done.append("once")
            return "result"

        for _ in range(2):
            go.clear()
            with pytest.raises(AtWork):
                await publications._job(("one", "key"), work)
            go.set()
            await publications._tasks.ended()
            await publications._end_leases()
            assert await publications._job(("one", "key"), work) == "result"
        go.clear()
        with pytest.raises(AtWork):
            await publications._job(("one", "left"), work)
        go.set()
        await publications._tasks.ended()
        for _ in range(2):
            await publications._end_leases()
        assert publications._jobs == {}

    asyncio.run(ask())
    assert len(done) == 3

"""The steps of an examination, against servers and proxies that are wrong in one thing each."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import time
from contextlib import ExitStack

import pytest

from pacmirror.base_url import parse_base_url
from pacmirror.examine import Examination, examine_source, measure_speed
from pacmirror.proxies import Proxies
from pacmirror.surroundings import Surroundings
from pacstore.digest import Digest
from pacstore.finding import Finding, Level
from pacstore.source import PackRange
from tests.mirror.authority import Authority
from tests.mirror.daemons import PACK, PACK_ID
from tests.mirror.scripted import Pause, answer, part, playing
from tests.mirror.test_surroundings import silence
from tests.mirror.tunnels import proxying

MARKER = answer("200 OK", b'{"format":1,"kind":"pacball store"}\n', "Server: test/1")
WHOLE = b"0123456789abcdefghij"
ROOT = answer("200 OK", WHOLE)
PART = part(WHOLE[5:15], 5, total=len(WHOLE))
STEPS = ["proxy", "names", "connections", "store", "ranges", "freshness", "clock"]


def timestamp(*headers: str, ahead: float = 0.0) -> bytes:
    return answer("200 OK", b"{}", f"Date: {email.utils.formatdate(time.time() - ahead, usegmt=True)}", *headers)


def examine(url: str, surroundings: Surroundings | None = None, *, seconds: float = 30.0) -> list[Finding]:
    async def collect():
        until = time.monotonic() + seconds
        return [finding async for finding in examine_source(url, surroundings or Surroundings(Proxies()), until=until)]

    return asyncio.run(collect())


def by_script(*answers: bytes, url: str = "", **options) -> list[Finding]:
    with playing(*([one] for one in answers), **options) as script:
        return examine(script.url + url)


def one(findings: list[Finding], step: str) -> Finding:
    (found,) = [finding for finding in findings if finding.step == step]
    return found


def test_a_source_that_is_as_it_should_be(daemon):
    findings = examine(daemon.url)
    assert [(finding.step, finding.level) for finding in findings] == [(step, Level.OK) for step in STEPS]
    assert one(findings, "connections").values["family"] == "IPv4"
    assert one(findings, "ranges").values["status"] == 206
    assert not any(finding.hint for finding in findings)


def test_the_speed_of_a_pack(daemon):
    base_url = parse_base_url(daemon.url)
    subject = Examination(base_url, Surroundings(Proxies()).access(base_url), time.monotonic() + 30)
    pack = PackRange(Digest.parse(PACK_ID), 0, len(PACK))
    (found,) = asyncio.run(measure_speed(subject, pack))
    assert found.level is Level.OK
    assert found.values["bytes_per_second"] > 0
    assert found.values["bytes_per_second_4"] > 0
    (found,) = asyncio.run(measure_speed(subject, PackRange(pack.pack, 0, 100)))
    assert found.level is Level.SKIP
    (found,) = asyncio.run(measure_speed(subject, PackRange(Digest(bytes(32)), 0, len(PACK))))
    assert (found.level, "is not there" in found.message) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not an http or https URL"),
        ("http://user:word@x", "may not hold a user or password"),
        ("http://no-such-host.invalid", "has a name"),
    ],
)
def test_where_nothing_can_be_asked(url, message):
    findings = examine(url)
    assert findings[-1].level is Level.FAIL
    assert message in findings[-1].message
    assert findings[-1].step in ("settings", "names")


def test_a_port_on_which_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = examine(f"http://127.0.0.1:{port}")[-1]
    assert (found.step, found.level) == ("connections", Level.FAIL)
    assert "connection refused" in found.message
    assert "nothing listens there" in found.hint


def test_a_family_that_does_not_answer_is_named(daemon, monkeypatch):
    real = socket.getaddrinfo

    def both(host, port, **options):
        return real("::1", port, **options) + real("127.0.0.1", port, **options)

    port = daemon.address[1]
    monkeypatch.setattr(socket, "getaddrinfo", both)
    findings = examine(f"http://store.example.org:{port}")
    dead, alive = (finding for finding in findings if finding.step == "connections")
    assert (dead.level, dead.values["family"]) == (Level.WARN, "IPv6")
    assert (alive.level, alive.values["family"]) == (Level.OK, "IPv4")
    assert [finding.step for finding in findings][-1] == "clock"


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (answer("404 Not Found"), "is not a pacball store"),
        (answer("200 OK", b"{}"), "store.json"),
        (answer("200 OK", b"<html>", "Content-Type: text/html"), "answered with a web page"),
        (answer("302 Found", b"", "Location: http://login.example.org/"), "redirects to 'http://login.example.org/'"),
        (answer("511 Network Authentication Required"), "wants a login first"),
        (answer("401 Unauthorized"), "denies access"),
        (answer("503 Service Unavailable"), "answered with status 503"),
        (answer("200 OK", b"x" * 10_000), "sends more than"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "did not answer in HTTP"),
        (b"", "connection was lost"),
    ],
)
def test_where_there_is_no_store(marker, message):
    found = by_script(marker)[-1]
    assert (found.step, found.level) == ("store", Level.FAIL)
    assert message in found.message
    assert found.hint or message in (
        "answered with status 503",
        "connection was lost",
        "sends more than",
        "did not answer in HTTP",
    )


def test_a_newer_store():
    found = by_script(answer("200 OK", b'{"format":2,"kind":"pacball store"}\n'))[-1]
    assert (found.step, found.level) == ("store", Level.FAIL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ROOT, "the answer is 200, not 206"),
        (part(WHOLE[6:16], 6, total=len(WHOLE)), "Content-Range is 'bytes 6-15/20', not 'bytes 5-14/20'"),
        (part(WHOLE[6:16], 5, total=len(WHOLE)), "the 10 bytes are not those of the whole file"),
        (part(WHOLE[5:15], 5, total=99), "Content-Range is 'bytes 5-14/99'"),
        (answer("206 Partial Content", WHOLE[5:15]), "Content-Range is ''"),
        (part(WHOLE[5:15], 5, "Content-Encoding: gzip", total=len(WHOLE)), "Content-Encoding gzip"),
        (answer("416 Range Not Satisfiable"), "shorter than the range"),
    ],
)
def test_parts_that_come_wrong(given, message):
    findings = by_script(MARKER, ROOT, given, timestamp())
    found = one(findings, "ranges")
    assert found.level is Level.FAIL
    assert message in found.message
    assert one(findings, "freshness").level is Level.OK  # the rest is examined all the same


def test_a_server_that_denies_its_own_ranges():
    findings = by_script(MARKER, ROOT, part(WHOLE[5:15], 5, "Accept-Ranges: none", total=len(WHOLE)), timestamp())
    assert (one(findings, "ranges").level, "says that it has none" in one(findings, "ranges").message) == (
        Level.WARN,
        True,
    )


@pytest.mark.parametrize(
    ("headers", "level", "message"),
    [
        (["Age: 4000", "Via: 1.1 squid"], Level.WARN, "a cache gave a copy 4,000 s old"),
        (["Age: 5", "Cache-Control: max-age=61"], Level.OK, "what changes is given as it is now"),
        (["Cache-Control: public, max-age=86400"], Level.WARN, "may keep the catalog's timestamp for 86,400 s"),
        (["Age: nonsense"], Level.OK, "what changes"),
    ],
)
def test_caches_that_keep_what_changes(headers, level, message):
    found = one(by_script(MARKER, ROOT, PART, timestamp(*headers)), "freshness")
    assert found.level is level
    assert message in found.message
    assert ("squid" in found.message) == ("Via: 1.1 squid" in headers)


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (0, Level.OK, "agree"),
        (1000, Level.WARN, "ahead of"),
        (-1000, Level.WARN, "behind"),
        (1e6, Level.FAIL, "ahead of"),
    ],
)
def test_clocks_that_differ(ahead, level, words):
    found = one(by_script(MARKER, ROOT, PART, timestamp(ahead=ahead)), "clock")
    assert (found.level, words in found.message) == (level, True)
    assert abs(found.values["seconds_ahead"] - ahead) < 60


def test_the_clock_of_a_copy_says_nothing():
    findings = by_script(MARKER, ROOT, PART, timestamp("Age: 30", ahead=30))
    assert "clock" not in [finding.step for finding in findings]


def test_what_never_answers_ends_in_time():
    began = time.monotonic()
    with playing([Pause(60)]) as script:
        findings = examine(script.url, seconds=1.0)
    assert time.monotonic() - began < 30
    assert (findings[-1].step, findings[-1].level) == ("store", Level.FAIL)


def test_without_time_nothing_is_tried(daemon):
    findings = examine(daemon.url, seconds=-1)
    assert {finding.level for finding in findings if finding.step != "proxy"} == {Level.SKIP}


def test_addresses_that_are_silent_are_told_apart_from_closed_ones(monkeypatch, daemon):
    monkeypatch.setattr("pacmirror.examine.reach._CONNECT_SECONDS", 0.5)
    with ExitStack() as stack, socket.socket(socket.AF_INET6) as free:
        free.bind(("::1", 0))
        port = free.getsockname()[1]
        free.close()
        silence(stack, port)
        found = examine(f"http://[::1]:{port}")[-1]
    assert (found.step, found.level) == ("connections", Level.FAIL)
    assert "does not answer within" in found.message


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def trusting(authority: Authority, **options) -> Surroundings:
    return Surroundings(Proxies(**options), ca_file=authority.ca_file)


def test_tls_is_described(authority):
    with playing([MARKER], tls=authority.serve("127.0.0.1")) as script:
        found = one(examine(script.url, trusting(authority)), "tls")
        assert found.level is Level.OK
        assert (found.values["version"], found.values["issuer"]) == ("TLSv1.3", "The site's own authority")
        assert 28 < found.values["days"] < 31
        findings = examine(script.url)
    refused, shown = (finding for finding in findings if finding.step == "tls")
    assert (refused.level, "not trusted here" in refused.message) == (Level.FAIL, True)
    assert "ca_file" in refused.hint
    assert shown.values["names"] == ["127.0.0.1"]
    assert "The site's own authority" in shown.message
    assert findings[-1] is shown


def test_a_certificate_that_expires_soon(authority):
    with playing([MARKER], tls=authority.serve("127.0.0.1", ends=3)) as script:
        found = one(examine(script.url, trusting(authority)), "tls")
    assert (found.level, "expires soon" in found.hint) == (Level.WARN, True)


def test_tls_through_a_proxy(authority):
    host = "store.example.org"
    script_of = [MARKER], [ROOT], [PART], [timestamp()]
    with playing([b""], *script_of, tls=authority.serve(host)) as script, proxying(script.port) as proxy:
        named = proxy.url.replace("//", "//me:hidden@")
        findings = examine(f"https://{host}", trusting(authority, https=named))
    assert [finding.step for finding in findings[:4]] == ["proxy", "names", "connections", "tls"]
    assert all(finding.level is Level.OK for finding in findings[:4])
    assert proxy.url in findings[0].message
    assert "hidden" not in str(findings)
    with proxying(1, authorization="x") as proxy:
        findings = examine(f"https://{host}", trusting(authority, https=proxy.url))
    assert findings[-1].level is Level.FAIL
    assert "407" in findings[-1].message
    assert "USER:PASSWORD" in findings[-1].hint


def test_a_proxy_that_is_not_there_is_blamed(authority):
    findings = examine("https://store.example.org", trusting(authority, https="http://no-such-proxy.invalid:3128"))
    assert "the proxy no-such-proxy.invalid has a name" in findings[-1].message


def test_a_token_is_told_of_and_never_shown(authority, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(0o600)
    with playing([MARKER], tls=authority.serve("127.0.0.1")) as script:
        surroundings = Surroundings(Proxies(), ca_file=authority.ca_file, tokens={script.url: token})
        findings = examine(script.url, surroundings)
        assert str(token) in one(findings, "token").message
        token.chmod(0o644)
        refused = examine(script.url, surroundings)[-1]
    assert (refused.step, refused.level) == ("settings", Level.FAIL)
    assert "chmod 600" in refused.hint
    assert "s3cret" not in str(findings) + str(refused)

"""What lies between a site and its sources: TLS, proxies that tunnel, tokens, IPv6; and what is said when it fails."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from yarl import URL

from pacmirror.limits import ClientLimits
from pacmirror.proxies import Proxies
from pacmirror.source import HttpSource
from pacmirror.surroundings import Surroundings
from pacstore.errors import NotFound, PacballError, Refused, Unavailable
from tests.mirror.authority import Authority, self_signed
from tests.mirror.scripted import answer, playing
from tests.mirror.tunnels import proxying

HELLO = [answer("200 OK", b"{}", "Connection: close")]
QUICK = ClientLimits(attempts=3, backoff_seconds=0.01, connect_seconds=5)
HOST = "store.example.org"


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority):
    return Surroundings(Proxies(), ca_file=authority.ca_file)


def read(url: str, surroundings: Surroundings | None = None) -> bytes:
    with HttpSource(url, limits=QUICK, surroundings=surroundings or Surroundings(Proxies())) as source:
        return source.read("store.json", limit=100)


def refusal(kind: type[PacballError], url: str, surroundings: Surroundings | None = None) -> str:
    with pytest.raises(kind) as caught:
        read(url, surroundings)
    return str(caught.value)


def test_an_authority_of_the_sites_own(authority, trusting, monkeypatch):
    with playing(HELLO, tls=authority.serve("127.0.0.1")) as script:
        assert read(script.url, trusting) == b"{}"
        said = refusal(Refused, script.url)
        assert "shows a certificate of an authority that is not trusted here" in said
        assert "ca_file in config.toml" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        assert read(script.url) == b"{}"
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    ("hosts", "validity", "message"),
    [
        (("another.example.org",), {}, "shows a certificate of another address"),
        (("127.0.0.1",), {"begins": -30, "ends": -1}, "shows a certificate that has expired"),
        (("127.0.0.1",), {"begins": 3, "ends": 9}, "shows a certificate that is not valid yet"),
    ],
)
def test_certificates_that_are_not_accepted(authority, trusting, hosts, validity, message):
    with playing(HELLO, tls=authority.serve(*hosts, **validity)) as script:
        assert message in refusal(Refused, script.url, trusting)
    assert script.requests == []


def test_a_certificate_of_another_name(authority, trusting, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, port, **__: [found("127.0.0.1", port)])
    with playing(HELLO, tls=authority.serve("another.example.org")) as script:
        said = refusal(Refused, f"https://{HOST}:{script.port}", trusting)
    assert "shows a certificate of another name" in said
    assert HOST in said


def test_a_certificate_that_only_it_itself_has_signed(trusting, tmp_path):
    with playing(HELLO, tls=self_signed(tmp_path / "self", "127.0.0.1")) as script:
        assert "that only it itself has signed" in refusal(Refused, script.url, trusting)


@contextlib.contextmanager
def answering(data: bytes, tls: ssl.SSLContext | None = None):
    """The port of a server that answers whatever it is sent; it begins TLS as OpenSSL does, with alerts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with contextlib.suppress(OSError), peer:
                        stream = tls.wrap_socket(peer, server_side=True) if tls else peer
                        stream.recv(65536)
                        stream.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_that_is_too_old(authority, trusting):
    old = authority.serve("127.0.0.1")
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with answering(b"", old) as port:
        assert "offers only TLS that is too old" in refusal(Refused, f"https://127.0.0.1:{port}", trusting)


def test_the_wrong_protocol_for_the_port(authority, trusting):
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        said = refusal(Refused, f"https://127.0.0.1:{port}", trusting)
    assert "does not speak TLS on this port" in said
    assert "write http://" in said
    with answering(b"", authority.serve("127.0.0.1")) as port:
        said = refusal(Unavailable, f"http://127.0.0.1:{port}", trusting)
    assert "3 times" in said


def test_what_closes_every_connection(trusting):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        said = refusal(Unavailable, f"https://127.0.0.1:{listener.getsockname()[1]}", trusting)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert "closes every connection at once" in said


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, NotFound, "does not exist"),
        (b"no certificate\n", Refused, "holds no certificates that can be used"),
        (b"", Refused, "holds no certificates that can be used"),
    ],
)
def test_authorities_that_cannot_be_read(tmp_path, content, kind, message):
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    surroundings = Surroundings(Proxies(), ca_file=ca_file)
    said = refusal(kind, f"https://{HOST}", surroundings)
    assert message in said
    assert str(ca_file) in said


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_variables_that_name_nothing_are_not_passed_over(monkeypatch, variable):
    monkeypatch.setenv(variable, "/nowhere/at/all")
    assert f"{variable} names nothing that can be read" in refusal(Refused, f"https://{HOST}")


def through(proxy: str, authority: Authority, **tokens: Path) -> Surroundings:
    return Surroundings(
        Proxies(https=proxy), ca_file=authority.ca_file, tokens={f"https://{HOST}": path for path in tokens.values()}
    )


def test_a_proxy_that_tunnels_sees_its_own_password_and_nothing_else(authority, token):
    with (
        playing(HELLO, tls=authority.serve(HOST)) as script,
        proxying(script.port, authorization="Basic " + base64.b64encode(b"me:p@ss word").decode()) as proxy,
    ):
        named = proxy.url.replace("//", "//me:p%40ss%20word@")
        assert read(f"https://{HOST}/base", through(named, authority, token=token)) == b"{}"
        with HttpSource(f"https://{HOST}", limits=QUICK, surroundings=through(named, authority)) as source:
            assert [source.read("store.json", limit=9) for _ in range(3)] == [b"{}"] * 3
    assert all(request.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n") for request in proxy.requests)
    assert "Authorization: Bearer" not in "".join(proxy.requests).replace("Proxy-Authorization", "")
    assert "Authorization: Bearer s3cret\r\n" in script.requests[0]
    assert "Proxy-Authorization" not in "".join(script.requests)
    assert script.requests[0].startswith("GET /base/store.json HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("options", "kind", "attempts", "message"),
    [
        ({"authorization": "Basic x"}, Refused, 1, "wants another user and password (status 407)"),
        ({"status": "403 Forbidden"}, Refused, 1, "does not let us through to it (status 403)"),
        ({"status": "502 Bad Gateway"}, Unavailable, 3, "could not connect to it (status 502)"),
        ({"status": "nonsense"}, Unavailable, 3, "did not answer in HTTP"),
    ],
)
def test_proxies_that_do_not_let_us_through(authority, options, kind, attempts, message):
    with proxying(1, **options) as proxy:
        named = proxy.url.replace("//", "//me:hidden@")
        said = refusal(kind, f"https://{HOST}", through(named, authority))
        assert message in said
        assert (proxy.url in said) == (options != {"status": "nonsense"})
        assert "hidden" not in said
    assert len(proxy.requests) == attempts


def test_proxies_that_are_not_there(authority):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = refusal(Unavailable, f"https://{HOST}", through(f"http://me:hidden@127.0.0.1:{port}", authority))
    assert f"the proxy http://127.0.0.1:{port} cannot be connected to: connection refused" in said
    assert "check https_proxy and http_proxy" in said
    assert "hidden" not in said
    said = refusal(Unavailable, f"https://{HOST}", through("http://no-such-proxy.invalid:3128", authority))
    assert "the proxy http://no-such-proxy.invalid:3128 has a name" in said


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    return path


def tokens_for(url: str, token: Path, ca_file: Path | None = None) -> Surroundings:
    return Surroundings(Proxies(), ca_file=ca_file, tokens={url: token})


def test_a_token_goes_to_its_own_base_url_alone(authority, token):
    with ExitStack() as stack:
        own, other = (stack.enter_context(playing(HELLO, tls=authority.serve("127.0.0.1"))) for _ in range(2))
        surroundings = tokens_for(f"{own.url}/base", token, authority.ca_file)
        for url in (f"{own.url}/base", f"{own.url}/base/deeper", f"{own.url}/bases", own.url, f"{other.url}/base"):
            assert read(url, surroundings) == b"{}"
    assert ["Authorization: Bearer s3cret\r\n" in request for request in own.requests] == [True, True, False, False]
    assert "Authorization" not in other.requests[0]


def test_the_longest_base_url_decides(authority, token, tmp_path):
    inner = tmp_path / "inner"
    inner.write_text("inner")
    inner.chmod(0o600)
    with playing(HELLO, tls=authority.serve("127.0.0.1")) as script:
        tokens = {f"{script.url}/a": token, f"{script.url}/a/b/": inner}
        read(f"{script.url}/a/b/c", Surroundings(Proxies(), ca_file=authority.ca_file, tokens=tokens))
    assert "Authorization: Bearer inner\r\n" in script.requests[0]


def test_a_token_is_never_sent_in_the_clear(token):
    url = f"http://{HOST}:1"
    assert "a token would be sent over plain http" in refusal(Refused, url, tokens_for(url, token))
    with playing(HELLO) as script:  # except to this machine itself, and then without a proxy
        surroundings = Surroundings(Proxies(http="http://proxy.invalid:1"), tokens={script.url: token})
        assert read(script.url, surroundings) == b"{}"
    assert "Authorization: Bearer s3cret\r\n" in script.requests[0]


def test_a_token_does_not_follow_where_a_source_leads(authority, token):
    with playing(HELLO, tls=authority.serve("127.0.0.1")) as target:
        moved = [answer("302 Found", b"", f"Location: {target.url}/store.json")]
        with playing(moved, tls=authority.serve("127.0.0.1")) as script:
            said = refusal(Refused, script.url, tokens_for(script.url, token, authority.ca_file))
    assert "which is not followed" in said
    assert target.requests == []


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("s3cret", 0o640, "other users may read or change this token"),
        ("s3cret", 0o602, "other users may read or change this token"),
        ("", 0o600, "holds no token"),
        ("two words s3cret", 0o600, "holds no token"),
        ("s3cret\r\nX-Evil: 1", 0o600, "holds no token"),
        ("s3crét", 0o600, "holds no token"),
        ("x" * 9000, 0o600, "holds no token"),
    ],
)
def test_tokens_that_are_not_kept_well_or_are_none(tmp_path, content, mode, message):
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    said = refusal(Refused, f"https://{HOST}", tokens_for(f"https://{HOST}", path))
    assert message in said
    assert str(path) in said
    assert "s3cr" not in said


def test_tokens_of_nothing(tmp_path):
    assert "does not exist" in refusal(NotFound, f"https://{HOST}", tokens_for(f"https://{HOST}", tmp_path / "none"))
    assert "is not an http or https URL" in refusal(Refused, f"https://{HOST}", tokens_for(HOST, tmp_path / "none"))


def test_what_is_secret_is_not_in_what_python_shows(authority, token):
    access = tokens_for(f"https://{HOST}", token, authority.ca_file).access(f"https://{HOST}")
    assert access.headers == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(access)


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("example.org", "https://example.org", True),
        ("example.org", "https://a.b.example.org", True),
        (".example.org", "https://a.example.org", True),
        (".example.org", "https://example.org", True),
        ("*.example.org", "https://a.example.org", True),
        ("EXAMPLE.org.", "https://a.Example.ORG", True),
        ("example.org", "https://badexample.org", False),
        ("example.org", "https://example.org.evil.net", False),
        ("a, b example.org", "https://example.org", True),
        ("example.org:8443", "https://example.org:8443", True),
        ("example.org:8443", "https://example.org", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3:444", True),
        ("2001:db8::/32", "https://[2001:db8::7]", True),
        ("[2001:db8::7]", "https://[2001:db8::7]", True),
        ("[2001:db8::7]:443", "https://[2001:db8::7]", True),
        ("2001:db8::8", "https://[2001:db8::7]", False),
        ("*", "https://anything.example", True),
        ("", "https://example.org", False),
        (",, ,", "https://example.org", False),
        (".", "https://example.org", False),
    ],
)
def test_no_proxy_as_curl_understands_it(no_proxy, url, direct):
    route = Proxies("http://p:1", "http://p:1", no_proxy).route(URL(url))
    assert (route.proxy is None) == direct
    assert route.why


def test_ipv6(authority, trusting):
    with playing(HELLO, host="::1", tls=authority.serve("::1")) as script:
        assert script.url.startswith("https://[::1]:")
        assert read(script.url, trusting) == b"{}"
    assert script.requests[0].lower().count(f"host: [::1]:{script.port}") == 1


def found(address: str, port: int) -> tuple:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port)


@pytest.mark.parametrize("dead", ["silent", "refused"])
def test_a_host_of_which_one_family_is_dead(monkeypatch, dead):
    with playing(HELLO) as script, ExitStack() as stack:
        if dead == "silent":
            silence(stack, script.port)
        monkeypatch.setattr(socket, "getaddrinfo", lambda _, port, **__: [found("::1", port), found("127.0.0.1", port)])
        assert read(f"http://{HOST}:{script.port}") == b"{}"


def silence(stack: ExitStack, port: int) -> None:
    """Let `port` of ::1 answer nothing: its queue is full, so that packets that would open a connection are dropped."""
    full = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    full.bind(("::1", port))
    full.listen(0)
    for _ in range(10):
        waiting = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        waiting.settimeout(0.2)
        try:
            waiting.connect(("::1", port))
        except TimeoutError:
            return
    raise AssertionError("it still answers")


def test_names_that_nobody_knows():
    said = refusal(Unavailable, "http://no-such-host.invalid")
    assert "has a name" in said
    assert "name servers" in said


def test_a_network_that_wants_a_login_first():
    with playing([answer("511 Network Authentication Required")]) as script:
        said = refusal(Refused, script.url)
    assert "this network wants a login first" in said
    assert len(script.requests) == 1
    with playing([answer("200 OK", b"<html>", "Content-Type: text/html")]) as script:
        assert "log in to this network" in refusal(PacballError, script.url)

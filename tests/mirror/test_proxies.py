"""Proxies named by the environment."""

from __future__ import annotations

import pytest

from pacmirror.source import HttpSource
from pacstore.errors import Refused
from tests.mirror.scripted import answer, playing


def test_requests_go_through_the_proxy(monkeypatch):
    with playing([answer("200 OK", b"{}")]) as script:
        monkeypatch.setenv("http_proxy", script.url.replace("//", "//user:word@"))
        with HttpSource("http://store.example/base") as source:
            assert source.read("store.json", limit=10) == b"{}"
    assert script.requests[0].startswith("GET http://store.example/base/store.json HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in script.requests[0]


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*"])
def test_exempt_hosts_are_asked_directly(monkeypatch, exempt):
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("no_proxy", exempt)
    with playing([answer("200 OK", b"{}")]) as script, HttpSource(script.url) as source:
        assert source.read("store.json", limit=10) == b"{}"


@pytest.mark.parametrize("proxy", ["socks5://x:1", "http://", "http://x:99999"])
def test_unusable_proxies_are_refused(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(Refused, match="http_proxy"):
        HttpSource("http://store.example")

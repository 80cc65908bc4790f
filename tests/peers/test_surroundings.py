"""Sites behind real proxies, with an authority of their own, and with names of both families."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager

import pytest

from tests.e2e import trees
from tests.e2e.site import free_port, running
from tests.mirror.authority import Authority
from tests.peers.conftest import NEW, OLD
from tests.peers.programs import call, program
from tests.peers.web import nginx
from tests.store.releases import shared_directory

pytestmark = [pytest.mark.peers, pytest.mark.root]
HOST = "store.site.example"
TLS = """
server {
    listen 8080;
    listen TLS ssl;
    ssl_certificate CERTIFICATE;
    ssl_certificate_key CERTIFICATE;
    root /srv/store/public;
}
"""
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 50
BasicAuth me {password}
ConnectPort {to}
LogFile "{log}"
LogLevel Connect
"""
SQUID = """
http_port 127.0.0.1:{port}
pid_filename none
http_access allow all
cache_mem 64 MB
maximum_object_size_in_memory 16 MB
access_log stdio:{home}/access.log
cache_log {home}/cache.log
coredump_dir {home}
shutdown_lifetime 0 seconds
pinger_enable off
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def shared_path():
    """A directory that a process of another user can reach."""
    with shared_directory() as path:
        yield path


@contextmanager
def serving_tls(authority, origin, home, host):
    """The port of nginx, which serves the origin's store over TLS under the name `host`."""
    authority.serve(host)
    (certificate,) = authority.directory.glob(f"{host.replace(':', '_')}-130.pem")
    port = free_port()
    changes = {
        "/srv/store/public": str(origin.store / "public"),
        "CERTIFICATE": str(certificate),
        "listen TLS ssl;": f"listen 127.0.0.1:{port} ssl;",
    }
    with nginx(home, TLS, changes):
        yield port


def knowing(home, *names: str) -> list[str]:
    """The beginning of a command that lets a program, and nobody else, know these lines of /etc/hosts."""
    hosts = home / "hosts"
    hosts.write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
    return [program("unshare"), "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]


@contextmanager
def tinyproxy(home, to: int, password: str):
    """The URL of a proxy that wants a password, and allows tunnels to one port."""
    home.mkdir()
    port, config = free_port(), home / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(port=port, to=to, password=password, log=home / "log"))
    argv = [*knowing(home, f"127.0.0.1 {HOST}"), program("tinyproxy"), "-d", "-c", config]
    with running(argv, port=port, log=home / "out"):
        yield f"http://me:{password}@127.0.0.1:{port}"


def test_tls_of_the_sites_own_authority_through_a_proxy_with_a_password(origin, site, root, tmp_path, authority):
    with (
        serving_tls(authority, origin, tmp_path / "nginx", HOST) as port,
        tinyproxy(tmp_path / "proxy", port, "s3cret") as proxy,
    ):
        config = site.home / "etc/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            f'sources = ["https://{HOST}:{port}"]\nroot = "{root}"\nroot_keys = "{origin.root_keys}"\n'
            f'ca_file = "{authority.ca_file}"\n[proxy]\nhttps = "{proxy}"\n'
        )
        site.ok("install", OLD)
        found = site.ok("doctor", "--release", NEW)
        site.environment["https_proxy"] = proxy.replace("s3cret", "wrong")
        refused = site.fails(7, "install", NEW)
        site.environment["https_proxy"] = ""
        unknown = site.fails(6, "install", NEW)
    trees.assert_same(root / "releases" / OLD, origin.old)
    told = (tmp_path / "proxy/log").read_text()
    assert f"CONNECT {HOST}:{port}" in told
    assert "GET" not in told
    by_step = {one["step"]: one for one in found["findings"]}
    assert by_step["tls"]["values"]["issuer"] == "The site's own authority"
    assert "speed" in by_step
    assert found["healthy"] is True
    assert "wants another user and password" in refused.err
    assert "has a name" in unknown.err
    assert "s3cret" not in refused.err + str(found)


def test_a_directory_of_authorities(origin, site, root, tmp_path, authority):
    directory = tmp_path / "authorities"
    directory.mkdir()
    (directory / "own.pem").write_bytes(authority.ca_file.read_bytes())
    call("openssl", "rehash", directory)
    with serving_tls(authority, origin, tmp_path / "nginx", "127.0.0.1") as port:
        words = ("--from", f"https://127.0.0.1:{port}", "--root-keys", origin.root_keys, "--root", root)
        refused = site.fails(7, "install", OLD, *words)
        assert "not trusted here" in refused.err
        site.environment["SSL_CERT_DIR"] = str(directory)
        site.ok("install", OLD, *words)
        plain = site.fails(7, "install", NEW, "--from", f"http://127.0.0.1:{port}", *words[2:])
    assert "status 400" in plain.err
    assert "https://" in plain.err


def test_a_caching_proxy_between(origin, site, root, tmp_path, shared_path):
    os.chown(shared_path, *owner_of_squid())
    port, config = free_port(), shared_path / "squid.conf"
    config.write_text(SQUID.format(port=port, home=shared_path))
    plain = {"/srv/store/public": str(origin.store / "public")}
    argv = [*knowing(tmp_path, f"127.0.0.1 {HOST}"), program("squid"), "-N", "-f", config]
    with (
        nginx(tmp_path / "nginx", "server { listen 8080; root /srv/store/public; }", plain) as server,
        running(argv, port=port, log=tmp_path / "out") as proxy,
    ):
        site.environment["http_proxy"] = proxy
        words = ("--from", f"http://{HOST}:{server.url.rpartition(':')[2]}", "--root-keys", origin.root_keys)
        site.ok("install", OLD, *words, "--root", root)
        site.ok("install", NEW, *words, "--root", root)
        found = site.ok("doctor", *words)
    trees.assert_same(root / "releases" / NEW, origin.new)
    assert site.ok("verify", NEW, "--root", root)["intact"] is True
    by_step = {one["step"]: one for one in found["findings"]}
    assert by_step["ranges"]["level"] == "ok"
    assert "squid" in str(by_step["freshness"]["values"]["caches"])
    assert (shared_path / "access.log").read_text().count("/packs/") > 0


def owner_of_squid() -> tuple[int, int]:
    found = pwd.getpwnam("proxy")
    return found.pw_uid, found.pw_gid


def test_a_name_with_addresses_of_both_families_of_which_one_is_dead(origin, site, root, tmp_path):
    before = knowing(tmp_path, f"::1 {HOST}", f"127.0.0.1 {HOST}")
    plain = {"/srv/store/public": str(origin.store / "public")}
    with nginx(tmp_path / "nginx", "server { listen 8080; root /srv/store/public; }", plain) as server:
        words = ("--from", f"http://{HOST}:{server.url.rpartition(':')[2]}", "--root-keys", origin.root_keys)
        site.ok("install", OLD, *words, "--root", root, before=before)
        found = site.ok("doctor", *words, before=before)
    trees.assert_same(root / "releases" / OLD, origin.old)
    levels = {one["values"]["family"]: one["level"] for one in found["findings"] if one["step"] == "connections"}
    assert levels == {"IPv6": "warn", "IPv4": "ok"}

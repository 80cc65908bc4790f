"""nginx as it is documented in deploy/nginx, on a free port and with files of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.site import free_port, running
from tests.peers.programs import program

EXAMPLES = Path(__file__).parents[2] / "deploy/nginx"
PLAIN = "server { listen 8080; root /srv/store/public; }"
_MAIN = """
{user}
daemon off;
worker_processes 2;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format told '$status $request_method $uri $sent_http_x_cache_status';
    access_log {home}/access.log told;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    include {home}/site.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    url: str
    home: Path

    def told(self) -> list[str]:
        """The lines of its access log: status, method, path, cache status."""
        return (self.home / "access.log").read_text().splitlines()


@contextlib.contextmanager
def nginx(home: Path, config: str, changes: Mapping[str, str]) -> Iterator[Nginx]:
    """nginx with the server block `config`, in which `changes` are made, as its comments tell operators to."""
    home.mkdir()
    port = free_port()
    for before, after in {"listen 8080;": f"listen 127.0.0.1:{port};", **changes}.items():
        assert before in config, before
        config = config.replace(before, after)
    config = config.replace("    listen [::]:8080;\n", "")
    (home / "site.conf").write_text(config)
    # Its workers must read what only root may, below the directory for temporary files.
    user = "user root;" if os.geteuid() == 0 else ""
    (home / "nginx.conf").write_text(_MAIN.format(user=user, home=home))
    argv = [program("nginx"), "-p", home, "-e", home / "error.log", "-c", home / "nginx.conf"]
    with running(argv, port=port, log=home / "out") as url:
        yield Nginx(url, home)


def example(name: str) -> str:
    """A documented configuration."""
    return (EXAMPLES / name).read_text()

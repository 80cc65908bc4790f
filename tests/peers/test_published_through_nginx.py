"""Publishing through nginx, as deploy/nginx has it and with its defaults; and by curl, as FORMAT.md section 11.1 says."""

from __future__ import annotations

import json
import subprocess

import pytest

from pacstore.digest import Digest
from tests.e2e.site import Outcome, wait_until
from tests.e2e.test_publishing import NEW, Place, stop
from tests.peers.programs import program
from tests.peers.web import example, nginx
from tests.store.outgoing import pack_of
from tests.store.releases import make_tree, noise, write

pytestmark = pytest.mark.peers
SMALL = """
server {
    listen 8080;
    location / { proxy_http_version 1.1; proxy_set_header X-Forwarded-Proto https; proxy_pass http://127.0.0.1:8081; }
}
"""


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("config", ["documented", "defaults"])
def test_a_release_is_published_through_nginx_also_with_its_small_bodies(place, tmp_path, config):
    """By default nginx takes bodies of 1 MiB and keeps them until they are whole."""
    tree = make_tree(tmp_path / "new", version="2")
    write(tree / "large", noise("large", 20_000_000))
    site = example("pacball-origin.conf").replace("$scheme", "https") if config == "documented" else SMALL
    with place.serving() as (url, process):
        with nginx(tmp_path / "nginx", site, {"http://127.0.0.1:8081": url}) as front:
            place.show_token(front.url)
            with place.publisher.start(*place.words(front.url, tree)) as publisher:
                wait_until(
                    lambda: " PATCH " in f" {' '.join(front.told())}" or publisher.poll() is not None, seconds=60
                )
                publisher.kill()
            done = place.publisher.ok(*place.words(front.url, tree))
            assert not done["waiting"]
            statuses = {line.split()[0] for line in front.told() if line.split()[1] == "PATCH"}
            assert ("413" in statuses) == (config == "defaults")
        stop(process)
    assert place.assembled(tree, NEW, tmp_path / "root")


def test_curl_sends_a_pack_in_pieces_as_documented(place, tmp_path):
    chunk = noise("by curl", 100_000)
    digest, data = pack_of(chunk)
    with place.serving() as (url, process):
        top = f"{url}/v1/publications/{NEW}"
        upload = f"{top}/uploads/packs/{digest.hex}"

        def curl(*words, body=None):
            """The status and headers of the answer, and its body."""
            file = write(tmp_path / "body", body if body is not None else b"")
            given = ["--data-binary", f"@{file}"] if body is not None else []
            argv = [program("curl"), "-sS", "-H", f"Authorization: Bearer {place.token}", "-D", tmp_path / "headers"]
            done = subprocess.run([*argv, *given, *words], capture_output=True, check=True)
            lines = (tmp_path / "headers").read_text().lower().splitlines()
            fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            return int(lines[0].split()[1]), fields, done.stdout

        assert json.loads(curl("-X", "POST", top)[2])["commits"]
        ask = ("-H", "Content-Type: application/octet-stream", f"{top}/missing")
        assert curl(*ask, body=Digest.of(chunk).raw)[2] == Digest.of(chunk).raw
        begin = ("-X", "POST", "-H", f"Upload-Length: {len(data)}", "-H", "Upload-Complete: ?0", upload)
        assert curl(*begin)[0] == 201
        piece = ("-X", "PATCH", "-H", "Content-Type: application/partial-upload")
        first = curl(*piece, "-H", "Upload-Offset: 0", "-H", "Upload-Complete: ?0", upload, body=data[:40_000])
        assert (first[0], first[1]["upload-offset"]) == (204, "40000")
        assert curl("-I", upload)[1]["upload-offset"] == "40000"
        last = curl(*piece, "-H", "Upload-Offset: 40000", "-H", "Upload-Complete: ?1", upload, body=data[40_000:])
        assert (last[0], last[1]["upload-complete"]) == (200, "?1")
        assert curl(*ask, body=Digest.of(chunk).raw)[2] == b""
        stop(process)


def test_a_publisher_goes_on_when_nginx_and_the_daemon_come_back(place, tmp_path):
    tree = make_tree(tmp_path / "new", version="2")
    write(tree / "large", noise("large", 60_000_000))
    with place.serving() as (url, process):
        port = int(url.rpartition(":")[2])
        with nginx(tmp_path / "nginx", example("pacball-origin.conf").replace("$scheme", "https"),
                   {"http://127.0.0.1:8081": url}) as front:  # fmt: skip
            place.show_token(front.url)
            config = place.publisher.home / "config/pacball/config.toml"
            config.write_text(config.read_text().replace("attempts = 2", "attempts = 30"))
            with place.publisher.start(*place.words(front.url, tree)) as publisher:
                wait_until(
                    lambda: " PATCH " in f" {' '.join(front.told())}" or publisher.poll() is not None, seconds=60
                )
                process.kill()
                process.wait()
                with place.serving(port) as (_, again):
                    done = Outcome.of(publisher, timeout=100)
                    assert (done.code, done.json["waiting"]) == (0, False)
                    stop(again)
    assert place.assembled(tree, NEW, tmp_path / "root")

"""`pacball publish --to URL` by the real command, to a real daemon: to the end, again, killed, and by whom it is refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time

import pytest

from tests.e2e.site import PACBALL, Outcome, Site, get, wait_until
from tests.store.releases import make_tree, noise, write

pytestmark = pytest.mark.slow
OLD, NEW = "Demo-1.0-x", "Demo-1.1-x"


class Place:
    """An origin with a line Demo, and a publisher elsewhere who has the key of the line and a token, and nothing else."""

    def __init__(self, top):
        self.origin, self.publisher = Site(top / "origin"), Site(top / "publisher")
        self.store, self.keys, self.tokens = top / "store", top / "keys", top / "tokens"
        self.old = make_tree(top / "old")
        self.origin.publish(self.old, OLD, self.store, "--keys", self.keys)
        self.line = top / "publisher/line"
        self.line.mkdir(mode=0o700)
        for name in ("line-Demo.pem", "line-Demo.pub", "root.json"):
            shutil.copy(self.keys / name, self.line / name)
        self.token = self.make_token("publisher", "--line", "Demo")
        self.config = top / "pacball.toml"
        self.configure(commits=True)

    def make_token(self, name, *words, role="publish"):
        return self.origin.ok("token", "create", name, "--role", role, "--file", self.tokens, *words)["token"]

    def configure(self, *, commits, uploads=""):
        refresh = f'[refresh]\nkeys = "{self.keys}"\n' if commits else ""
        access = f'[access]\ntoken_file = "{self.tokens}"\ntrusted_proxies = ["127.0.0.1"]\n'
        text = f'{refresh}{access}[uploads]\nenabled = true\nreserve = "1"\n{uploads}'
        self.config.write_text(text)

    def serving(self, port=0):
        return self.origin.serving_process(self.store, "--config", self.config, "--listen", f"127.0.0.1:{port}")

    def show_token(self, url, token=None):
        file = write(self.publisher.home / "token", (token or self.token).encode())
        file.chmod(0o600)
        config = f'[tokens]\n"{url}" = "{file}"\n[limits]\nattempts = 2\n'
        write(self.publisher.home / "config/pacball/config.toml", config.encode())

    def words(self, url, tree, name=NEW):
        return ("publish", tree, name, "--to", url, "--keys", self.line)

    def assembled(self, tree, name, where):
        """Whether the release is installed from the store as `tree` is."""
        root_keys = self.keys / "root.json"
        self.publisher.ok("install", name, "--from", self.store, "--root", where, "--root-keys", root_keys)
        done = subprocess.run(["diff", "-r", "--no-dereference", tree, where / "releases" / name], check=False)
        return done.returncode == 0


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def stop(process):
    process.send_signal(signal.SIGTERM)
    done = Outcome.of(process, timeout=30)
    assert (done.code, done.err) == (0, "")


def refuses(place, url, words):
    """Return when the origin refuses with these words."""
    wait_until(lambda: words in place.publisher.fails(7, *place.words(url, place.old)).json["message"], seconds=60)


def test_a_release_is_published_to_a_url_and_appears_at_once(place, tmp_path):
    tree = make_tree(tmp_path / "new", version="2")
    with place.serving() as (url, process):
        place.show_token(url)
        done = place.publisher.ok(*place.words(url, tree))
        assert (done["existed"], done["waiting"], done["rounds"]) == (False, False, 1)
        assert done["bytes_sent"] < done["bytes_total"] / 2
        releases = place.publisher.ok("list", "--from", url, "--root-keys", place.line / "root.json")["releases"]
        assert [entry["release"] for entry in releases] == [OLD, NEW]
        assert place.publisher.ok(*place.words(url, tree))["existed"]
        refused = place.publisher.fails(7, *place.words(url, place.old))
        assert "bound for ever" in refused.json["message"]
        stop(process)
    assert place.assembled(tree, NEW, tmp_path / "root")
    assert place.origin.ok("store", "check", "--store", place.store)["damage"] == []
    assert not list((place.publisher.home / "state/pacball/publishing").iterdir())


def test_refusals_come_with_the_words_of_the_origin(place, tmp_path):
    with place.serving() as (url, process):
        refused = place.publisher.fails(7, *place.words(url, place.old))
        assert "a token is needed" in refused.json["message"]
        place.show_token(url, place.make_token("other", "--line", "Other"))
        refuses(place, url, "not for the line Demo")  # once the daemon has read its tokens again
        place.show_token(url)
        words = ("publish", place.old, NEW, "--to", url, "--root-keys", place.line / "root.json", "--keys", tmp_path)
        assert "no key of this line" in place.publisher.fails(3, *words).json["message"]
        refused = place.publisher.fails(7, *place.words(url, place.old), "--sign-later")
        assert refused.json["place"] == "--sign-later"
        place.origin.ok("token", "revoke", "publisher", "--file", place.tokens)
        refuses(place, url, "not known here")
        stop(process)
    with place.origin.serving_process(place.store) as (url, process):
        refused = place.publisher.fails(3, *place.words(url, place.old))
        assert "no releases are published here" in refused.json["message"]


def test_without_the_online_key_the_release_waits_for_it(place, tmp_path):
    place.configure(commits=False)
    tree = make_tree(tmp_path / "new", version="2")
    with place.serving() as (url, process):
        place.show_token(url)
        assert place.publisher.ok(*place.words(url, tree))["waiting"]
        words = [str(PACBALL), *map(str, place.words(url, tree))]
        again = subprocess.run(words, env=place.publisher.environment, capture_output=True, text=True, check=True)
        assert again.stdout.startswith(f"{NEW} was published before")
        assert "it waits there for signatures" in again.stdout
        releases = place.publisher.ok("list", "--from", url, "--root-keys", place.line / "root.json")["releases"]
        assert [entry["release"] for entry in releases] == [OLD]
        stop(process)
    place.origin.ok("trust", "refresh", "--store", place.store, "--keys", place.keys)
    assert place.assembled(tree, NEW, tmp_path / "root")


def test_two_publishers_of_one_line_at_once(place, tmp_path):
    trees = [make_tree(tmp_path / f"new{n}", version=str(n)) for n in (2, 3)]
    names = [f"Demo-{n}.0-x" for n in (2, 3)]
    with place.serving() as (url, process):
        place.show_token(url)
        started = [place.publisher.start(*place.words(url, t, n)) for t, n in zip(trees, names, strict=True)]
        for one in started:
            assert Outcome.of(one, timeout=90).code == 0
        stop(process)
    for tree, name in zip(trees, names, strict=True):
        assert place.assembled(tree, name, tmp_path / "root")


BIG = 4 * 12_000_000


def big_tree(top):
    for number in range(4):
        write(top / f"f{number}", noise(f"big {number}", BIG // 4))
    return top


def received(url):
    """Bytes that a daemon has acknowledged since it started."""
    return json.loads(get(f"{url}/v1/status")[2])["uploads"]["received_bytes"]


def test_a_publisher_that_is_killed_goes_on_and_sends_nothing_twice(place, tmp_path):
    """What the origin acknowledged is never sent again: it would have received more than all there is."""
    tree = big_tree(tmp_path / "new")
    with place.serving() as (url, daemon):
        place.show_token(url)
        for kill in range(1, 4):
            with place.publisher.start(*place.words(url, tree)) as publisher:
                aim = kill * 12_000_000
                wait_until(lambda aim=aim: received(url) >= aim or publisher.poll() is not None, seconds=100)
                assert publisher.poll() is None
                publisher.kill()
        assert place.publisher.ok(*place.words(url, tree))["rounds"] == 1
        small = 200_000  # frames around the chunks, tables and documents
        assert BIG <= received(url) <= BIG + small
        stop(daemon)
    assert place.assembled(tree, NEW, tmp_path / "root")


def test_a_daemon_that_is_killed_again_and_again_loses_nothing(place, tmp_path):
    chance, tree = random.Random(7), big_tree(tmp_path / "new")
    with place.serving() as (url, process):
        port = int(url.rpartition(":")[2])
        stop(process)
    place.show_token(f"http://127.0.0.1:{port}")
    config = place.publisher.home / "config/pacball/config.toml"
    config.write_text(config.read_text().replace("attempts = 2", "attempts = 20"))
    publisher = None
    for kill in range(4):
        with place.serving(port) as (url, daemon):
            publisher = publisher or place.publisher.start(*place.words(url, tree))
            if kill < 3 and publisher.poll() is None:
                time.sleep(chance.uniform(0.5, 1.5))
                daemon.kill()
                continue
            assert Outcome.of(publisher, timeout=100).code == 0
            stop(daemon)
            break
    assert place.assembled(tree, NEW, tmp_path / "root")
    assert place.origin.ok("store", "check", "--store", place.store)["damage"] == []
    wait_until(lambda: not [p for p in (place.store / "private/uploads").rglob("*") if p.is_file()])

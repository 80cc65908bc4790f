"""openapi.json against a running daemon, by a program that makes requests of it: ordinary ones, odd ones and wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pacmirror.config import AccessConfig, UpstreamConfig
from pacmirror.token_file import create_token
from tests.mirror.daemons import PACK_ID, RELEASE, running
from tests.mirror.uploading import taking

pytestmark = pytest.mark.slow

FILES = r"^/(pacballs/\{|files/\{release\}/\{path|"
FILES += r"packs|manifests|attributes|provenance|bundles|placements|releases|holdings|catalog|rucio|store\.json)"

OTHERS = rf"{FILES}|^/v1/publications/"

# A part of a JSON file is no JSON; conditions that do not hold are no error of who asks.
NO_FAULT = ("--exclude-checks", "response_schema_conformance,positive_data_acceptance")


def ask(url, where, *words):
    """Ask for everything that is described there, in the directory `where`; what differs from the description fails."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{url}/openapi.json", "--max-examples", "10", "--seed", "1", "--no-color"]
    # An endless stream; it has tests of its own.
    command += ["--exclude-path", "/v1/events", "--request-timeout", "30", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=where)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-500:]
    return done.stdout


@pytest.fixture
def writable(store):
    """A store whose daemon can keep a ledger."""
    (store / "private/staging").mkdir()
    return store


def test_files_are_served_as_described(daemon, tmp_path):
    said = ask(daemon.url, tmp_path, "--include-path-regex", FILES, *NO_FAULT)
    assert "Tested: 30" in said, said[-1500:]


def test_all_else_is_answered_as_described(writable, tmp_path):
    with running(writable) as daemon:
        said = ask(daemon.url, tmp_path, "--exclude-path-regex", OTHERS)
    assert "Tested: " in said


def test_a_mirror_is_as_described_and_every_section_of_its_status_is(daemon, tmp_path):
    with running(tmp_path / "mirror", upstream=UpstreamConfig(urls=(daemon.url,))) as mirror:
        ask(mirror.url, tmp_path, "--exclude-path-regex", OTHERS)
        description = json.loads(mirror.get("/openapi.json"))
        assert set(mirror.status()) <= set(description["components"]["schemas"]["Status"]["properties"])


def test_files_of_a_mirror_are_served_as_described(daemon, tmp_path):
    with running(tmp_path / "mirror", upstream=UpstreamConfig(urls=(daemon.url,))) as mirror:
        said = ask(mirror.url, tmp_path, "--include-path-regex", FILES, *NO_FAULT)
    assert "Tested: 30" in said, said[-1500:]


def test_publishing_is_answered_as_described(tmp_path):
    """Whatever is sent there is no error of the server's, and no pack; nothing waits, so that there is no change to get."""
    with taking(tmp_path) as made:
        client = made.client("admin")
        words = ("-H", f"Authorization: Bearer {client.token}", "--exclude-checks", "positive_data_acceptance")
        # Pieces are of a type that the program cannot make.
        words += ("--exclude-operation-id", "appendToUpload", "--phases", "coverage")
        said = ask(made.daemon.url, tmp_path, "--include-path-regex", "^/v1/publications/", *words)
        assert "Tested: 12" in said, said[-1500:]
        assert made.origin.listed() == []


def test_with_tokens_too(writable, tmp_path):
    _, text = create_token(tmp_path / "tokens", name="site", role="read", now=0, expires=None)
    access = AccessConfig(read="token", status="token", token_file=tmp_path / "tokens")
    with running(writable, access=access) as daemon:
        said = ask(daemon.url, tmp_path, "--exclude-path-regex", OTHERS, "-H", f"Authorization: Bearer {text}")
        assert "401" not in said
        assert daemon.request(f"/packs/ab/{PACK_ID}")[0] == 401
        assert daemon.request(f"/holdings/{RELEASE}", f"Authorization: Bearer {text}")[0] == 200

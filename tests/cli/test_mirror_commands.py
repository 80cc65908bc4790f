"""`pacball mirror`: what a mirror is to hold, and how it does."""

from __future__ import annotations

import json

import pytest

from paccli.mirror_status import describe, needs_attention, span
from tests.mirror.daemons import running
from tests.mirror.scripted import answer, playing

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"


def test_subscriptions_are_made_shown_and_ended(pacball, store):
    found = pacball.json("mirror", "subscribe", "Demo-*", "--keep", 1, "--store", store, "--dry-run")
    assert ([one["release"] for one in found["releases"]], found["dry_run"]) == ([NEW], True)
    assert pacball.json("mirror", "subscriptions", "--store", store) == {"subscriptions": []}
    text = pacball.text("mirror", "subscribe", "Demo-*", "--store", store)
    assert text.startswith("subscribed to Demo-*: now 2 releases with ")
    assert f"  {OLD}: " in text
    pacball.json("mirror", "subscribe", "Demo-1.1-*", "--keep", 3, "--store", store)
    assert pacball.text("mirror", "subscriptions", "--store", store).splitlines() == [
        "Demo-*",
        "Demo-1.1-*, the newest 3",
    ]
    pacball.json("mirror", "unsubscribe", "Demo-*", "--store", store)
    assert pacball.json("mirror", "subscriptions", "--store", store) == {
        "subscriptions": [{"releases": "Demo-1.1-*", "keep": 3}]
    }
    result = pacball.run("mirror", "unsubscribe", "Demo-*", "--store", store)
    assert (result.exit_code, "there are: Demo-1.1-*" in result.stderr) == (3, True)


@pytest.mark.parametrize("arguments", [("Demo 1",), ("Demo-*", "--keep", 0)])
def test_what_cannot_be_subscribed_to_is_refused(pacball, store, arguments):
    assert pacball.run("mirror", "subscribe", *arguments, "--store", store).exit_code == 7


def test_a_mirror_that_never_ran_is_named(pacball, tmp_path):
    result = pacball.run("mirror", "subscribe", "Demo-*", "--store", tmp_path / "none")
    assert (result.exit_code, "start the mirror once: pacball serve" in result.stderr) == (3, True)


def test_the_status_of_a_daemon_in_words(pacball, store):
    with running(store) as daemon:
        text = pacball.text("mirror", "status", daemon.url, "--releases")
        assert "releases   2 complete, 0 partial, 0 failed" in text
        assert f"  {OLD}: complete, " in text
        assert text.splitlines()[0].startswith(f"origin {daemon.url}, pacball ")
        assert "nothing needs a person" in text
        found = pacball.json("mirror", "status", daemon.url, "--releases")
        assert [one["release"] for one in found["releases"]] == [OLD, NEW]
        assert found["held"]["releases"]["complete"] == 2


STATUS = {
    "version": "9",
    "catalog": {"version": 4, "age_seconds": 5000, "fault": ""},
    "replication": {"upstream_version": 6, "age_seconds": 7},
    "held": {
        "releases": {"complete": 7, "partial": 1, "failed": 2},
        "packs": {"subscribed": 10, "pulled": 5},
        "bytes": {"subscribed": 3_000_000, "pulled": 2_000_000},
        "bytes_held": 5_000_000,
        "troubles": 2,
        "troubled": [
            {
                "release": OLD,
                "state": "failed",
                "reason": "a pack\x1b[2J is not there",
                "attempts": 4,
                "next_attempt": "soon",
            }
        ],
    },
    "sync": {
        "queued": 3,
        "lag_seconds": 90_000,
        "transfers": [{"release": NEW, "bytes_total": 200, "bytes_held": 50}],
    },
    "warnings": [f"{OLD} cannot be held whole"],
}


def test_a_site_admin_is_told_what_is_the_matter():
    lines = list(describe(STATUS, "http://x"))
    assert lines == [
        "mirror http://x, pacball 9",
        "catalog    version 4, signed 1 h 23 min ago",
        "upstream   version 6, seen 7 s ago",
        "releases   7 complete, 1 partial, 2 failed",
        "held       5.0 MB in 15 packs, of which 2.0 MB may leave for others",
        "behind     for 1 d 1 h, 3 releases wait for their turn",
        f"  {OLD} is failed: a pack\\x1b[2J is not there",
        "    4 attempts failed; the next one is at soon",
        "  and 1 more: --releases shows all",
        f"fetching   {NEW}: 50 B of 200 B (25 %)",
        f"! {OLD} cannot be held whole",
    ]
    assert needs_attention(STATUS)
    assert not needs_attention({**STATUS, "warnings": []})


def test_what_needs_a_person_has_an_exit_code_of_its_own(pacball):
    with playing([answer("200 OK", json.dumps(STATUS).encode())]) as server:
        assert "! " in pacball.text("mirror", "status", server.url, code=1)


@pytest.mark.parametrize("body", [b"[]", b"not json", b'{"a":1}', b"\xff"])
def test_what_is_no_daemon_is_said_to_be_none(pacball, body):
    with playing([answer("200 OK", body)]) as server:
        result = pacball.run("mirror", "status", server.url)
        assert (result.exit_code, "is this the URL of a pacball daemon?" in result.stderr) == (4, True)


def test_nonsense_in_an_answer_is_passed_over():
    odd = {"catalog": [], "held": {"releases": 3, "troubled": "x", "bytes_held": True}, "sync": None, "warnings": {}}
    assert next(iter(describe(odd, "http://x"))) == "origin http://x, pacball "


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_000, "1 d 1 h"),
        (999_999, "11 d"),
    ],
)
def test_spans(seconds, text):
    assert span(seconds) == text

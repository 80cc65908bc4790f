"""`pacball store gc`, and the pins that it heeds."""

from __future__ import annotations

import os

import pytest

from pacstore.ledger import releases
from pacstore.store import Store
from tests.store.releases import NOBODY, snapshot

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"


def packs(store):
    return {path for path in snapshot(store / "public") if path.startswith("packs/")}


def documents(store):
    return {path for path in snapshot(store / "public") if path.startswith(("manifests/", "placements/", "releases/"))}


@pytest.fixture
def dropped(pacball, store):
    pacball.json("withdraw", OLD, "--store", store, "--reason", "bad")
    pacball.json("store", "drop", "--store", store, "--grace", "0")
    return store


def test_nothing_is_deleted_of_a_store_whose_releases_are_all_in_use(pacball, store):
    before = packs(store)
    pacball.text("store", "gc", "--store", store, "--grace", "0")
    text = pacball.text("store", "gc", "--store", store, "--grace", "0")
    assert text.splitlines() == ["deleted 0 files, 0 B", f"2 releases with {len(before)} packs are kept"]
    assert packs(store) == before


def test_fear_of_deletion_what_was_dropped_stays_for_its_grace_and_a_trial_deletes_nothing(
    pacball, dropped
):  # kopia#4769
    before = snapshot(dropped / "public")
    for _ in range(2):
        found = pacball.json("store", "gc", "--store", dropped)
        assert (found["releases"], found["dropped"], found["deleted"]["files"]) == (1, 1, 0)
        assert found["waiting"]["files"] > 3
        assert "T" in pacball.text("store", "gc", "--store", dropped, "--dry-run").splitlines()[1]
    said = pacball.json("store", "gc", "--store", dropped, "--grace", "0", "--dry-run")
    assert (said["dry_run"], said["deleted"]) == (True, found["waiting"])
    assert snapshot(dropped / "public") == before
    text = pacball.text("store", "gc", "--store", dropped, "--grace", "0")
    assert text.startswith(f"deleted {said['deleted']['files']} files, ")
    assert documents(dropped) < before.keys()
    assert not [path for path in documents(dropped) if OLD in path]
    assert "all is well" in pacball.text("store", "check", "--store", dropped)


def test_a_trial_needs_no_ledger_and_makes_none(pacball, dropped):
    for path in (dropped / "private").glob("ledger.sqlite*"):
        path.unlink()
    assert pacball.json("store", "gc", "--store", dropped, "--dry-run")["waiting"]["files"] > 3
    assert pacball.text("store", "pins", "--store", dropped) == "nothing is pinned\n"
    assert "ledger.sqlite" not in os.listdir(dropped / "private")


def test_no_pins_is_answered_a_pinned_release_is_kept_until_it_is_unpinned(pacball, dropped):  # attic#83
    before = documents(dropped)
    made = pacball.json("store", "pin", OLD, "--store", dropped, "--reason", "of rule 1234", "--owner", "rucio:sw.X")
    pacball.json("store", "pin", NEW, "--store", dropped, "--until", "2101-02-03")
    assert (made["name"], made["owner"], made["reason"], made["until"]) == (OLD, "rucio:sw.X", "of rule 1234", None)
    assert pacball.text("store", "pins", "--store", dropped).splitlines() == [
        f"{OLD} by rucio:sw.X: of rule 1234",
        f"{NEW} by operator until 2101-02-03T00:00:00Z",
    ]
    assert pacball.json("store", "gc", "--store", dropped, "--grace", "0")["pins"] == 2
    assert documents(dropped) == before
    assert pacball.run("store", "unpin", OLD, "--store", dropped).exit_code == 3
    pacball.json("store", "unpin", OLD, "--store", dropped, "--owner", "rucio:sw.X")
    pacball.json("store", "gc", "--store", dropped, "--grace", "0")
    assert not [path for path in documents(dropped) if OLD in path]


def test_what_is_not_there_cannot_be_pinned(pacball, store):
    for name, code in (("Demo-9.9-x", 3), ("0" * 64, 3), ("../x", 7), ("0" * 63, 7)):
        assert pacball.run("store", "pin", name, "--store", store).exit_code == code


def test_what_was_dropped_is_complete_no_longer(pacball, dropped):
    with Store.open(dropped, writable=False) as store, store.ledger.reading() as connection:
        assert [str(release) for release in releases.every(connection)] == [NEW]


def test_why_packs_are_not_judged_is_said(pacball, dropped):
    placement = dropped / f"public/placements/{NEW}.1"
    data = placement.read_bytes()
    placement.unlink()
    text = pacball.text("store", "gc", "--store", dropped, "--grace", "0")
    assert "packs stay: of 1 releases it cannot be read what they need:" in text
    assert f"placements/{NEW}.1: does not exist" in text
    placement.write_bytes(data)
    assert "packs stay" not in pacball.text("store", "gc", "--store", dropped, "--grace", "0")


def test_a_store_without_a_catalog_is_left_alone(pacball, dropped):
    for path in (dropped / "public/catalog").iterdir():
        path.unlink()
    before = snapshot(dropped / "public")
    result = pacball.run("store", "gc", "--store", dropped, "--grace", "0")
    assert (result.exit_code, snapshot(dropped / "public")) == (3, before)


@pytest.mark.root
@pytest.mark.parametrize(
    "words",
    [
        ("store", "gc"), ("store", "pin", "Sample-1.0-any"), ("store", "unpin", "Sample-1.0-any"), ("store", "drop"),
        ("store", "link"), ("store", "reindex"), ("store", "check", "--repair"),
        ("mirror", "subscribe", "*"), ("mirror", "unsubscribe", "*"),
    ],
)  # fmt: skip
def test_root_makes_nothing_in_a_store_that_its_daemon_could_not_change(pacball, store, words):
    """A ledger of root's, made by a pin, kept the daemon of another user from starting."""
    for path in (store, *store.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    failed = pacball.json(*words, "--store", store, code=7)
    assert "what root makes in it, its daemon could neither read nor change" in failed["message"]
    assert "sudo -u" in failed["hint"]
    assert {path.lstat().st_uid for path in store.rglob("*")} == {NOBODY}

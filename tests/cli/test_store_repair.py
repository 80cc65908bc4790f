"""`pacball store check --repair`: what people and programs are told, and what is right afterwards."""

from __future__ import annotations

import os

import pytest

from tests.mirror.daemons import running
from tests.store.damaged_stores import copy_store, publish_two
from tests.store.releases import flip, snapshot, write

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"
KINDS = ("packs", "manifests", "attributes", "placements", "holdings", "releases")


def public(store):
    return {path: data for path, data in snapshot(store / "public").items() if path.split("/")[0] in KINDS}


def packs(store):
    return sorted(path for path in public(store) if path.startswith("packs/"))


def largest(store):
    """The pack with what both releases share."""
    return max(packs(store), key=lambda path: (store / "public" / path).stat().st_size)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish_two(tmp_path_factory.mktemp("repair"))


@pytest.fixture
def store(published, tmp_path):
    return copy_store(published.store.path, tmp_path / "store")


@pytest.fixture
def sound(published):
    return published.store.path


def test_what_was_damaged_is_repaired_from_another_store(pacball, store, sound):
    before = public(store)
    flip(store / "public" / largest(store), 9)
    flip(store / "public" / next(path for path in before if path.startswith("manifests/")), 50)
    text = pacball.text("store", "check", "--store", store, "--repair", "--from", sound)
    assert "to repair: 1 frames (" in text
    assert f"1 documents; from {sound}" in text
    assert f"repaired: {largest(sound)}: 1 parts, " in text
    assert f" from {sound}" in text
    assert f"offered again: {OLD}" in text
    assert text.splitlines()[-1].startswith("all is well: ")
    assert public(store) == before
    assert pacball.json("store", "check", "--store", store)["intact"]


def test_programs_are_told_the_same(pacball, store, sound):
    path = largest(store)
    flip(store / "public" / path, 9)
    told = pacball.json("store", "check", "--store", store, "--repair", "--from", sound)
    assert (told["intact"], told["damage"]) == (True, [])
    repair = told["repair"]
    assert (repair["parts_found"], repair["parts_repaired"], repair["lost"], repair["dry_run"]) == (1, 1, [], False)
    assert repair["plan"]["frames"] == 1
    assert repair["bytes_got"] == repair["plan"]["frame_bytes"] > 0
    assert repair["healed"][0]["path"] == path
    assert repair["healed"][0]["givers"] == [str(sound)]
    assert OLD in repair["offered"]


def test_a_plan_changes_nothing(pacball, store, sound):
    flip(store / "public" / largest(store), 9)
    before = snapshot(store / "public")
    told = pacball.json("store", "check", "--store", store, "--repair", "--from", sound, "--dry-run", code=1)
    assert (told["repair"]["plan"]["frames"], told["repair"]["dry_run"], told["intact"]) == (1, True, False)
    assert snapshot(store / "public") == before


def test_what_nobody_has_is_withdrawn_and_named_with_exit_code_1(pacball, store, sound):
    before = public(store)
    path = largest(store)
    flip(store / "public" / path, 9)
    result = pacball.run("store", "check", "--store", store, "--repair")
    assert result.exit_code == 1
    assert "from what the store itself holds" in result.stdout
    assert f"not repaired: {path}, frame at 8: the frame is damaged, and nobody has it" in result.stdout
    assert "1 of them are withdrawn" in result.stdout
    assert not (store / "public" / path).exists()
    assert sorted(os.listdir(store / "public/holdings")) == []
    assert pacball.json("store", "check", "--store", store, code=1)["releases"]
    told = pacball.json("store", "check", "--store", store, "--repair", "--from", sound)
    assert told["intact"]
    assert public(store) == before


def test_from_a_server(pacball, store, sound):
    before = public(store)
    for path in packs(store):
        (store / "public" / path).unlink()
    with running(sound) as daemon:
        told = pacball.json("store", "check", "--store", store, "--repair", "--from", daemon.url)
    assert told["intact"]
    assert public(store) == before
    assert [part["givers"] for part in told["repair"]["healed"]] == [[daemon.url]] * len(packs(store))


def test_a_server_that_is_not_there_is_the_reason(pacball, store):
    flip(store / "public" / largest(store), 9)
    write(store.parent / "config/pacball/config.toml", b"[limits]\nattempts = 1\n")
    url = "http://127.0.0.1:9"
    result = pacball.run("store", "check", "--store", store, "--repair", "--from", url)
    assert result.exit_code == 1
    assert f"reason: {url}" in result.stdout


def test_from_an_installed_release(pacball, store, published):
    trees = [published.store.path.parents[1] / version for version in ("1", "2")]
    before = public(store)
    flip(store / "public" / largest(store), 9)
    words = ("store", "check", "--store", store, "--repair", "--seed", trees[0], "--seed", trees[1])
    assert pacball.json(*words)["intact"]
    assert public(store) == before


def test_a_sound_store_needs_nothing(pacball, store, sound):
    text = pacball.text("store", "check", "--store", store, "--repair", "--from", sound)
    assert "to repair: nothing; from " in text
    assert "all is well" in text


def test_options_of_a_repair_need_one(pacball, store, sound, tmp_path):
    for words in (("--from", sound), ("--seed", tmp_path), ("--dry-run",)):
        told = pacball.json("store", "check", "--store", store, *words, code=7)
        assert (told["message"], told["hint"]) == ("is only for a repair", "add --repair")
    told = pacball.json("store", "check", "--store", store, "--repair", "--from", tmp_path, code=3)
    assert "is not a pacball store" in told["message"]
    assert pacball.json("store", "check", "--store", store, "--repair", "--seed", "/nowhere", code=3)


def test_damage_that_no_repair_can_mend_stays_named(pacball, store, sound):
    """A file that is no object of the store, and the index."""
    (store / "public/packs/stray").write_bytes(b"x")
    told = pacball.json("store", "check", "--store", store, "--repair", "--from", sound, code=1)
    assert [damage["place"] for damage in told["damage"]] == ["packs/stray"]

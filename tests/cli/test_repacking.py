"""`pacball store repack`, as release managers use it."""

from __future__ import annotations

import re

import pytest

from pacstore.limits import KIB
from pacstore.store import Store
from tests.store.releases import noise, originals, snapshot, write

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"


def packs(store):
    return {path for path in snapshot(store / "public") if path.startswith("packs/")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two versions, of which the second has a quarter of the first, in frames of its own."""
    top = tmp_path_factory.mktemp("parts")
    for name in "abcd":
        write(top / "1" / name, noise(name, 1100 * KIB))
    write(top / "2/a", noise("a", 1100 * KIB))
    write(top / "2/own", noise("own", 100 * KIB))
    return top


@pytest.fixture
def worn(pacball, tmp_path, parts):
    """A store with a pack of which a quarter is alive."""
    for tree, name in (("1", OLD), ("2", NEW)):
        pacball.json("publish", parts / tree, name, "--to", tmp_path / "store")
    pacball.json("withdraw", OLD, "--store", tmp_path / "store", "--reason", "bad")
    pacball.json("store", "drop", "--store", tmp_path / "store", "--grace", "0")
    pacball.json("store", "gc", "--store", tmp_path / "store", "--grace", "0")
    return tmp_path / "store"


def test_room_is_won_in_two_steps_and_the_release_can_be_installed_at_any_time(pacball, worn, parts, tmp_path):
    before = packs(worn)
    trial = pacball.text("store", "repack", "--store", worn, "--dry-run").splitlines()
    assert re.fullmatch(r"would repack 1 pack of 2, 4\.[0-9] MB: 1\.[0-9] MB of them are needed", trial[0])
    assert re.fullmatch(r"  [0-9a-f]{64}  3\.[0-9] MB of 4\.[0-9] MB dead", trial[1])
    assert re.fullmatch(r"would copy 1\.[0-9] MB into 1 new pack", trial[2])
    assert trial[3] == "would sign new placements of 1 release"
    assert re.fullmatch(r"would win 3\.[0-9] MB, once gc has deleted the old packs", trial[4])
    assert packs(worn) == before
    text = pacball.text("store", "repack", "--store", worn)
    assert "signed new placements of 1 release\n" in text
    assert "3.4 MB are won when the old packs' grace is over: pacball store gc deletes them" in text
    assert before < packs(worn)
    assert "deleted 0 files" in pacball.text("store", "gc", "--store", worn)
    pacball.text("store", "gc", "--store", worn, "--grace", "0")
    assert len(packs(worn)) == 2
    assert packs(worn) & before < before
    root = tmp_path / "root"
    pacball.json("install", NEW, "--from", worn, "--root", root, "--trust-on-first-use")
    assert originals(root / "releases" / NEW) == originals(parts / "2")
    assert "all is well" in pacball.text("store", "check", "--store", worn)
    assert pacball.text("store", "repack", "--store", worn) == (
        "nothing to repack: none of 2 packs is mostly dead and free to go\n"
    )


@pytest.mark.slow
def test_programs_are_told_each_pack_with_its_dead_bytes(pacball, worn):
    said = pacball.json("store", "repack", "--store", worn, "--dry-run")
    (one,) = said["repacked"]
    assert (said["dry_run"], said["placements"], said["new_packs"], said["failed"]) == (True, 1, 1, [])
    assert one["length"] - one["live_bytes"] == said["won_bytes"] > 3_000_000
    done = pacball.json("store", "repack", "--store", worn, "--limit-rate", "100M")
    assert done["repacked"] == said["repacked"]
    assert done["new_bytes"] == done["old_bytes"] - done["won_bytes"]
    assert done["seconds"] > 0


@pytest.mark.slow
def test_the_share_can_be_chosen(pacball, worn):
    assert pacball.json("store", "repack", "--store", worn, "--live-share", "0.2")["repacked"] == []
    assert pacball.run("store", "repack", "--store", worn, "--live-share", "1.0").exit_code == 2
    assert len(pacball.json("store", "repack", "--store", worn, "--live-share", "0.3")["repacked"]) == 1


@pytest.mark.slow
def test_pinned_packs_are_told_with_their_owner(pacball, worn):
    pacball.json("store", "pin", NEW, "--store", worn, "--owner", "rucio:sw.X")
    text = pacball.text("store", "repack", "--store", worn)
    assert text.startswith("nothing to repack: ")
    assert "left alone, though mostly dead: 1 pack\n" in text
    assert text.endswith(f" dead: {NEW} is pinned by rucio:sw.X\n")
    assert pacball.json("store", "repack", "--store", worn)["left"][0]["reason"] == f"{NEW} is pinned by rucio:sw.X"


@pytest.mark.slow
def test_a_mirror_refuses_with_a_reason(pacball, worn):
    with Store.open(worn, writable=True) as store:
        store.remember_mirror()
    for options in ((), ("--dry-run",)):
        result = pacball.run("store", "repack", "--store", worn, *options)
        assert result.exit_code == 7
        assert "is a mirror" in result.stderr
        assert "repack at the origin" in result.stderr


@pytest.mark.slow
def test_without_the_online_key_nothing_is_begun(pacball, worn, tmp_path):
    (tmp_path / "none").mkdir(mode=0o700)
    before = packs(worn)
    result = pacball.run("store", "repack", "--store", worn, "--keys", tmp_path / "none")
    assert (result.exit_code, packs(worn)) == (7, before)
    assert "needs 1 of the keys" in result.stderr


@pytest.mark.slow
def test_damage_is_named_and_ends_with_its_exit_code(pacball, worn):
    said = pacball.json("store", "repack", "--store", worn, "--dry-run")["repacked"][0]["pack"]
    path = worn / "public/packs" / said[:2] / said
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    result = pacball.run("store", "repack", "--store", worn)
    assert result.exit_code == 1
    assert f"not right, and left alone: packs/{said[:2]}/{said}" in result.stdout

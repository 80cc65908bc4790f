"""The commands for what is installed, as people and programs see them."""

from __future__ import annotations

import os
import re

import pytest

from tests.store.releases import snapshot

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"
LISTED = {
    "release", "tree_digest", "bytes_total", "files", "installed", "current", "current_since", "replaced", "source", "damage",
}  # fmt: skip


@pytest.fixture
def root(pacball, tmp_path, store):
    """Both releases installed; the root is the configured one."""
    (tmp_path / "config/pacball").mkdir(parents=True, exist_ok=True)
    (tmp_path / "config/pacball/config.toml").write_text(f'root = "{tmp_path}/root"\nsource = "{store}"\n')
    for name in (OLD, NEW):
        pacball.json("install", name)
    return tmp_path / "root"


def current(root):
    return os.path.basename(os.readlink(root / "current/Demo/x86_64"))


def test_releases(pacball, root):
    listed = pacball.json("releases")
    assert set(listed) == {"releases", "attempts", "trash_bytes", "aside_bytes"}
    old, new = listed["releases"]
    assert set(old) == LISTED
    assert (old["release"], old["current"], old["damage"]) == (OLD, False, "")
    assert old["replaced"] == new["current_since"]
    assert new["installed"] <= new["current_since"]
    title, first, second = pacball.text("releases").splitlines()
    assert title.split() == ["release", "size", "files", "installed", "current", "tree", "digest"]
    assert re.fullmatch(rf"{OLD} +\S+ kB +\d+  \S+Z  until \S+Z  {old['tree_digest'][:16]}\.\.\.", first)
    assert " since " in second
    assert pacball.json("releases", "--root", root) == listed


def test_releases_of_a_root_in_disorder(pacball, root, tmp_path):
    (root / f".pacball/manifests/{OLD}.manifest").write_bytes(b"?")
    (root / ".pacball/trash" / ("0" * 32)).mkdir(parents=True)
    (root / ".pacball/trash" / ("0" * 32) / "file").write_bytes(bytes(10_000))
    with (root / ".pacball/history.jsonl").open("a") as file:
        file.write('{"event": "swi')
    text = pacball.text("releases")
    assert re.search(rf"{OLD} +\?  .* its record is damaged: ", text)
    assert "left by interrupted removals, and removed by the next: " in text
    assert pacball.run("releases", "--root", tmp_path).exit_code == 3


def test_the_history(pacball, root):
    pacball.json("rollback", "Demo")
    events = pacball.json("releases", "--history")["events"]
    assert [(e["event"], e["release"]) for e in events] == [
        ("install", OLD),
        ("switch", OLD),
        ("install", NEW),
        ("switch", NEW),
        ("rollback", OLD),
    ]
    lines = pacball.text("releases", "--history").splitlines()
    assert re.fullmatch(rf"\S+Z switch {NEW} from {OLD} \(.*store\)", lines[3])
    assert re.fullmatch(rf"\S+Z rollback {OLD} from {NEW}", lines[4])


def test_rollback(pacball, root):
    assert pacball.text("rollback", "Demo") == f"current/Demo/x86_64 leads to {OLD} now, and no longer to {NEW}\n"
    assert current(root) == OLD
    failed = pacball.run("rollback", "Demo", "x86_64", "--root", root)
    assert failed.exit_code == 7
    assert f"nothing to go back to: nothing was current before it (installed are too: {NEW}; " in failed.stderr
    done = pacball.json("rollback", "Demo", "--to", NEW)
    assert done == {"project": "Demo", "platform": "x86_64", "previous": OLD, "release": NEW}
    assert current(root) == NEW


def test_remove(pacball, root, trees):
    failed = pacball.run("remove", OLD)
    assert failed.exit_code == 7
    assert "jobs may still run from it" in failed.stderr
    assert "--grace 0" in failed.stderr
    assert pacball.run("remove", NEW, "--grace", "0").exit_code == 7
    assert pacball.run("remove", OLD, "--grace", "soon").exit_code == 7
    assert pacball.run("remove", "Demo-7-x86_64").exit_code == 3
    assert pacball.run("remove").exit_code == 2
    done = pacball.json("remove", OLD, "--grace", "0")
    assert (done["removed"][0]["release"], done["bytes_swept"]) == (OLD, 0)
    assert done["removed"][0]["bytes_freed"] > 300_000
    assert os.listdir(root / "releases") == [NEW]
    assert snapshot(root / "releases" / NEW) == snapshot(trees[1])


def test_remove_in_words(pacball, root):
    assert re.fullmatch(rf"removed {OLD}: \S+ kB freed\n", pacball.text("remove", OLD, "--grace", "0"))


def test_prune(pacball, root):
    assert pacball.run("prune").exit_code == 2
    assert f"kept {OLD}: jobs may still run from it; until 20" in pacball.text("prune", "--keep", "0")
    dry = pacball.text("prune", "--keep", "0", "--grace", "0", "--dry-run")
    assert re.search(rf"kept {NEW}: it is current\nwould remove {OLD}: ", dry)
    assert f"kept {OLD}: it is one of the newest" in pacball.text(
        "prune", "Demo", "x86_64", "--keep", "1", "--grace", "0s"
    )
    done = pacball.json("prune", "--keep", "0", "--grace", "0")
    assert [(one["release"], one["reason"]) for one in done["releases"]] == [(NEW, "current"), (OLD, "removed")]
    assert (done["dry_run"], done["attempts"], done["bytes_swept"]) == (False, 0, 0)
    assert os.listdir(root / "releases") == [NEW]


def test_a_root_must_be_given(pacball):
    for words in (["releases"], ["rollback", "Demo"], ["remove", OLD], ["prune", "--keep", "1"]):
        failed = pacball.run(*words)
        assert failed.exit_code == 7
        assert "--root: no install root is given" in failed.stderr


VERIFIED = {"release", "intact", "files", "bytes_total", "damage", "warnings"}
REPAIRED = {"files", "entries", "records", "bytes_downloaded", "bytes_reused", "aside", "left"}


def test_verify(pacball, root):
    found = pacball.json("verify")
    assert set(found) == {"intact", "strict", "releases"}
    assert [(one["release"], one["intact"]) for one in found["releases"]] == [(OLD, True), (NEW, True)]
    assert all(set(one) == VERIFIED for one in found["releases"])
    (root / "releases" / NEW / "__pycache__").mkdir()
    assert pacball.json("verify", NEW)["releases"][0]["warnings"] == [
        {"path": "__pycache__", "fault": "extra", "detail": "is not part of the release"}
    ]
    assert pacball.json("verify", NEW, "--strict", code=1)["intact"] is False
    text = pacball.text("verify")
    assert re.search(rf"^extra: {NEW}/__pycache__ is not part of the release$", text, re.MULTILINE)
    assert re.search(rf"^{NEW}: \d+ files, \S+ kB: as it was signed, 1 warning$", text, re.MULTILINE)
    assert pacball.run("verify", "Demo-7-x86_64").exit_code == 3


def test_repair(pacball, root, trees, tmp_path):
    top = root / "releases" / NEW
    (top / "version").write_bytes(b"?")
    (top / "only here").mkdir()
    (tmp_path / "config/pacball/config.toml").rename(tmp_path / "config/pacball/away")
    offline = pacball.run("verify", NEW, "--repair", "--root", root)
    assert offline.exit_code == 1
    assert f"damaged: {NEW}/version" in offline.stdout
    assert "no local tree has all that is missing: name a source with --from" in offline.stdout
    (tmp_path / "config/pacball/away").rename(tmp_path / "config/pacball/config.toml")
    done = pacball.json("verify", NEW, "--repair")
    (release,) = done["releases"]
    assert (done["intact"], release["intact"], set(release["repaired"])) == (True, True, REPAIRED)
    assert [one["path"] for one in release["damage"]] == ["version"]
    assert (release["repaired"]["files"], release["repaired"]["left"]) == (1, [])
    (top / "only here").rmdir()
    assert snapshot(top) == snapshot(trees[1])
    (top / "version").write_bytes(b"?")
    assert re.search(
        rf"^repaired {NEW}: 1 file; \S+ k?B downloaded, \S+ k?B reused$",
        pacball.text("verify", "--repair"),
        re.MULTILINE,
    )


def test_a_damaged_record_says_how_to_mend_it_and_is_mended(pacball, root):
    (root / f".pacball/manifests/{OLD}.manifest").write_bytes(b"?")
    refused = pacball.run("install", OLD)
    assert refused.exit_code == 7
    assert f"pacball verify {OLD} --repair" in refused.stderr
    assert "its record is damaged; --repair --from SOURCE fetches it again" in pacball.text("verify", OLD, code=1)
    assert "1 record;" in pacball.text("verify", OLD, "--repair")
    assert pacball.json("install", OLD)["already_installed"] is True

"""What pacball export and import say, to people and to programs."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.store.carried import state_of
from tests.store.releases import flip

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"
EXPORTED = {
    "catalog_version", "releases", "since", "packs", "bytes_packs", "bytes_since", "bytes_total", "bytes_kept", "volumes",
    "seconds",
}  # fmt: skip
IMPORTED = {
    "is_complete", "catalog_version", "expires", "releases", "volumes", "volumes_missing", "packs_copied", "packs_kept",
    "bytes_copied", "outdated", "packs_fetched", "bytes_fetched", "seconds",
}  # fmt: skip


@pytest.fixture
def root(store, tmp_path):
    (keys,) = (tmp_path / "config/pacball/keys").iterdir()
    return keys / "root.json"


def test_what_they_print(pacball, store, root, tmp_path):
    out, to = tmp_path / "x.tar", tmp_path / "mirror"
    done = pacball.json("export", OLD, NEW, "--from", store, "-o", out)
    assert set(done) == EXPORTED
    assert (done["releases"], done["since"], done["volumes"]) == ([OLD, NEW], [], [str(out)])
    assert done["bytes_total"] == out.stat().st_size
    text = pacball.text("export", OLD, NEW, "--from", store, "-o", out)
    assert "were there from an earlier attempt" in text
    assert "there: pacball import x.tar --to STORE; the first time with --root-keys root.json" in text
    split = pacball.text(
        "export", OLD, NEW, "--from", store, "-o", tmp_path / "s.tar", "--split", done["bytes_total"] - 1
    )
    assert ("import s.tar.* --to STORE" in split, (tmp_path / "s.tar.002").exists()) == (True, True)
    assert "are left out: the other side must hold" in pacball.text(
        "export", NEW, "--since", OLD, "--from", store, "-o", tmp_path / "next.tar"
    )
    text = pacball.text("import", out, "--to", to, "--root-keys", root)
    assert f"{to} holds 2 releases, with version" in text
    again = pacball.json("import", out, "--to", to)
    assert set(again) == IMPORTED
    assert (again["is_complete"], again["packs_copied"], again["packs_kept"]) == (True, 0, done["packs"])
    assert "the catalog alone" in pacball.text("export", "--from", store, "-o", tmp_path / "catalog.tar")
    assert "of the catalog" in pacball.text("import", tmp_path / "catalog.tar", "--to", to)
    assert pacball.json("list", "--from", to)["releases"]
    assert pacball.json("store", "check", "--store", to)["intact"]


@pytest.mark.slow
def test_which_root_is_trusted(pacball, store, root, tmp_path):
    out = tmp_path / "x.tar"
    pacball.json("export", OLD, "--from", store, "-o", out)
    refused = pacball.json("import", out, "--to", tmp_path / "a", code=8)
    assert "its first root has the fingerprint" in refused["message"]
    assert "--root-keys" in refused["hint"]
    result = pacball.run("import", out, "--to", tmp_path / "a", "--trust-on-first-use")
    assert (result.exit_code, "compare its fingerprint" in result.stderr) == (0, True)
    (tmp_path / "config/pacball/roots").mkdir()
    (tmp_path / "config/pacball/roots/demo.json").write_bytes(root.read_bytes())
    assert pacball.json("import", out, "--to", tmp_path / "b")["is_complete"]
    other = tmp_path / "other.json"
    other.write_bytes(b"{}")
    assert pacball.json("import", out, "--to", tmp_path / "c", "--root-keys", other, code=7)
    assert not (tmp_path / "c").exists()


def test_mistakes_are_told(pacball, store, root, tmp_path):
    out, before = tmp_path / "x.tar", state_of(store)
    for code, words, message in (
        (3, ("Demo-9-x",), "is not in the catalog"),
        (7, ("what",), "is not a release name"),
        (7, (OLD, "--split", "much"), "is no number of bytes"),
        (7, (OLD, "--split", "10k"), "are too few for a volume"),
        (7, (OLD, "--limit-rate", "x"), "is no rate"),
    ):
        told = pacball.json("export", *words, "--from", store, "-o", out, code=code)
        assert message in told["message"]
    assert "is a directory" in pacball.json("export", OLD, "--from", store, "-o", tmp_path, code=7)["message"]
    assert "no directory" in pacball.json("export", OLD, "--from", store, "-o", tmp_path / "a/b", code=7)["message"]
    assert not out.exists()
    pacball.json("export", OLD, "--from", store, "-o", out)
    for code, words, message in (
        (3, (tmp_path / "no", "--to", tmp_path / "new"), "does not exist"),
        (7, (root, "--to", tmp_path / "new"), "is not a volume of an export"),
        (7, (out, "--to", store), "is no mirror"),
        (7, (out, "--to", tmp_path), "is neither empty nor a pacball store"),
    ):
        assert message in pacball.json("import", *words, "--root-keys", root, code=code)["message"]
    assert state_of(store) == before
    assert not os.path.lexists(tmp_path / "new")


@pytest.mark.slow
def test_of_several_sources_a_bad_one_spoils_nothing(pacball, store, root, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(store / "public", bad)
    for path in (bad / "packs").rglob("*"):
        if path.is_file():
            flip(path, 5000)
    pacball.json("export", OLD, NEW, "--from", store, "-o", tmp_path / "good.tar")
    told = pacball.run("export", OLD, NEW, "--from", f"{bad},{store}", "--root-keys", root, "-o", tmp_path / "x.tar")
    assert (told.exit_code, f"{bad} gave what is wrong" in told.stderr) == (0, True)
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "good.tar").read_bytes()
    alone = pacball.json("export", OLD, "--from", bad, "--root-keys", root, "-o", tmp_path / "y.tar", code=4)
    assert "not those that its digest says" in alone["message"]
    assert not (tmp_path / "y.tar").exists()


@pytest.mark.slow
def test_programs_are_told_how_far_it_is(pacball, store, root, tmp_path):
    out = tmp_path / "x.tar"
    result = pacball.run("export", OLD, "--from", store, "-o", out, "--progress=json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["event"] == "result"
    assert "exporting" in {event.get("phase") for event in events}
    result = pacball.run("import", out, "--to", tmp_path / "to", "--root-keys", root, "--progress=json")
    phases = {json.loads(line).get("phase") for line in result.stdout.splitlines()}
    assert {"checking", "importing", "completing"} <= phases


def test_a_bundle_brings_a_release_whose_packs_come_from_elsewhere(pacball, store, root, tmp_path):
    out, to = tmp_path / "x.bundle", tmp_path / "mirror"
    done = pacball.json("export", OLD, "--without-packs", "--from", store, "-o", out)
    assert set(done) == EXPORTED
    assert (done["packs"], done["bytes_packs"], done["bytes_since"] > 0) == (0, 0, True)
    text = pacball.text("export", OLD, "--without-packs", "--from", store, "-o", tmp_path / "again")
    assert "are left out" in text
    assert "pacball import again --to STORE --from SOURCE" in text
    assert (tmp_path / "again").read_bytes() == out.read_bytes()
    refused = pacball.json("import", out, "--to", to, "--root-keys", root, code=7)
    assert "--from" in refused["hint"]
    assert pacball.json("import", out, "--to", to, "--from", tmp_path / "no", "--root-keys", root, code=3)
    assert pacball.json("import", out, "--to", to, "--from", tmp_path, "--root-keys", root, code=3)
    assert not to.exists()
    came = pacball.json("import", out, "--to", to, "--from", store, "--root-keys", root)
    assert set(came) == IMPORTED
    assert (came["is_complete"], came["packs_copied"], came["bytes_fetched"]) == (True, 0, done["bytes_since"])
    assert ": 0 packs were fetched (0 B), the others were here; " in pacball.text(
        "import", out, "--to", to, "--from", f"{store},{to}"
    )
    assert pacball.json("store", "check", "--store", to)["releases_checked"]


def test_a_bundle_is_of_one_release_by_itself(pacball, store, tmp_path):
    for words in ((), (OLD, NEW), (OLD, "--since", NEW), (OLD, "--split", "1G")):
        told = pacball.json("export", *words, "--without-packs", "--from", store, "-o", tmp_path / "x", code=7)
        assert "name one release" in told["hint"]

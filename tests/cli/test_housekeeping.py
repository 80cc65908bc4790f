"""What the command says of releases that were withdrawn, have lapsed or have a provenance; and ceasing to offer them."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from tests.store.releases import snapshot, write
from tests.store.statements import dsse, encoded, slsa_0_2, slsa_1

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"
REASON = "Wrong field map – «sorry»"


def listed(pacball, store):
    return {entry["release"]: entry for entry in pacball.json("list", "--from", store)["releases"]}


def held(store):
    return sorted(os.listdir(store / "public/holdings"))


@pytest.fixture
def withdrawn(pacball, store):
    pacball.json("withdraw", OLD, "--store", store, "--reason", REASON, "--replaced-by", NEW)
    return store


def test_ordinary_releases_are_not_marked(pacball, store):
    for entry in listed(pacball, store).values():
        assert (entry["withdrawn"], entry["lapsed"], entry["provenance_digest"]) == (None, False, None)
    text = pacball.text("list", "--from", store) + pacball.text("show", OLD, "--from", store)
    assert not any(word in text for word in ("withdrawn", "lapsed", "provenance"))
    assert pacball.json("show", OLD, "--from", store)["provenance"] is None


def test_withdrawn_releases_are_listed_and_marked(pacball, withdrawn):
    found = listed(pacball, withdrawn)
    assert list(found) == [OLD, NEW]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert (found[OLD]["withdrawn"]["reason"], found[OLD]["withdrawn"]["replaced_by"]) == (REASON, NEW)
    assert found[OLD]["withdrawn"]["at"][:10] <= day
    assert found[NEW]["withdrawn"] is None
    lines = pacball.text("list", "--from", withdrawn).splitlines()
    assert lines[0].endswith(f"  withdrawn {found[OLD]['withdrawn']['at'][:10]}: {REASON}; use {NEW}")
    assert lines[1].endswith("Z")


def test_show_and_diff_say_why_a_release_was_withdrawn(pacball, withdrawn):
    shown = pacball.json("show", OLD, "--from", withdrawn)
    assert shown["withdrawn"] == listed(pacball, withdrawn)[OLD]["withdrawn"]
    assert shown["entries"] > 0
    first = pacball.text("show", OLD, "--from", withdrawn).splitlines()[0]
    assert first == f"withdrawn {shown['withdrawn']['at'][:10]}: {REASON}; use {NEW}"
    result = pacball.run("diff", OLD, NEW, "--from", withdrawn)
    assert f"{OLD}: withdrawn" in result.stderr
    assert NEW in result.stderr
    assert "withdrawn" not in result.stdout


def test_a_withdrawn_release_whose_documents_are_gone_is_shown_from_the_catalog(pacball, withdrawn):
    shutil.rmtree(withdrawn / "public/manifests")
    result = pacball.run("show", OLD, "--from", withdrawn)
    assert (result.exit_code, "has the release no longer" in result.stderr) == (0, True)
    assert REASON in result.stdout
    assert pacball.json("show", NEW, "--from", withdrawn, code=3)["error"] == "not_found"


def test_lapsed_releases_are_marked(pacball, store):
    pacball.json("trust", "retain", "Demo", "1", "--store", store)
    found = listed(pacball, store)
    assert [entry["lapsed"] for entry in found.values()] == [True, False]
    lines = pacball.text("list", "--from", store).splitlines()
    assert [line.endswith("  lapsed") for line in lines] == [True, False]
    assert pacball.json("show", OLD, "--from", store)["lapsed"] is True
    assert pacball.text("show", OLD, "--from", store).splitlines()[0] == "lapsed"
    assert pacball.json("show", NEW, "--from", store)["lapsed"] is False
    assert pacball.json("list", "--from", store, "--project", "Demo")["releases"][0]["lapsed"] is True


def provenance_of(pacball, store, release, make=slsa_1):
    tree = listed(pacball, store)[release]["tree_digest"]
    return encoded(dsse(make({"name": "x", "digest": {"pacballTree": tree}}), keys=("key\x1b[31m",)))


@pytest.mark.parametrize("make", [slsa_1, slsa_0_2])
def test_a_provenance_is_summed_up_and_printed(pacball, store, tmp_path, make):
    data = provenance_of(pacball, store, OLD, make)
    pacball.json("attach", OLD, "--store", store, "--provenance", write(tmp_path / "statement", data))
    shown = pacball.json("show", OLD, "--from", store)
    assert shown["provenance_digest"] == listed(pacball, store)[OLD]["provenance_digest"]
    assert shown["provenance"]["builder"] == "https://example.org/builder"
    assert shown["provenance"]["sources"][0]["name"].startswith("git+https://example.org")
    assert shown["provenance"]["signed_by_unverified"] == ["key\x1b[31m"]
    text = pacball.text("show", OLD, "--from", store)
    assert "  built by         https://example.org/builder\n" in text
    assert "  signed by        key\\x1b[31m (not verified)\n" in text
    assert "no signature inside it was verified" in text
    assert "  source           git+https://example.org/sw@refs/tags/1.0 gitCommit:abab" in text
    assert pacball.text("show", OLD, "--provenance", "--from", store) == data.decode()
    assert pacball.json("show", OLD, "--provenance", "--from", store) == {"release": OLD, "document": data.decode()}
    assert "provenance states" not in pacball.text("show", NEW, "--from", store)
    assert pacball.json("show", NEW, "--provenance", "--from", store, code=3)["error"] == "not_found"
    assert pacball.json("store", "check", "--store", store)["links_missing"] == 0


def test_a_provenance_that_the_source_lacks_or_changed(pacball, store, tmp_path):
    data = provenance_of(pacball, store, OLD)
    pacball.json("attach", OLD, "--store", store, "--provenance", write(tmp_path / "statement", data))
    digest = listed(pacball, store)[OLD]["provenance_digest"]
    path = store / f"public/provenance/{digest[:2]}/{digest}"
    path.chmod(0o644)
    path.write_bytes(data.replace(b"key", b"kex"))
    assert pacball.json("show", OLD, "--from", store, code=4)["error"] == "corrupt"
    path.unlink()
    result = pacball.run("show", OLD, "--from", store, "--json")
    assert "does not have the provenance" in result.stderr
    assert json.loads(result.stdout)["provenance"] is None


def test_a_provenance_of_something_else_is_refused_with_the_digests_that_would_do(pacball, store, tmp_path):
    data = provenance_of(pacball, store, NEW)
    found = pacball.json("attach", OLD, "--store", store, "--provenance", write(tmp_path / "statement", data), code=7)
    assert listed(pacball, store)[OLD]["tree_digest"] in found["hint"]
    assert listed(pacball, store)[OLD]["provenance_digest"] is None


def test_dropping_what_was_withdrawn(pacball, withdrawn):
    assert pacball.json("store", "drop", "--store", withdrawn) == {"dropped": [], "dry_run": False}
    assert pacball.text("store", "drop", "--store", withdrawn) == "nothing to drop\n"
    before = snapshot(withdrawn / "public")
    planned = pacball.json("store", "drop", "--store", withdrawn, "--grace", "0d", "--dry-run")
    assert planned == {"dropped": [OLD], "dry_run": True}
    assert pacball.text("store", "drop", "--store", withdrawn, "--grace", "0d", "--dry-run") == f"would drop {OLD}\n"
    assert snapshot(withdrawn / "public") == before
    assert pacball.text("store", "drop", "--store", withdrawn, "--grace", "0d") == f"dropped {OLD}\n"
    after = snapshot(withdrawn / "public")
    assert before.keys() - after.keys() == {f"holdings/{OLD}"}
    assert after.items() <= before.items()
    assert pacball.json("store", "drop", "--store", withdrawn, "--grace", "0d")["dropped"] == []
    assert list(listed(pacball, withdrawn)) == [OLD, NEW]


def test_dropping_what_has_lapsed(pacball, store):
    pacball.json("trust", "retain", "Demo", "1", "--store", store)
    assert pacball.json("store", "drop", "--store", store, "--grace", "1h")["dropped"] == []
    assert pacball.json("store", "drop", "--store", store, "--grace", "0s")["dropped"] == [OLD]
    assert held(store) == [NEW]


def test_what_was_dropped_is_no_damage(pacball, withdrawn):
    pacball.json("store", "drop", "--store", withdrawn, "--grace", "0d")
    checked = pacball.json("store", "check", "--store", withdrawn)
    assert (checked["intact"], checked["releases_dropped"], checked["releases_checked"]) == (True, 1, 1)


@pytest.mark.parametrize("span", ["", "7", "d", "-1d", "1.5d", "7 d", "7days", "1w", "9999999d", "\u0667d"])
def test_spans_that_are_none(pacball, store, span):
    assert "7d, 12h" in pacball.json("store", "drop", "--store", store, f"--grace={span}", code=7)["hint"]


def test_links_are_made_where_a_store_has_none(pacball, store):
    before = snapshot(store / "public")
    shutil.rmtree(store / "public/releases")
    assert pacball.json("store", "check", "--store", store)["links_missing"] == 6
    assert pacball.json("store", "link", "--store", store) == {"linked": 2, "incomplete": []}
    assert snapshot(store / "public") == before
    (store / f"public/placements/{OLD}.1").unlink()
    assert pacball.json("store", "link", "--store", store) == {"linked": 1, "incomplete": [OLD]}
    assert f"not linked: {OLD}" in pacball.text("store", "link", "--store", store)

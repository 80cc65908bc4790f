"""The other commands of `pacball trust`, and those of a line's managers: what they refuse, what they say, and their JSON."""

from __future__ import annotations

import pytest

from pacstore.trust.keyring import KeyRing
from tests.cli.ceremonies import DEMO, OUTCOME, label, other_files
from tests.store.releases import make_tree

# Looking


def test_status_of_a_store(waiting):
    found = waiting.json("trust", "status")
    assert (found["version"], found["root_version"], found["warnings"]) == (1, 1, [])
    assert [role["role"] for role in found["roles"]] == ["root", "targets", "snapshot", "timestamp"]
    text = waiting.pacball.text("trust", "status", "--store", waiting.store)
    assert f"2 of {label(waiting, 'alice')}, {label(waiting, 'bob')}" in text
    assert f"line-Demo version 1: waits for 1 more signature, of {label(waiting, 'mia')}" in text


def test_status_of_files(waiting):
    keys = ("--keys", waiting.top / "alice")
    before = waiting.file.read_bytes()
    found = waiting.pacball.json("trust", "status", waiting.file, *keys)
    assert set(found) == {"file", "changes", "signed", "missing"}
    assert (found["missing"], found["signed"]) == ({"line-Demo": 1, "targets": 1}, {"line-Demo": [], "targets": []})
    waiting.pacball.json("trust", "sign", waiting.file, "--yes", *keys)
    text = waiting.pacball.text("trust", "status", waiting.file, *keys)
    assert f"  signed by {label(waiting, 'alice')}; complete" in text
    assert "  signed by nobody; lacks 1 more signature" in text
    assert "  begins with nothing in it" in text
    assert waiting.file.read_bytes() != before
    root = waiting.top / "root.json"
    mark = waiting.json("trust", "export", "--root", "-o", root)["fingerprint"]
    shown = waiting.pacball.json("trust", "status", root, *keys)
    assert (shown["fingerprint"], shown["version"], shown["roles"]["root"]["threshold"]) == (mark, 1, 2)
    assert len(shown["signed"]) == 2
    assert mark in waiting.pacball.text("trust", "status", root, *keys)


def test_files_that_say_nothing(waiting):
    for name, (path, code, text) in other_files(waiting).items():
        if name != "a root":
            found = waiting.pacball.json("trust", "status", path, code=code)
            assert text in f"{found['place']} {found['message']} {found['hint']}", name
    targets = waiting.store / "public/catalog/1.targets.json"
    assert "is not a TUF root" in waiting.pacball.json("trust", "status", targets, code=7)["message"]
    both = waiting.pacball.json("trust", "status", waiting.file, "--store", waiting.store, code=7)
    assert "say which one" in both["message"]


def test_what_expires_soon_is_a_warning_and_an_exit_code(begun):
    assert begun.json("trust", "status", "--check")["warnings"] == []
    # A timestamp that lives for a day is as good as one that lives for a month, as long as it is signed anew.
    begun.json("trust", "refresh", "--timestamp-days", 1)
    assert begun.json("trust", "status", "--check")["warnings"] == []
    for where in ("--store", "--from"):
        found = begun.pacball.json("trust", "status", where, begun.store, "--check")
        assert found["warnings"] == []
    store = begun.pacball.text("trust", "status", "--store", begun.store)
    assert "WARNING" not in store


def test_export(begun):
    assert "nothing waits" in begun.json("trust", "export", "-o", begun.file, code=3)["message"]
    assert begun.json("trust", "export", "--root", "--newest-root", "-o", begun.file, code=7)["place"] == "--root"
    assert begun.json("trust", "export", "--root", "-o", begun.top / "no/root.json", code=3)["place"]
    begun.json("trust", "rotate", "root", "--add", begun.key("carol"))
    begun.sign("alice", "bob")
    for words, version in (("--root", 1), ("--newest-root", 2)):
        begun.json("trust", "export", words, "-o", begun.file)
        assert begun.file.read_bytes() == (begun.store / f"public/catalog/{version}.root.json").read_bytes()


def test_there_is_no_root_before_the_first_signatures(trust):
    key = trust.key("alice")
    trust.json("trust", "init", "--root-key", key, "--keys", trust.top / "origin")
    for word in ("--root", "--newest-root"):
        found = trust.json("trust", "export", word, "-o", trust.file, code=3)
        assert "no root yet" in found["message"]
    assert trust.json("trust", "status")["version"] == 0
    trust.pacball.json("trust", "verify", "--from", trust.store, code=3)


# Changes


def test_dropping_what_waits(waiting):
    assert waiting.json("trust", "drop", "root") == {"dropped": []}
    assert waiting.pacball.text("trust", "drop", "--store", waiting.store) == "dropped: line-Demo, targets\n"
    assert waiting.pacball.text("trust", "drop", "--store", waiting.store) == "nothing waited\n"


def test_keys_are_named_by_name_file_or_digits(begun):
    alice, bob = (KeyRing(begun.top / name).public(name).keyid for name in ("alice", "bob"))
    carol = begun.key("carol")
    begun.json("trust", "rotate", "targets", "--add", carol)
    for name in ("bob", bob[:8], bob.upper()[:12], begun.top / "bob/bob.pub"):
        found = begun.json("trust", "rotate", "targets", "--remove", name)
        (root,) = [one for one in found["waiting"] if one["role"] == "root"]
        assert root["missing"] == 2
        text = begun.pacball.text("trust", "status", "--store", begun.store)
        assert label(begun, "bob") in text
        begun.json("trust", "drop")
    for name in ("dave", bob[:7], "0" * 64, alice[:8] + "xyz"):
        found = begun.json("trust", "rotate", "targets", "--remove", name, code=3)
        assert "is no key of this catalog" in found["message"], name
    assert begun.json("trust", "revoke", begun.key("erin"), code=7)["hint"]


def test_rotations_that_are_none(begun):
    assert "--add, --remove or --threshold" in begun.json("trust", "rotate", "root", code=7)["hint"]
    for role in ("timestamp", "snapshot", "placement-Demo", "nonsense", "line-Demo"):
        found = begun.json("trust", "rotate", role, "--threshold", 1, code=7)
        assert "role" in found["message"] + found["place"], role
    again = begun.json("trust", "rotate", "root", "--threshold", 2)
    assert (again["changed"], again["waiting"], again["next"]) == (False, [], [])


def test_whoever_trusted_the_short_way_can_hand_over_to_people(trust, pacball, trees, tmp_path):
    """The root and targets keys that the first publish made are at hand, and must not commit alone what only both can."""
    pacball.json("publish", trees[0], DEMO, "--to", trust.store, "--keys", tmp_path / "keys")
    for role in ("targets", "root"):
        trust.json("trust", "rotate", role, "--add", trust.key(f"new-{role}"), "--remove", role)
    for role in ("targets", "root"):
        trust.json("trust", "sign", "--yes", "--keys", tmp_path / f"new-{role}")
    done = trust.json("trust", "refresh")
    assert done["waiting"] == []
    roles = {role["role"]: role["keyids"] for role in trust.json("trust", "status")["roles"]}
    for role in ("targets", "root"):
        assert roles[role] == [KeyRing(tmp_path / f"new-{role}").public(f"new-{role}").keyid]
    assert [one["release"] for one in pacball.json("list", "--from", trust.store)["releases"]] == [DEMO]


def test_lines_that_cannot_be(waiting):
    waiting.sign("alice", "mia")
    key = waiting.top / "bob/bob.pub"
    assert "exists already" in waiting.json("trust", "add-line", "Demo", "--key", key, code=7)["message"]
    assert "case" in waiting.json("trust", "add-line", "DEMO", "--key", key, code=7)["message"]
    for name in ("a-b", "1a", "", "a/b"):
        waiting.json("trust", "add-line", name, "--key", key, code=7)
    assert waiting.json("trust", "status")["waiting"] == []


def test_a_line_without_a_named_key_gets_one_here(trust):
    trust.json("trust", "init", "--keys", trust.top / "keys")
    text = trust.pacball.text("trust", "add-line", "Demo", "--store", trust.store)
    assert f"made the key line-Demo, without a passphrase: {trust.top / 'keys/line-Demo.pem'}" in text
    assert "line-Demo: in force" in text


@pytest.fixture
def published(trust, trees):
    """The short way: all keys are here."""
    trust.pacball.json("publish", trees[0], DEMO, "--to", trust.store)
    return trust


def test_managers_commands_in_json(published):
    done = published.json("withdraw", DEMO, "--reason", "broken")
    assert set(done) >= OUTCOME
    assert (done["committed"], done["next"]) == (["line-Demo"], [])
    assert published.json("withdraw", DEMO, "--reason", "broken")["changed"] is False
    assert published.json("trust", "retain", "Demo", "3,20d")["committed"] == ["line-Demo"]
    assert published.json("trust", "retain", "Demo", "all")["committed"] == ["line-Demo"]
    assert "nothing to change" in published.pacball.text("trust", "retain", "Demo", "all", "--store", published.store)
    assert set(published.json("trust", "refresh")) >= OUTCOME | {"expires"}
    renewed = published.json("trust", "sign", "--renew")
    assert renewed["committed"] == ["line-Demo", "root", "targets"]


def test_managers_commands_that_are_refused(published, tmp_path):
    for words, code, text in (
        (["withdraw", "Demo-9-x", "--reason", "x"], 7, "is not in the catalog"),
        (["withdraw", DEMO, "--reason", ""], 7, "1000"),
        (["withdraw", DEMO, "--reason", "a\nb"], 7, ""),
        (["withdraw", DEMO, "--reason", "x", "--replaced-by", DEMO], 7, "cannot replace it"),
        (["withdraw", "Demo", "--reason", "x"], 7, "PROJECT-VERSION-PLATFORM"),
        (["trust", "retain", "Demo", "0"], 7, "what to keep"),
        (["trust", "retain", "Other", "3"], 7, "has no line"),
        (["trust", "republish", "--above-version", "1"], 7, "--above-version"),
        (["attach", DEMO, "--provenance", tmp_path / "none"], 3, "does not exist"),
        (["trust", "sign", "--renew", "--role", "timestamp"], 7, "is not signed by people"),
        (["trust", "sign", "--renew", "--keys", tmp_path / "nowhere"], 7, "--role ROLE"),
        (["trust", "refresh", "--keys", tmp_path / "nowhere"], 7, "--keys DIR"),
    ):
        found = published.json(*words, code=code)
        assert text in f"{found['place']} {found['message']} {found['hint']}", words
    assert published.json("trust", "status")["waiting"] == []


def test_every_command_wants_a_store_that_is_one(pacball, tmp_path):
    for words in (
        ["trust", "status"], ["trust", "refresh"], ["trust", "drop"], ["trust", "sign", "--yes"], ["trust", "sign", "--renew"],
        ["trust", "export", "-o", tmp_path / "x"], ["trust", "add-line", "Demo"], ["trust", "retain", "Demo", "1"],
        ["trust", "rotate", "root", "--threshold", 1], ["trust", "republish", "--above-version", 5],
        ["withdraw", DEMO, "--reason", "x"],
    ):  # fmt: skip
        found = pacball.json(*words, "--store", tmp_path / "none", code=3)
        assert found["message"] == "is not a pacball store", words


def test_what_waits_can_be_renewed_by_who_has_no_key_here(published, tmp_path):
    found = published.json("trust", "sign", "--renew", "--role", "root", "--keys", tmp_path / "nowhere")
    assert [(one["role"], one["missing"]) for one in found["waiting"]] == [("root", 1)]
    text = published.pacball.text("trust", "sign", "--yes", "--store", published.store)
    assert "  nothing in it changes" in text
    assert "root: in force" in text


def test_republishing_the_short_way(published):
    done = published.json("trust", "republish", "--above-version", 100)
    assert (done["version"], done["waiting"]) == (101, [])


def test_a_tree_is_published_only_with_the_lines_key(begun, tmp_path):
    tree = make_tree(tmp_path / "tree", version="1", kib=10)
    found = begun.pacball.json("publish", tree, DEMO, "--to", begun.store, code=7)
    assert "add-line" in found["hint"]

"""docs/trust.md is true: its commands are run as they stand there, and after each chapter clients of earlier ones go on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.e2e import guide

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs/trust.md").read_text(encoding="utf-8")
CHAPTERS = guide.parse(GUIDE)
SHORT, HARDWARE = {1}, {11}
"""Chapters with people of their own; tests/peers runs that of hardware."""

OLD, NEW, STOLEN = "Atlas-1.0-x86_64", "Atlas-1.1-x86_64", "Atlas-1.2-x86_64"
NIGHTLY = tuple(f"AtlasNightly-{number}-x86_64" for number in (1, 2))
FIRST = {OLD: "", NIGHTLY[0]: ""}
SECOND = {OLD: "wrong calibration", NEW: "", NIGHTLY[0]: "", NIGHTLY[1]: ""}
THIRD = SECOND | {STOLEN: "not ours: a key was stolen"}
RELEASES = {2: {}, 3: {}, 4: FIRST, 5: SECOND, 6: SECOND} | dict.fromkeys((7, 8, 9, 10, 12), THIRD)
"""What is published after each chapter, and why it was withdrawn."""
ROOTS = {2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 3, 8: 3, 9: 4, 10: 4, 12: 4}
"""The version of the root after each chapter."""


class Client:
    """Somebody who pinned the root at the end of a chapter, and has used the catalog after each one since."""

    def __init__(self, home: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._monkeypatch = monkeypatch
        home.mkdir()
        self._root = shutil.copy(root, home / "root.json")

    def look(self, store: Path, chapter: int) -> dict:
        """What the catalog has for this client; the newest release that can be had is installed and compared."""
        for name in ("config", "state"):
            self._monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(self._home / name))
        source = ("--from", store, "--root-keys", self._root)
        found = Command().json("list", *source)["releases"]
        releases = {one["release"]: (one["withdrawn"] or {"reason": ""})["reason"] for one in found}
        newest = [name for name, reason in releases.items() if not reason and not name.startswith("AtlasNightly")]
        for name in newest[-1:]:
            root = self._home / f"root-{chapter}"
            Command().json("install", name, *source, "--root", root)
            assert (root / "releases" / name / "version").read_text() == name.rpartition("-")[0] + "\n"
        status = Command().json("trust", "status", *source)
        assert (status["root_version"], status["warnings"]) == (ROOTS[chapter], [])
        return releases


@pytest.fixture
def world(tmp_path):
    made = guide.World(tmp_path)
    yield made
    made.end()


@pytest.mark.timeout(900)
def test_the_long_way(world, tmp_path, monkeypatch):
    store = world.path("origin", "/srv/store")
    clients = []
    for chapter in CHAPTERS:
        if chapter.number in SHORT | HARDWARE:
            continue
        for block in chapter.blocks:
            world.run(block)
        clients.append(Client(tmp_path / f"client-{chapter.number}", store / "public/catalog/1.root.json", monkeypatch))
        for client in clients:
            assert client.look(store, chapter.number) == RELEASES[chapter.number], chapter.title
    # Nobody's private key ever came to where all keys were not.
    private = {path.name for path in world.path("origin", "/").rglob("*.pem") if "media" not in path.parts}
    assert private == {"online-2.pem", "nightly.pem"}
    modes = {
        mode
        for path in (tmp_path / "machines").rglob("history*")
        for mode in re.findall(r'"mode": ?"([a-z-]+)"', path.read_text())
    }
    assert modes == {"pinned", "insecure"}


@pytest.mark.timeout(300)
def test_the_short_way(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for chapter in CHAPTERS:
        for block in chapter.blocks if chapter.number in SHORT else ():
            world.run(block)
    store = world.path("zoe", "~/store")
    for root in (store / "public/catalog/1.root.json", world.path("zoe", "~/root.json")):
        found = Command().json("list", "--from", store, "--root-keys", root)["releases"]
        assert [one["release"] for one in found] == ["Tools-1.0-any"]
    status = Command().json("trust", "status", "--store", store)
    assert {role["role"]: role["threshold"] for role in status["roles"]} == {
        "root": 2, "targets": 2, "snapshot": 1, "timestamp": 1, "line-Tools": 1, "placement-Tools": 1
    }  # fmt: skip
    assert status["waiting"] == []


def test_no_chapter_is_left_out():
    assert [chapter.number for chapter in CHAPTERS] == list(range(1, 13))
    assert {chapter.number for chapter in CHAPTERS} == SHORT | HARDWARE | RELEASES.keys()
    assert all(block.steps for chapter in CHAPTERS for block in chapter.blocks)
    # Every block of commands is one that is run.
    assert GUIDE.count("\n$ ") == sum(len(block.steps) for chapter in CHAPTERS for block in chapter.blocks)


def test_commands_between_the_lines_exist():
    spans = re.findall(r"`pacball ([^`]*)`", GUIDE.replace("\n", " "))
    assert len(spans) > 3
    for span in spans:
        words = span.split()
        name = [word for word in words[: 2 if words[0] in ("trust", "store") else 1] if word.isalpha()]
        done = Command().run(*name, "--help")
        assert done.exit_code == 0, span
        for option in re.findall(r"--[a-z-]+", span):
            assert option in done.output, (span, option)
    for option in re.findall(r"`(--[a-z-]+)[ `]", GUIDE):
        assert any(f'"{option}"' in path.read_text() for path in (TOP / "cli").rglob("*.py")), option


def test_errors_that_are_explained_are_what_pacball_says():
    sources = "\n".join(path.read_text() for top in ("store", "mirror", "cli") for path in (TOP / top).rglob("*.py"))
    table = GUIDE.partition("| what it says |")[2].partition("\n\n")[0]
    phrases = re.findall(r"^\| `([^`]*)` \|", table, re.MULTILINE)
    assert len(phrases) > 5
    for phrase in phrases:
        assert phrase in sources, phrase


def test_a_guide_that_does_not_say_whose_commands_it_has_is_refused():
    with pytest.raises(AssertionError, match="whose commands"):
        guide.parse("## 1. One\n```sh\n$ true\n```\n")
    with pytest.raises(AssertionError, match="is no person"):
        guide.parse("## 1. One\n```sh\n# What is this?\n$ true\n```\n")
    with pytest.raises(AssertionError, match="before the first chapter"):
        guide.parse("```sh\n# alice\n$ true\n```\n")


@pytest.mark.parametrize(
    ("commands", "fault"),
    [
        ("$ false", "ends with code 1, not 0"),
        ("$ true   # exit code 3", "ends with code 0, not 3"),
        ("$ printf 'one\\ntwo\\n'\ntwo\none", "does not print, in this place: one"),
        ("$ echo a thing\na … thing", "does not print, in this place: a … thing"),
        ("$ cat other", "ends with code 1"),
    ],
)
def test_what_is_otherwise_than_a_guide_says_is_found(world, commands, fault):
    (chapter,) = guide.parse(f"## 1. One\n```sh\n# alice\n{commands}\n```\n")
    with pytest.raises(AssertionError, match=re.escape(fault)):
        world.run(chapter.blocks[0])


def test_nobody_reaches_the_machine_of_another(world):
    for name, code in (("bob", 0), ("alice", 1)):
        world.path("bob", "~/secret").write_text("mine")
        there = world.machine("bob").alias / "home/secret"
        (chapter,) = guide.parse(f"## 1. One\n```sh\n# {name}\n$ cat {there}   # exit code {code}\n```\n")
        world.run(chapter.blocks[0])


def test_what_a_guide_may_say(world):
    (chapter,) = guide.parse(
        "## 1. One\n```sh\n# alice and bob, each at home\n$ echo $USER > mine; \\\n  echo ~ /srv/x\n/home/… /srv/x\n```\n"
        "<!-- test\n# carol, with mine as hers from alice and mine from bob\n"
        "$ cat hers mine; exit 4   # exit code 4\nalice\nbob\n"
        "# carol\n$ read -p 'go on? [y/N] ' answer; echo $answer\ny\n-->\n"
    )
    for block in chapter.blocks:
        world.run(block)
    assert [block.people for block in chapter.blocks] == [("alice", "bob"), ("carol",), ("carol",)]
    assert [block.line for block in chapter.blocks] == [3, 9, 13]

from __future__ import annotations

import calendar
import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

from paccli.output import reporting
from tests.store.releases import as_nobody, flip, make_tree, noise, originals, snapshot, write

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"
PUBLISHED = {
    "release", "tree_digest", "manifest_digest", "files", "bytes_total", "bytes_new", "bytes_rewritten", "bytes_stored",
    "existed", "waiting", "created_keys", "seconds",
    "original", "original_bytes", "original_new", "recompression", "opaque_bytes",
}  # fmt: skip
LISTED = {
    "release", "tree_digest", "manifest_digest", "attributes_digest", "placement_number", "bytes_total", "files", "published",
    "withdrawn", "lapsed", "provenance_digest",
}  # fmt: skip
SHOWN = LISTED | {
    "provenance",
    "has_actions",
    "entries",
    "symlinks",
    "hard_link_groups",
    "chunks",
    "frames",
    "packs",
    "bytes_to_download",
}
DIFFERENT = {
    "from", "to", "added", "removed", "changed", "unchanged", "chunks_new", "chunks_shared", "bytes_new",
    "bytes_to_download", "requests",
}  # fmt: skip
INSTALLED = {"release", "bytes_downloaded", "bytes_reused", "requests", "seconds"}
CHECKED = {"packs", "frames", "bytes_read", "releases_checked", "damage", "releases", "intact"}
CHECKED_STORE = CHECKED | {"releases_dropped", "links_missing"}
STATISTICS = {"releases", "releases_bytes", "packs", "packs_bytes", "frames", "chunks", "documents_bytes"}
ERROR = {"error", "message", "place", "hint", "exit_code"}


def test_publishing_makes_a_store_and_keys_and_says_so(pacball, tmp_path, trees):
    result = pacball.run("publish", trees[0], OLD, "--to", tmp_path / "store", "--json")
    assert result.exit_code == 0
    notes = result.stderr
    (keys,) = (tmp_path / "config/pacball/keys").iterdir()
    assert str(keys) in notes
    assert "safe place" in notes
    assert str(keys / "root.json") in notes
    names = ("line-Demo", "online", "root", "targets")
    assert sorted(os.listdir(keys)) == sorted([*(f"{n}.{end}" for n in names for end in ("pem", "pub")), "root.json"])
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys.glob("*.pem")} == {0o600}
    secrets = [key.read_bytes() for key in keys.glob("*.pem")]
    assert not [data for data in snapshot(tmp_path / "store").values() for secret in secrets if secret in data]


def test_publish(pacball, tmp_path, trees):
    found = pacball.json("publish", trees[0], OLD, "--to", tmp_path / "store")
    assert set(found) == PUBLISHED
    total = sum(map(len, originals(trees[0]).values()))
    assert (found["release"], found["bytes_total"], found["existed"]) == (OLD, total, False)
    assert 0 < found["bytes_new"] < total
    again = pacball.json("publish", trees[0], OLD, "--to", tmp_path / "store")
    assert (again["existed"], again["bytes_new"], again["tree_digest"]) == (True, 0, found["tree_digest"])
    text = pacball.text("publish", trees[1], NEW, "--to", tmp_path / "store")
    assert f"published {NEW}: " in text
    assert "was published before" in pacball.text("publish", trees[1], NEW, "--to", tmp_path / "store")
    other = pacball.json("publish", trees[1], OLD, "--to", tmp_path / "store", code=7)
    assert set(other) == ERROR
    assert other["place"] == OLD
    assert other["hint"] == "publish it under a new version"


def test_list_show_and_diff(pacball, store):
    found = pacball.json("list", "--from", store)["releases"]
    assert [entry["release"] for entry in found] == [OLD, NEW]
    assert {frozenset(entry) for entry in found} == {frozenset(LISTED)}
    assert pacball.json("list", "--from", store, "--project", "Demo")["releases"] == found
    assert pacball.json("list", "--from", store, "--project", "Other")["releases"] == []
    assert [line.split()[0] for line in pacball.text("list", "--from", store).splitlines()] == [OLD, NEW]
    shown = pacball.json("show", NEW, "--from", store)
    assert set(shown) == SHOWN
    assert {key: shown[key] for key in LISTED} == found[1]
    assert (shown["symlinks"], shown["hard_link_groups"]) == (2, 1)
    assert f"release            {NEW}\n" in pacball.text("show", NEW, "--from", store)
    different = pacball.json("diff", OLD, NEW, "--from", store)
    assert set(different) == DIFFERENT
    assert (different["from"], different["to"], different["added"], different["removed"]) == (OLD, NEW, [], [])
    assert "lib/changed.so" in different["changed"]
    assert "~ version\n" in pacball.text("diff", OLD, NEW, "--from", store)


def test_people_are_told_what_made_a_pacball(pacball, store, tmp_path):
    words = (OLD, "--from", store, "-o")
    assert pacball.text("fetch", *words, tmp_path / "a.sh").startswith(f"fetched {tmp_path / 'a.sh'}: ")
    built = pacball.text("build", *words, tmp_path / "b.sh")
    assert built.startswith(f"built {tmp_path / 'b.sh'}: ")
    assert "was there before" in pacball.text("build", *words, tmp_path / "b.sh")


def test_a_docroot_alone_is_a_source(pacball, store, tmp_path):
    shutil.copytree(store / "public", tmp_path / "copy")
    assert len(pacball.json("list", "--from", tmp_path / "copy")["releases"]) == 2


def test_installing_without_switching(pacball, store, tmp_path):
    words = ("install", OLD, "--from", store, "--root", tmp_path / "root")
    planned = pacball.json(*words, "--no-switch", "--plan")
    assert (planned["switched"], planned["fits"]) == (False, True)
    assert "switches" not in pacball.text(*words, "--no-switch")
    assert not (tmp_path / "root/current/Demo").exists()
    assert "switches current/Demo/x86_64 to Demo-1.0-x86_64\n" in pacball.text(*words, "--plan")
    assert pacball.json(*words)["switched"] is True
    assert (tmp_path / "root/current/Demo/x86_64").resolve().name == OLD


def test_install_and_verify(pacball, store, tmp_path, trees):
    root = tmp_path / "root"
    planned = pacball.json("install", OLD, "--from", store, "--root", root, "--plan")
    assert not (root / "releases" / OLD).exists()
    done = pacball.json("install", OLD, "--from", store, "--root", root)
    assert set(done) >= INSTALLED
    assert planned
    assert originals(root / "releases" / OLD) == originals(trees[0])
    update = pacball.json("install", NEW, "--from", store, "--root", root)
    assert update["bytes_reused"] > 0
    assert update["bytes_downloaded"] < done["bytes_downloaded"]
    assert (root / "current/Demo/x86_64").resolve() == root / "releases" / NEW
    assert pacball.json("verify", NEW, "--root", root)["intact"] is True
    overwritten = root / "releases" / NEW / "version"
    overwritten.chmod(0o644)
    overwritten.write_bytes(b"9")
    assert pacball.json("verify", NEW, "--root", root, code=1)["intact"] is False


def test_the_store_commands(pacball, store):
    checked = pacball.json("store", "check", "--store", store)
    assert set(checked) == CHECKED_STORE
    assert (checked["intact"], checked["damage"], checked["releases_checked"]) == (True, [], 2)
    assert "all is well" in pacball.text("store", "check", "--store", store)
    statistics = pacball.json("store", "stats", "--store", store)
    assert set(statistics) == STATISTICS
    assert statistics["releases"] == 2
    assert "packs_bytes" in pacball.text("store", "stats", "--store", store)
    indexed = pacball.json("store", "reindex", "--store", store)
    assert set(indexed) == CHECKED
    assert indexed["packs"] == statistics["packs"]


def test_damage_is_named_with_exit_code_1(pacball, store):
    packs = [path for path in (store / "public/packs").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    flip(pack, 1000)
    found = pacball.json("store", "check", "--store", store, code=1)
    assert found["intact"] is False
    (damage,) = [d for d in found["damage"] if "packs/" in d["place"]]
    assert pack.name in damage["place"]
    assert damage["fault"]
    assert set(found["releases"]) <= {OLD, NEW}
    text = pacball.text("store", "check", "--store", store, code=1)
    assert f"damaged: packs/{pack.name[:2]}/{pack.name}" in text
    assert f"damaged release: {found['releases'][0]}" in text
    assert pack.name in pacball.text("store", "reindex", "--store", store, code=1)


def test_the_catalog_is_refreshed(pacball, store):
    found = pacball.json("trust", "refresh", "--store", store, "--timestamp-days", 5)
    assert set(found) >= {"version", "expires"}
    days = (calendar.timegm(time.strptime(found["expires"], "%Y-%m-%dT%H:%M:%SZ")) - time.time()) / 86400
    assert 4.9 < days < 5.1
    again = pacball.json("trust", "refresh", "--store", store)
    assert again["version"] == found["version"] + 1


def errors(top, store, trees):
    """Command lines, their exit codes, and what their messages say."""
    (top / "empty").mkdir()
    write(top / "home/file", b"x")
    write(top / "config.d/pacball/config.toml", b"nonsense = 1")
    return {
        "no such release": (["show", "Demo-9.9-x", "--from", store], 3, "not_found", "Demo-9.9-x"),
        "no release name": (["show", "Demo-1.0+git-x", "--from", store], 7, "refused", "write Demo-1.0_git-x"),
        "a name without parts": (["show", "Demo", "--from", store], 7, "refused", "PROJECT-VERSION-PLATFORM"),
        "a name with dots": (["publish", trees[0], "Demo-1..0-x", "--to", store], 7, "refused", "write Demo-1.0-x"),
        "no source": (["list"], 7, "refused", "name a store directory or URL"),
        "no directory": (["list", "--from", top / "missing"], 3, "not_found", "is no directory"),
        "no store": (["list", "--from", top / "home"], 3, "not_found", "is not a pacball store"),
        "nothing to publish": (["publish", top / "empty", OLD, "--to", store], 7, "refused", "is empty"),
        "a missing tree": (
            ["publish", top / "missing", OLD, "--to", store],
            7,
            "refused",
            "is neither a directory nor a file",
        ),
        "another directory": (["publish", trees[0], OLD, "--to", top / "home"], 7, "refused", "neither empty nor"),
        "the store itself": (["publish", store, OLD, "--to", store], 7, "refused", "inside one another"),
        "case": (["publish", trees[0], "demo-1.0-x", "--to", store], 7, "refused", "case"),
        "no store to check": (["store", "check", "--store", top / "home"], 3, "not_found", "publish to it first"),
        "no store to serve": (["serve", "--store", top / "home"], 3, "not_found", "publish to it first"),
        "no address": (["serve", "--store", store, "--listen", "x"], 7, "refused", "x"),
        "no root keys": (["list", "--from", store, "--root-keys", top / "no"], 3, "not_found", "does not exist"),
        "wrong root keys": (
            ["list", "--from", store, "--root-keys", top / "home/file"],
            7,
            "refused",
            "is not a TUF root",
        ),
        "other state": (["publish", trees[0], OLD, "--to", store, "--state-dir", top / "s"], 7, "refused", "leave out"),
    }


def test_errors_are_one_sentence_one_object_and_a_code(pacball, store, tmp_path, trees):
    found = {}
    expected = {}
    for name, (command, code, kind, text) in errors(tmp_path, store, trees).items():
        result = pacball.json(*command, code=code)
        assert set(result) == ERROR, name
        expected[name] = (code, kind, True)
        said = f"{result['place']}: {result['message']} ({result['hint']})"
        found[name] = (result["exit_code"], result["error"], text in said or said)
        plain = pacball.run(*command)
        assert (plain.exit_code, plain.stdout) == (code, ""), name
        assert plain.stderr.splitlines()[-1].startswith("pacball: "), name
    assert found == expected


WRONG = (["publish"], ["list", "--nonsense"], ["nonsense"], ["publish", "a", "b", "--to", "c", "--level", "99"])


@pytest.mark.parametrize("command", WRONG)
def test_wrong_command_lines(pacball, command):
    result = pacball.run(*command)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_settings(pacball, store, tmp_path):
    config = write(
        tmp_path / "config/pacball/config.toml", f'source = "{store}"\nroot = "{tmp_path / "root"}"\n'.encode()
    )
    assert len(pacball.json("list")["releases"]) == 2
    assert pacball.json("install", OLD)["release"] == OLD
    for text, fault in (
        ("nonsense = 1", "known are"),
        ("source = 1", "must be a text"),
        ("=", "not TOML"),
        ("\0", "not TOML"),
    ):
        config.write_text(text)
        found = pacball.json("list", code=7)
        assert found["place"] == str(config)
        assert fault in found["message"] + found["hint"]


def test_a_newer_store_is_named(pacball, store, tmp_path, trees):
    (store / "public/store.json").write_bytes(b'{"format":2,"kind":"pacball store"}\n')
    for command in (
        ["list", "--from", store],
        ["install", OLD, "--from", store, "--root", tmp_path / "root"],
        ["store", "check", "--store", store],
        ["serve", "--store", store],
        ["publish", trees[0], OLD, "--to", store],
    ):
        found = pacball.json(*command, code=9)
        assert (found["error"], found["hint"]) == ("newer_format", "install a newer pacball")


def test_a_damaged_index_is_named_and_reindex_cures_it(pacball, store, tmp_path):
    tree = make_tree(tmp_path / "3", version="3", kib=300)
    (store / "private/index.sqlite").write_bytes(b"garbage" * 1000)
    for command in (["store", "stats", "--store", store], ["publish", tree, "Demo-1.2-x", "--to", store]):
        found = pacball.json(*command, code=4)
        assert "the index is damaged" in found["message"]
        assert found["hint"] == "run: pacball store reindex"
    assert pacball.json("store", "check", "--store", store, code=1)["releases"] == []
    pacball.json("store", "reindex", "--store", store)
    pacball.json("store", "check", "--store", store)
    assert pacball.json("publish", tree, "Demo-1.2-x", "--to", store)["bytes_new"] > 0


def test_a_read_only_store(pacball, shared_path, trees, monkeypatch):
    store = shared_path / "store"
    for tree, name in zip(trees, (OLD, NEW), strict=True):
        pacball.json("publish", shutil.copytree(tree, shared_path / name, symlinks=True), name, "--to", store,
                     "--keys", shared_path / "keys")  # fmt: skip
    # Whatever these import must be imported before: nobody may not read where Python is.
    pacball.json("diff", OLD, NEW, "--from", store)
    for words in (("show", OLD, "--from", store), ("store", "check", "--store", store), ("store", "stats", "--store", store),
                  ("store", "reindex", "--store", store)):  # fmt: skip
        pacball.json(*words)
    for directory, _, files in os.walk(store):
        os.chmod(directory, 0o555 if "private" not in directory else 0o500)
        for name in files:
            os.chmod(os.path.join(directory, name), 0o444)
    monkeypatch.setenv("PACBALL_SYSTEM_CONFIG_DIR", str(shared_path / "etc"))
    monkeypatch.setenv("XDG_STATE_HOME", str(shared_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(shared_path / "config"))
    (shared_path / "state").mkdir()

    def work():
        assert len(pacball.json("list", "--from", store)["releases"]) == 2
        pacball.json("show", OLD, "--from", store)
        pacball.json("diff", OLD, NEW, "--from", store)
        assert pacball.json("store", "check", "--store", store)["intact"]
        assert pacball.json("store", "stats", "--store", store)["chunks"] > 0
        refused = pacball.json("publish", shared_path / OLD, "Demo-1.2-x", "--to", store, code=6)
        pacball.json("store", "reindex", "--store", store, code=6)
        return refused["message"], refused["hint"]

    assert as_nobody(work, owner_of=shared_path) == ("cannot be written", "check permissions and mount options")


def test_the_state_of_a_store_elsewhere(pacball, tmp_path, trees):
    pacball.json("publish", trees[0], OLD, "--to", tmp_path / "store", "--state-dir", tmp_path / "local")
    assert (tmp_path / "local/index.sqlite").exists()
    pacball.json("publish", trees[1], NEW, "--to", tmp_path / "store")
    pacball.json("store", "check", "--store", tmp_path / "store")
    assert not list((tmp_path / "store/private").glob("index*"))


def test_warnings_go_to_standard_error(pacball, tmp_path):
    write(tmp_path / "tree/key", b"x").chmod(0o600)
    result = pacball.run("publish", tmp_path / "tree", OLD, "--to", tmp_path / "store", "--json")
    assert "a secret?" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_keys_that_are_missing_or_elsewhere(pacball, store, tmp_path, trees):
    (keys,) = (tmp_path / "config/pacball/keys").iterdir()
    elsewhere = keys.rename(tmp_path / "elsewhere")
    found = pacball.json("publish", trees[0], "Demo-1.2-x", "--to", store, code=3)
    assert "no key of this line is here" in found["message"]
    pacball.json("publish", trees[0], "Demo-1.2-x", "--to", store, "--keys", elsewhere)


def test_completion_and_help(pacball):
    for shell in ("bash", "zsh", "fish"):
        # Not --show-completion, which asks which shell its parent is: under make that is sh.
        result = pacball.process(_PACBALL_COMPLETE=f"source_{shell}")
        assert result.returncode == 0
        assert "_PACBALL_COMPLETE" in result.stdout
    offered = pacball.process(_PACBALL_COMPLETE="complete_bash", COMP_WORDS="pacball sto", COMP_CWORD="1")
    assert offered.stdout.split() == ["store"]
    text = pacball.text("--help")
    for name in ("publish", "list", "show", "diff", "install", "verify", "serve", "store", "trust", "withdraw"):
        assert name in text


def test_output_that_the_terminal_cannot_show(pacball, tmp_path):
    for version in ("1", "2"):
        write(tmp_path / version / "Grüße–日本", version.encode())
        pacball.json("publish", tmp_path / version, f"Demo-{version}-x", "--to", tmp_path / "store")
    result = pacball.process("diff", "Demo-1-x", "Demo-2-x", "--from", tmp_path / "store", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert r"~ Gr\xfc\xdfe\u2013\u65e5\u672c" in result.stdout


def test_a_name_that_is_no_text_is_shown_safely(pacball, tmp_path):
    write(tmp_path / "tree/good", b"")
    write(tmp_path / "tree" / os.fsdecode(b"bad\xff\x1b[31m"), b"")
    result = pacball.run("publish", tmp_path / "tree", OLD, "--to", tmp_path / "store")
    assert result.exit_code == 7
    assert r"bad\udcff\x1b[31m" in result.stderr
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("words", "into", "code"),
    [("--json", ">/dev/full", 6), ("", ">/dev/full", 6), ("", ">&-", 0), ("", "<&- >&- 2>&-", 0)],
)
def test_output_that_goes_nowhere_is_no_fault(store, words, into, code):
    """Of a full disk, or of a supervisor that closes what it does not read."""
    program = "from paccli.main import run; run()"
    paths = os.pathsep.join(path for path in sys.path if path)
    line = f'"{sys.executable}" -c "{program}" list --from "{store}" {words} {into}'
    done = subprocess.run(
        ["/bin/sh", "-c", line], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_a_reader_that_goes_away_is_no_error(pacball, store):
    command = f"'{sys.executable}' -c 'from paccli.main import run; run()' list --from '{store}' | true; echo ${{PIPESTATUS[0]}}"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    result = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_interrupted_publishes_say_so_and_leave_nothing_behind(pacball, tmp_path):
    for number in range(60):
        write(tmp_path / f"tree/f{number:02}", noise(f"{number}", 3_000_000))
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", "from paccli.main import run; run()", "publish", str(tmp_path / "tree"), OLD,
               "--to", str(tmp_path / "store"), "--level", "15"]  # fmt: skip
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=-1, stderr=-1, text=True) as process:
        while not list((tmp_path / "store").glob("public/packs/*/*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "pacball: interrupted; run the same command again to continue"
    assert "Traceback" not in said
    assert os.listdir(tmp_path / "store/private/staging") == []
    assert pacball.json("list", "--from", tmp_path / "store")["releases"] == []


def raise_in_a_command():
    with reporting(as_json=True):
        raise ZeroDivisionError("a fault")


def test_a_fault_of_ours_is_no_damage(capsys):
    with pytest.raises(SystemExit) as caught:
        raise_in_a_command()
    assert caught.value.code == 70
    said = capsys.readouterr()
    assert "ZeroDivisionError: a fault" in said.out
    assert "Traceback" in said.err
    assert "please report it" in said.err

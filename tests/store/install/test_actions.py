"""A release's own commands: what they find, what they may do, what is recorded, and that everything else fails cleanly.

Each is tried under Landlock, where the kernel has it, and without.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest

from pacstore.contain import landlock
from pacstore.errors import ActionFailed, Corrupt
from pacstore.install.actions.generated import has_record
from pacstore.install.options import Share
from pacstore.install.root.layout import Root
from pacstore.release import Release
from pacstore.tree import EntryKind
from tests.store.install.acting import Acting, declaration, make_release
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, look, put

LANDLOCK = landlock.version()
LINKED = 6
"""Bytes of files that are hard links to others, and are not counted as reused."""
LAST = "Sample-1.2-any"
PYC = "lib/**/__pycache__/**"
COMPILE = "python3 -m compileall -q lib"


@pytest.fixture(params=[LANDLOCK, 0], ids=["landlock", "plain"])
def acting(request, tmp_path):
    return Acting(tmp_path, landlock=request.param)


@pytest.fixture
def locked(tmp_path):
    assert LANDLOCK, "this kernel has no Landlock"
    return Acting(tmp_path)


def alive(marker: str) -> list[str]:
    """The processes with `marker` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def gone(marker: str) -> bool:
    deadline = time.monotonic() + 20
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(marker)


def test_what_is_generated_is_recorded(acting):
    tree = acting.publish(
        declaration(
            [PYC, "etc/setup.sh", "var/**", "bin/made*"],
            [
                f"{COMPILE}; sed -i s,@PREFIX@,$PACBALL_PREFIX, etc/setup.sh",
                "mkdir -p var/a/b; echo x > var/a/b/file; ln -s ../a var/a/link; cp bin/run bin/made; chmod 700 bin/made",
            ],
        )
    )
    done = acting.install()
    assert (done.actions, [(one.kind, one.name, one.passed) for one in done.ran]) == (
        "run",
        [("after_install", "a0", True), ("after_install", "a1", True)],
    )
    made = acting.record().paths
    kinds = {path: one.kind.name.lower() for path, one in made.items() if "__pycache__" not in path}
    assert kinds == {
        "bin/made": "executable",
        "etc/setup.sh": "file",
        "var": "directory",
        "var/a": "directory",
        "var/a/b": "directory",
        "var/a/b/file": "file",
        "var/a/link": "symlink",
    }
    assert sorted(path for path in made if path.endswith("__pycache__")) == [
        "lib/pkg/__pycache__",
        "lib/pkg/sub/__pycache__",
    ]
    assert (acting.top / "etc/setup.sh").read_text() == f"PREFIX={acting.top}\n"
    for path, one in made.items():
        found = (acting.top / path).lstat()
        if one.kind is not EntryKind.SYMLINK:
            expected = 0o644 if one.kind is EntryKind.FILE else 0o755
            assert (path, found.st_mode & 0o7777) == (path, expected)
        if one.kind.is_file:
            assert (one.bytes, found.st_nlink) == (found.st_size, 1)
    before, after = look(tree), look(acting.top)
    for path, expected in before.items():
        assert path in made or path == "linked" or after[path] == expected, path
    assert set(after) - set(before) == set(made) - {"etc/setup.sh"}
    assert acting.damage() == []
    (acting.top / "var/a/b/file").write_text("y\n")
    assert acting.damage() == [("var/a/b/file", "damaged")]
    assert os.listdir(acting.root / ".pacball/staging") == []
    assert acting.notes.warnings == []


def test_compiled_python_stays_valid(acting, tmp_path):
    """The interpreter takes the compiled files of a real package, and writes none of its own."""
    package = Path(sysconfig.get_path("stdlib")) / "json"
    tree = make_release(tmp_path / "with-json", declaration([PYC], [[sys.executable, "-m", "compileall", "-q", "lib"]]))
    shutil.copytree(package, tree / "lib/json", ignore=shutil.ignore_patterns("__pycache__"))
    acting.world.publish(tree)
    acting.install()
    before = sorted(acting.top.rglob("*.pyc"))
    assert len(before) >= 5
    code = "import sys; sys.path.insert(0, sys.argv[1]); import json.tool"
    loud = subprocess.run(
        [sys.executable, "-v", "-I", "-c", code, str(acting.top / "lib")], capture_output=True, text=True, check=True
    ).stderr
    for name in ("__init__", "decoder", "encoder", "scanner", "tool"):
        assert f"matches {acting.top}/lib/json/{name}.py" in loud
    assert sorted(acting.top.rglob("*.pyc")) == before


SEEN = """
import json, os, sys
descriptors = [n for n in range(256) if os.path.exists(f"/proc/self/fd/{n}")]
for place in ("HOME", "TMPDIR"):
    open(os.environ[place] + "/x", "w").close()
seen = {"env": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "umask": os.umask(0), "fds": descriptors}
seen |= {"stdin": sys.stdin.read(), "tmp": os.stat(os.environ["TMPDIR"]).st_mode & 0o777}
with open("etc/seen", "w") as file:
    json.dump(seen, file)
"""


def test_what_commands_find(acting):
    code = SEEN.replace("{", "{{").replace("}", "}}")
    words = ["python3", "-c", code, "a b", "{prefix}", "{staging}/{release}", "{{x}}", "$HOME;"]
    acting.publish(declaration(["etc/seen"], [words]))
    os.environ["SECRET_OF_THE_INSTALLER"] = "yes"
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        acting.install()
    finally:
        os.close(extra)
        del os.environ["SECRET_OF_THE_INSTALLER"]
    found = json.loads((acting.top / "etc/seen").read_text())
    staging = found["env"]["PACBALL_STAGING"]
    assert staging.startswith(f"{acting.root}/.pacball/staging/")
    assert found["argv"] == ["a b", str(acting.top), f"{staging}/{NAME}", "{x}", "$HOME;"]
    assert (found["cwd"], found["umask"], found["stdin"], found["tmp"]) == (staging, 0o022, "", 0o700)
    assert found["fds"] in ([0, 1, 2], [0, 1, 2, 3])
    assert {key: value for key, value in found["env"].items() if key.startswith("PACBALL_")} == {
        "PACBALL_PREFIX": str(acting.top),
        "PACBALL_STAGING": staging,
        "PACBALL_RELEASE": NAME,
        "PACBALL_PROJECT": "Sample",
        "PACBALL_VERSION": "1.0",
        "PACBALL_PLATFORM": "any",
    }
    assert set(found["env"]) - {"LC_CTYPE", *[k for k in found["env"] if k.startswith("PACBALL_")]} == {
        "PATH", "LANG", "HOME", "TMPDIR", "USER", "LOGNAME", "SHELL", "PYTHONDONTWRITEBYTECODE"}  # fmt: skip


def test_not_run_unless_asked_for_and_then_made_up_for(acting):
    acting.publish(declaration(["etc/new"], ["echo x > etc/new"]))
    done = acting.install(run=False)
    assert (done.actions, done.ran, acting.record(), acting.damage()) == ("not_run", (), None, [])
    again = acting.install(run=False)
    assert (again.actions, again.already_installed) == ("not_run", True)
    inode = acting.top.stat().st_ino
    later = acting.install()
    assert (later.actions, later.already_installed, later.switched) == ("run", False, False)
    assert later.bytes_reused == later.bytes_total - LINKED
    assert acting.top.stat().st_ino != inode
    assert (acting.top / "etc/new").read_text() == "x\n"
    assert set(acting.record().paths) == {"etc/new"}
    last = acting.install()
    assert (last.actions, last.already_installed, last.ran) == ("run_before", True, ())
    assert acting.install(run=False).actions == "run_before"
    assert os.listdir(acting.root / ".pacball/staging") == []


def test_what_commands_changed_is_no_seed(acting):
    """A release is not said to be damaged where its own commands changed it; all the rest of it is used."""
    acting.publish(declaration([PYC, "etc/setup.sh"], [f"{COMPILE}; echo x > etc/setup.sh"]))
    acting.install()
    acting.notes.warnings.clear()
    acting.publish(declaration(), NEXT)
    done = acting.install(NEXT)
    assert acting.notes.warnings == []
    toml = len((acting.root / "releases" / NEXT / "pacball.toml").read_bytes())
    assert done.bytes_reused == done.bytes_total - LINKED - toml - len("PREFIX=@PREFIX@\n")
    (acting.top / "lib/data").write_text("damaged")
    acting.publish(declaration(), LAST)
    acting.install(LAST)


def test_a_release_without_commands(acting):
    tree = acting.publish(declaration())
    (tree / "pacball.toml").unlink()
    acting.world.publish(tree)
    done = acting.install()
    assert (done.actions, acting.record()) == ("none", None)
    assert not (acting.root / ".pacball/logs").exists()


def test_only_checks(acting):
    acting.publish(declaration(["etc/new"], [], ["test -x bin/run", "./bin/run"]))
    done = acting.install()
    assert [(one.kind, one.passed) for one in done.ran] == [("validate", True), ("validate", True)]
    assert acting.record().paths == {}
    assert acting.damage() == []
    assert "running\n" in acting.log()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo last words; exit 3", "ended with exit code 3"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("exec /no/such/program", "ended with exit code 127"),
    ],
)
def test_a_command_that_fails(acting, script, said):
    acting.publish(declaration(["etc/new"], [f"echo x > etc/new; echo y >> etc/setup.sh || true; {script}"]))
    error = acting.fails()
    assert said in error.message
    assert "nothing was switched" in error.message
    assert Path(error.place).read_text() == acting.log()
    if "last words" in script:
        assert "a0: last words" in acting.notes.warnings
        assert "last words\npacball: it ended with exit code 3" in acting.log()


@pytest.mark.parametrize("words", [["/no/such/program"], ["no-such-program"], ["etc/setup.sh"]])
def test_a_program_that_cannot_be_started(acting, words):
    acting.publish(declaration([], [words]))
    error = acting.fails()
    assert "could not be started" in error.message
    assert words[0].rpartition("/")[2] in error.message


def test_after_a_failure_the_next_starts_clean_and_reuses(acting):
    """What the first attempt generated does not come back; what was verified is not fetched again."""
    flag = acting.home / "works now"
    script = (
        f"test ! -e etc/new; echo x > etc/new; mkdir -p var/a; chmod 0 var/a; echo y > etc/setup.sh; test -e '{flag}'"
    )
    acting.publish(declaration(["etc/new", "etc/setup.sh", "var/**"], [script]))
    acting.fails()
    assert len(os.listdir(acting.root / ".pacball/staging")) == 1
    flag.touch()
    done = acting.install()
    assert done.bytes_reused >= done.bytes_total - LINKED - len("PREFIX=@PREFIX@\n")
    assert (acting.top / "etc/setup.sh").read_text() == "y\n"
    assert set(acting.record().paths) == {"etc/new", "etc/setup.sh", "var/a"} | {"var"}
    assert os.listdir(acting.root / ".pacball/staging") == []


def test_a_command_that_runs_for_ever(acting, tmp_path):
    """It ignores the request to end, and so do its children in sessions of their own; all are killed."""
    marker = f"31{os.getpid()}.{tmp_path.stat().st_ino}"
    below = f"trap '' TERM; sleep {marker}; sleep {marker}"
    script = f"trap '' TERM INT HUP; (setsid sh -c \"{below}\" &); while :; do sleep {marker}; done"
    acting.publish(declaration([], [script], timeout="1s"))
    error = acting.fails()
    assert "had not ended" in error.message
    assert gone(marker)


def test_what_a_command_leaves_running_is_ended(acting, tmp_path):
    marker = f"32{os.getpid()}.{tmp_path.stat().st_ino}"
    script = (
        f"(setsid sh -c 'setsid sleep {marker} & sleep {marker}' >/dev/null 2>&1 &); setsid sleep {marker} & exit 0"
    )
    acting.publish(declaration([], [script]))
    acting.install()
    assert not alive(marker)
    assert any("left running were ended" in warning for warning in acting.notes.warnings)


def test_a_log_that_grows_without_end(acting):
    acting.log_bytes = 100_000
    acting.publish(declaration([], ["head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end"]))
    acting.install()
    assert len(acting.log()) < 102_000
    assert "2,900,009 further bytes of output were dropped" in acting.log()


def test_escape_sequences_are_shown_as_what_they_are(acting):
    acting.publish(declaration([], ["printf 'a\\033[31mred\\007\\n\\377\\n'; exit 1"]))
    acting.fails()
    assert acting.notes.warnings == ["a0: a\\x1b[31mred\\x07", "a0: \\xff"]


DEEP = """
import os
os.chdir("var")
for _ in range(300):
    os.mkdir("d")
    os.chdir("d")
"""
UNDECLARED = {
    "a changed file": ("echo x >> lib/data", "lib/data"),
    "a changed file with its old time": ("echo x >> lib/data; touch -d @1500000000 lib/data", "lib/data"),
    "same size, same time": ("printf XX | dd of=lib/data conv=notrunc status=none; touch -d @1500000000 lib/data", "lib/data"),
    "a replaced file": ("cp lib/data $TMPDIR/x; echo x >> $TMPDIR/x; mv $TMPDIR/x lib/data", "lib/data"),
    "its own declaration": ("echo >> pacball.toml", "pacball.toml"),
    "a removed file": ("rm -f lib/data", "lib/data"),
    "a removed directory": ("rm -rf lib/pkg/sub", "lib/pkg/sub"),
    "a new file": ("touch lib/new", "lib/new"),
    "a new file at the top": ("touch new", "new"),
    "a new directory": ("mkdir lib/new", "lib/new"),
    "another mode": ("chmod 600 lib/data", "lib/data"),
    "another mode of a directory": ("chmod 700 lib/pkg", "lib/pkg"),
    "another time": ("touch lib/data", "lib/data"),
    "another target": ("ln -sfn elsewhere lib/link", "lib/link"),
    "a link in place of a file": ("rm lib/data; ln -s again lib/data", "lib/data"),
    "a link in place of a directory": ("mv lib/pkg etc/pkg; ln -s ../etc/pkg lib/pkg", "lib/pkg"),
    "a directory in place of a file": ("rm lib/data; mkdir lib/data", "lib/data"),
    "a setuid file": ("cp bin/run etc/gen-x; chmod 4755 etc/gen-x", "etc/gen-x is a setuid"),
    "a setgid file": ("cp bin/run etc/gen-x; chmod 2755 etc/gen-x", "etc/gen-x is a setuid"),
    "a FIFO": ("mkfifo etc/gen-x", "etc/gen-x is a device, FIFO or socket"),
    "a socket": ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"etc/gen-x\")'", "etc/gen-x is a device"),
    "a hostile name": ("touch \"$(printf 'etc/gen-\\033')\"", "etc/gen-\\x1b"),
    "a name that is no text": ("touch \"$(printf 'etc/gen-\\377')\"", "etc/gen-\\xff"),
    "a directory where a file is declared": ("mkdir etc/gen-x; touch etc/gen-x/y", "etc/gen-x/y"),
    "a declared file that became a directory": ("rm etc/setup.sh; mkdir etc/setup.sh", "etc/setup.sh became a directory"),
    "a declared file that is gone": ("rm etc/setup.sh", "etc/setup.sh was removed"),
    "a tree that is too deep": (f"python3 -c '{DEEP}'", "lies more than 200 directories deep"),
    "a directory moved to a declared place": ("mv lib/pkg var/pkg; ln -s ../var/pkg lib/pkg", "lib/pkg is no directory"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNDECLARED)
def test_whatever_is_not_declared_fails(tmp_path, what):
    """Without help from the kernel it is found afterwards; the path is named, and nothing of it is kept."""
    acting = Acting(tmp_path, landlock=0)
    script, named = UNDECLARED[what]
    acting.publish(declaration(["etc/gen-*", "etc/setup.sh", "var/**"], [script]))
    error = acting.fails()
    assert named in error.message, error.message
    assert "wrote where they may not" in error.message
    assert "pacball.toml" in error.hint
    (acting.home / f"tree-{NAME}/pacball.toml").write_text(declaration(["etc/gen-*"], []))
    acting.world.publish(acting.home / f"tree-{NAME}")
    acting.install()
    assert acting.damage() == []
    assert os.listdir(acting.root / ".pacball/staging") == []


REFUSED = [
    "echo x >> lib/data", "printf XX | dd of=lib/data conv=notrunc status=none", "cp etc/other.conf lib/data",
    "mv var/x lib/data", "echo >> pacball.toml", "rm -f lib/data", "rm -r lib/pkg/sub", "touch lib/new", "touch new",
    "mkdir lib/new", "ln -sfn elsewhere lib/link", "mv lib/pkg var/pkg", "ln lib/data lib/linked", "mkfifo var/fifo",
    "ln etc/other.conf ../linked", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"var/socket\")'",
    "truncate -s 0 lib/data", "mknod var/null c 1 3", "mount -t tmpfs none var",
]  # fmt: skip


def test_the_kernel_refuses_what_is_not_declared(locked):
    tries = "; ".join(f"({script}) && echo could {number}" for number, script in enumerate(REFUSED))
    tree = locked.publish(declaration(["var/**"], [f"set +e; echo x > var/x; {tries}; true"]))
    locked.install()
    assert "could" not in "".join(line for line in locked.log().splitlines() if not line.startswith("pacball: "))
    assert set(locked.record().paths) == {"var", "var/x"}
    after = look(locked.top)
    assert {path for path, found in look(tree).items() if after[path] != found} == set()


def test_many_faults_are_counted(acting):
    acting.landlock = 0
    acting.publish(declaration([], ["for n in $(seq 50); do touch lib/new$n; done"]))
    assert "; and 40 more; nothing was switched" in acting.fails().message


@pytest.mark.parametrize(
    "script",
    [
        "echo x > {out}/file",
        "ln -s {out} var/out; echo x > var/out/file",
        "ln -s {out}/precious var/out; echo x > var/out",
        "echo x > ../../../../../out/file",
        "rm {out}/precious",
        "mv {out}/precious var/taken",
        "ln {out}/precious var/linked; echo x > var/linked",
        "mkdir {out}/dir",
        "ln -s x {out}/link",
        "truncate -s 0 {out}/precious",
        "echo x > ../owner.json",
        "echo x > ../../../manifests/x",
        "mv ../../../../current ../../../../gone",
        "mkdir var/d; cd var/d; mv ../d ../../../escaped",
    ],
)
def test_nothing_outside_can_be_written(locked, script):
    out = locked.home / "out"
    out.mkdir()
    (out / "precious").write_text("precious")
    locked.publish(declaration(["var/**"], [f"({script.replace('{out}', str(out))}) || echo cannot"]))
    try:
        locked.install()
    except ActionFailed:
        assert "hard link" in script or "ln " in script
    assert [path.name for path in out.iterdir()] == ["precious"]
    assert (out / "precious").read_text() == "precious"
    assert (out / "precious").stat().st_nlink == 1
    assert "cannot" in locked.log()
    assert sorted(path.name for path in locked.root.iterdir() if path.name != ".pacball") == ["current", "releases"]


def test_other_releases_cannot_be_written(locked):
    locked.publish(declaration(), NEXT)
    locked.install(NEXT)
    before = look(locked.root / "releases" / NEXT)
    other = locked.root / "releases" / NEXT
    locked.publish(
        declaration(["var/**"], [f"for f in {other}/lib/data {other}/new; do echo x > $f || echo cannot; done"])
    )
    locked.install()
    assert look(other) == before
    assert locked.log().count("cannot\n") == 2


def test_the_installer_cannot_be_signalled(locked):
    assert LANDLOCK >= 6, "this kernel's Landlock does not guard against signals"
    locked.publish(declaration([], [f"kill -0 {os.getpid()} && echo reached; kill -9 $PPID && echo reached; true"]))
    locked.install()
    assert "reached\n" not in locked.log()


def test_a_shared_file_is_not_written_through(acting):
    """A generated path that is a hard link becomes a file of its own before commands see it."""
    acting.publish(declaration(["etc/other.conf"], ["echo more >> etc/other.conf"]))
    acting.install()
    assert (acting.top / "etc/other.conf").read_text() == "other\nmore\n"
    assert (acting.top / "etc/linked.conf").read_text() == "other\n"
    assert set(acting.record().paths) == {"etc/other.conf"}


SHARED = ["bin/run", "etc/linked.conf", "etc/other.conf", "etc/setup.sh", "lib/again", "lib/data", "lib/pkg/sub/mod.py"]


def inodes(top):
    return {name: (top / name).stat().st_ino for name in SHARED}


def test_what_releases_share_is_not_written_through(acting):
    """Of two releases that share files by hard links, commands of the one change nothing of the other."""
    acting.share = Share.HARDLINK
    acting.publish(declaration(), NEXT)
    acting.install(NEXT)
    other = acting.root / "releases" / NEXT
    before, was = look(other), inodes(other)
    script = "echo x >> etc/setup.sh; for f in etc/linked.conf lib/data; do chmod u+w $f; echo x >> $f || true; done"
    acting.publish(declaration(["etc/setup.sh"], [script]))
    with pytest.raises(ActionFailed, match=r"etc/linked.conf was changed"):
        acting.install()
    assert look(other) == before
    shutil.rmtree(acting.home / f"tree-{NAME}")
    acting.publish(declaration(["etc/setup.sh"], ["echo x >> etc/setup.sh"], ["bin/run"]), LAST)
    acting.install(LAST)
    assert look(other) == before
    assert inodes(other) == was
    assert acting.damage(LAST) == acting.damage(NEXT) == []
    assert inodes(acting.root / "releases" / LAST)["etc/setup.sh"] != was["etc/setup.sh"]


def test_a_hard_link_that_is_generated_becomes_a_copy(acting):
    acting.publish(
        declaration(["etc/gen-*"], ["ln etc/other.conf etc/gen-1; echo x > etc/gen-2; ln etc/gen-2 etc/gen-3"])
    )
    acting.install()
    inodes = {(acting.top / f"etc/gen-{n}").stat().st_ino for n in (1, 2, 3)} | {
        (acting.top / "etc/other.conf").stat().st_ino
    }
    assert len(inodes) == 4
    assert [made.bytes for made in acting.record().paths.values()] == [6, 2, 2]


def test_a_file_that_is_rewritten_as_it_was(acting):
    tree = acting.publish(
        declaration(["etc/*"], ["cp etc/setup.sh etc/x; mv etc/x etc/setup.sh; touch etc/other.conf"])
    )
    acting.install()
    assert acting.record().paths == {}
    assert acting.damage() == []
    assert look(acting.top)["etc/setup.sh"] == look(tree)["etc/setup.sh"]


def test_directories_that_stay_empty_are_removed(acting):
    acting.publish(
        declaration([PYC, "var/cache/**", "opt/*/x/y"], ["find . -name __pycache__ | sort; mkdir -p opt/a/b/c"])
    )
    acting.landlock = 0
    error = acting.fails()
    assert "opt/a/b was made, which is not declared" in error.message
    assert acting.log().count("__pycache__\n") == 3
    shutil.rmtree(acting.home / f"tree-{NAME}")
    acting.publish(declaration([PYC, "var/cache/**", "opt/*/x/y"], ["mkdir -p opt/a/x"]), NEXT)
    acting.install(NEXT)
    assert (acting.record(NEXT).paths, acting.damage(NEXT)) == ({}, [])


def test_a_release_that_does_not_validate(acting):
    acting.publish(declaration(["etc/new"], ["echo 1 > etc/new"], ["cat etc/new", "grep -q 2 etc/new", "echo never"]))
    error = acting.fails()
    assert "v1 (validate)" in error.message
    assert "ended with exit code 1" in error.message
    assert "never\n" not in acting.log()


def test_a_check_that_writes(acting):
    """Checks may write nowhere, not even to what was generated."""
    script = (
        "echo x > etc/new || echo cannot; python3 -B -c 'import sys; sys.path.insert(0, \"lib\"); import pkg.sub.mod'"
    )
    acting.publish(declaration(["etc/new", PYC], ["echo 1 > etc/new"], [script]))
    if acting.landlock:
        acting.install()
        assert "cannot" in acting.log()
        assert (acting.top / "etc/new").read_text() == "1\n"
    else:
        assert "etc/new was changed by a command that may not" in acting.fails().message


def test_a_check_that_adds_to_what_was_generated(acting):
    acting.landlock = 0
    acting.publish(declaration(["var/**"], ["mkdir var/a; touch var/a/b"], ["touch var/a/c"]))
    assert "var/a was changed by a command that may not" in acting.fails().message


def test_a_broken_declaration_is_found_before_anything_runs(acting):
    acting.publish("format = 1\nsurprise = 1\n")
    with pytest.raises(Exception, match="surprise"):
        acting.install()
    assert acting.install(run=False).actions == "not_run"
    assert not (acting.root / ".pacball/logs").exists()


def test_a_command_that_fills_the_tree(acting, monkeypatch):
    monkeypatch.setattr("pacstore.install.actions.harvest.PATHS", 10)
    acting.publish(declaration(["var/**"], ["for n in $(seq 20); do touch var/$n; done"]))
    assert "is beyond the 10 paths that may be generated" in acting.fails().message


def test_two_installers_at_once(acting):
    """Each in its own staging; what is installed and what is recorded are of the same one."""
    acting.publish(declaration(["etc/new"], ["head -c 16 /dev/urandom > etc/new; sleep 0.2"]))
    barrier = threading.Barrier(2)
    done = []

    def run():
        barrier.wait()
        done.append(put(acting.world.catalog[NAME], FakeSource(acting.world), acting.root, Notes(), acting.options()))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    with Root.open(acting.root) as root:
        assert has_record(root, Release.parse(NAME))
    made = acting.record().paths["etc/new"]
    assert made.digest.of((acting.top / "etc/new").read_bytes()) == made.digest
    assert os.listdir(acting.root / ".pacball/staging") == []


def test_a_record_of_a_tree_that_is_gone(acting):
    acting.publish(declaration(["etc/new"], ["echo x > etc/new"]))
    acting.install()
    shutil.rmtree(acting.top)
    (acting.root / f".pacball/manifests/{NAME}.manifest").unlink()
    assert acting.install(run=False).actions == "not_run"
    assert (acting.record(), acting.damage()) == (None, [])


INSTALL = """
import sys, time
from pathlib import Path
from tests.store.install.acting import Acting
acting = Acting(Path(sys.argv[1]), landlock=int(sys.argv[2]))
acting.publish(Path(sys.argv[3]).read_text())
print("installing", flush=True)
acting.install()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_installer_that_is_killed_leaves_no_processes(acting, how, tmp_path):
    """And the next one continues: with a clean tree, and what was verified is used again."""
    marker = f"33{os.getpid()}.{tmp_path.stat().st_ino}"
    flag = tmp_path / "again"
    script = (
        f"if [ -e '{flag}' ]; then test ! -e etc/new; echo ok > etc/new; exit 0; fi; "
        "echo bad > etc/new; echo bad > etc/setup.sh; "
        f"trap '' TERM INT; (setsid sleep {marker} &); echo started; while :; do sleep {marker}; done"
    )
    text = declaration(["etc/new", "etc/setup.sh"], [script])
    (tmp_path / "toml").write_text(text)
    argv = [sys.executable, "-c", INSTALL, str(tmp_path), str(acting.landlock), str(tmp_path / "toml")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        # The shell, and both that sleep: a shell that has forked and not become anything else yet counts once more.
        deadline = time.monotonic() + 60
        while len(alive(f"sleep\0{marker}\0")) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(alive(f"sleep\0{marker}\0")) == 2
        process.send_signal(how)
        process.wait(30)
    assert process.returncode != 0
    assert gone(marker)
    assert not acting.top.exists()
    flag.touch()
    tree = tmp_path / f"tree-{NAME}"
    acting.world.publish(tree)
    done = acting.install()
    assert done.bytes_reused >= done.bytes_total - 100
    assert (acting.top / "etc/new").read_text() == "ok\n"
    assert set(acting.record().paths) == {"etc/new"}
    assert acting.damage() == []


def test_a_race_for_the_directories_that_are_checked(tmp_path):
    """Someone swaps generated directories with links to elsewhere while they are taken back: nothing elsewhere changes."""
    acting = Acting(tmp_path, landlock=0)
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/precious").write_text("precious")
    (outside / "precious").write_text("precious")
    for path in (outside, outside / "sub", outside / "precious", outside / "sub/precious"):
        path.chmod(0o700)
    script = "for d in $(seq 40); do mkdir -p var/$d/sub; for f in 1 2 3; do echo x > var/$d/sub/$f; done; done; touch var/done"
    acting.publish(declaration(["var/**"], [script]))
    stop = threading.Event()

    def swap():
        number = 0
        while not stop.is_set():
            for done in acting.root.glob(".pacball/staging/*/tree/var/done"):
                tree = done.parent
                number = number % 40 + 1
                try:
                    (tree / str(number)).rename(tmp_path / f"taken-{time.monotonic_ns()}")
                    (tree / str(number)).symlink_to(outside)
                except OSError:
                    continue

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for _ in range(3):
            try:
                acting.install()
            except (ActionFailed, Corrupt):
                continue
            shutil.rmtree(acting.top)
    finally:
        stop.set()
        attacker.join()
    assert {path.stat().st_mode & 0o777 for path in [outside, *outside.rglob("*")]} == {0o700}
    assert sorted(path.relative_to(outside).as_posix() for path in outside.rglob("*")) == [
        "precious",
        "sub",
        "sub/precious",
    ]
    assert (outside / "precious").read_text() == "precious"

"""As root, a release's own commands run as somebody else: what is handed over to them, and that all is taken back."""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pacstore.contain import landlock
from pacstore.contain.running import User
from pacstore.errors import ActionFailed
from pacstore.install.actions.validation import validate
from pacstore.install.options import Share
from pacstore.release import Release
from tests.store.install.acting import Acting, declaration
from tests.store.install.world import NAME, NEXT, look

pytestmark = pytest.mark.root
LANDLOCK = landlock.version()
PYC = "lib/**/__pycache__/**"
COLLEAGUE = "import glob,os,sys,time; os.setgroups([]); os.setgid(65534); os.setuid(65534); exec(sys.argv[1])"


@pytest.fixture
def nobody():
    found = pwd.getpwnam("nobody")
    return User("nobody", found.pw_uid, found.pw_gid)


@pytest.fixture(params=[LANDLOCK, 0], ids=["landlock", "plain"])
def acting(request, nobody):
    """A place that nobody can reach, unlike those of pytest."""
    home = Path(tempfile.mkdtemp(prefix="pacball-actions-"))
    home.chmod(0o755)
    try:
        yield Acting(home, user=nobody, landlock=request.param)
    finally:
        shutil.rmtree(home)


def owners(top: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in [top, *top.rglob("*")]}


def modes(top: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in [top, *top.rglob("*")] if not path.is_symlink()}


def test_all_is_taken_back(acting):
    script = (
        "id -un; id -Gn; python3 -m compileall -q lib; sed -i s,@PREFIX@,$PACBALL_PREFIX, etc/setup.sh; "
        "mkdir -p var/a; umask 0; echo x > var/a/open; chmod 666 var/a/open; mkdir var/b; chmod 1777 var/b; ln -s x var/b/link; "
        "ls -ld . etc lib lib/pkg lib/pkg/__pycache__ lib/data etc/setup.sh"
    )
    tree = acting.publish(declaration([PYC, "etc/setup.sh", "var/**"], [script]))
    acting.install()
    assert "nobody\nnogroup\n" in acting.log()
    for name, who in {
        "etc": "nobody",
        "lib": "root",
        "lib/pkg": "root",
        "lib/data": "root",
        "etc/setup.sh": "nobody",
    }.items():
        assert [line.split()[2] for line in acting.log().splitlines() if line.endswith(f" {name}")] == [who]
    assert owners(acting.top) == {(0, 0)}
    assert modes(acting.top) == {0o755, 0o644}
    before, after = look(tree), look(acting.top)
    assert {path for path in before if before[path] != after[path]} == {"etc/setup.sh"}
    assert "lib/pkg/sub/__pycache__" in acting.record().paths
    assert os.listdir(acting.root / ".pacball/staging") == []


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("echo x >> lib/data", None),
        ("rm -f lib/data", None),
        ("touch lib/new", None),
        ("mv lib/pkg var/pkg", None),
        ("chmod 700 lib/data", None),
        ("touch lib/data", None),
        ("echo x >> pacball.toml", None),
        ("echo x > /etc/pacball-was-here", None),
        ("echo x > ../owner.json", None),
        ("ls ..", None),
        ("ls ../..", None),
        ("cat ../owner.json", None),
        ("ls {root}/.pacball", None),
        ("cat {root}/.pacball/history.jsonl", None),
        ("mv ../tree ../gone", None),
        ("touch ../new", None),
        ("echo x >> etc/other.conf", None),
        ("cat /etc/shadow", None),
        ("kill -9 {pid}", None),
        ("su -c true", None),
        ("rm -f etc/other.conf", "etc/other.conf was removed"),
        ("cp etc/other.conf var/x; rm -f etc/other.conf; cp var/x etc/other.conf", "etc/other.conf was replaced"),
        ("touch etc/new", "etc/new was made"),
        ("mv etc/other.conf etc/setup.sh", "etc/setup.sh is a hard link to a file of somebody else"),
        ("cp bin/run var/x; chmod 4755 var/x", "var/x is a setuid"),
        ("mkfifo var/fifo", "var/fifo is a device"),
        ("chmod 777 etc; mkdir var/a; chmod 0 var/a", ""),
    ],
)
def test_only_what_is_declared_is_handed_over(acting, script, named):
    """`named`: None where the user is refused it, else what is found afterwards; empty where it is nothing bad."""
    acting.publish(declaration([], []), NEXT)
    acting.install(NEXT)
    script = script.replace("{root}", str(acting.root)).replace("{pid}", str(os.getpid()))
    if "fifo" in script:
        acting.landlock = 0
    acting.publish(declaration(["etc/setup.sh", "var/**"], [f"({script}) || echo cannot"]))
    if named is None:
        acting.install()
        assert "cannot\n" in acting.log()
        assert acting.record().paths == {}
    elif not named:
        acting.install()
    else:
        shutil.rmtree(acting.root / "current")
        assert named in acting.fails().message
    assert not Path("/etc/pacball-was-here").exists()
    for path in (acting.root / ".pacball").iterdir():
        assert path.stat().st_uid == 0


def test_a_file_of_somebody_else_is_not_published(acting):
    """Where the kernel lets everybody link to everything: its content stays secret."""
    guard = Path("/proc/sys/fs/protected_hardlinks")
    before = guard.read_text()
    guard.write_text("0")
    secret = acting.home / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    acting.landlock = 0
    try:
        acting.publish(declaration(["var/**"], [f"ln {secret} var/mine"]))
        assert "var/mine is a hard link to a file of somebody else" in acting.fails().message
    finally:
        guard.write_text(before)
    assert (secret.stat().st_mode & 0o777, secret.stat().st_uid) == (0o600, 0)


def test_a_directory_of_somebody_else_is_not_opened(acting, nobody):
    """Moved in with a directory of theirs, in which it lies: its mode and owner are as before, so it stays closed to them."""
    acting.landlock = 0
    theirs = acting.home / "theirs"
    (theirs / "closed").mkdir(parents=True)
    (theirs / "closed/secret").write_text("secret")
    (theirs / "closed").chmod(0o700)
    for path, owner in ((theirs, nobody.uid), (theirs / "closed", 12345), (theirs / "closed/secret", 12345)):
        os.chown(path, owner, owner)
    acting.home.chmod(0o777)
    acting.publish(declaration(["var/**"], [f"mv {theirs} var/theirs"]))
    assert "var/theirs/closed is a directory of somebody else" in acting.fails().message
    [attempt] = (acting.root / ".pacball/staging").iterdir()
    closed = (attempt / "tree/var/theirs/closed").stat()
    assert (closed.st_uid, stat.S_IMODE(closed.st_mode)) == (12345, 0o700)


def test_a_directory_that_was_exchanged_is_not_opened(acting, nobody):
    """One of somebody else, in the place of one that was handed over."""
    acting.landlock = 0
    theirs = acting.home / "theirs"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    os.chown(theirs, 12345, 12345)
    acting.home.chmod(0o777)
    acting.publish(declaration(["lib/**"], [f"mv lib/pkg lib/gone; mv {theirs} lib/pkg"]))
    assert "lib/pkg is a directory of somebody else" in acting.fails().message
    [attempt] = (acting.root / ".pacball/staging").iterdir()
    there = (attempt / "tree/lib/pkg").stat()
    assert (there.st_uid, stat.S_IMODE(there.st_mode)) == (12345, 0o777)


def test_access_lists_do_not_stay(acting):
    code = (
        "import os,struct; e=lambda t,p,i: struct.pack('<HHI',t,p,i); n=0xffffffff; "
        "acl=struct.pack('<I',2)+e(1,7,n)+e(2,7,65534)+e(4,7,n)+e(16,7,n)+e(32,5,n); "
        "os.setxattr('var','system.posix_acl_access',acl); os.setxattr('var','system.posix_acl_default',acl)"
    )
    acting.publish(declaration(["var/**"], [["python3", "-c", code.replace("{", "{{")], "echo x > var/file"]))
    acting.install()
    for path in (acting.top / "var", acting.top / "var/file"):
        assert not [name for name in os.listxattr(path) if "acl" in name]
    assert modes(acting.top) == {0o755, 0o644}


def test_a_colleague_who_holds_a_file_open(acting):
    """Another process of that user, which no warden knows, has a generated file open for writing: it writes to no release."""
    ready = acting.home / "ready"
    ready.mkdir()
    ready.chmod(0o777)
    code = (
        "deadline=time.time()+60\n"
        "held=None\n"
        "while held is None and time.time()<deadline:\n"
        f"  for p in glob.glob('/proc/[0-9]*/cwd'):\n"
        "    try: held=os.open(p+'/var/file',os.O_WRONLY); where=os.open(p+'/var',os.O_RDONLY)\n"
        "    except OSError: pass\n"
        f"open('{ready}/held','w').close()\n"
        f"while not os.path.exists('{ready}/installed'): time.sleep(0.02)\n"
        "os.pwrite(held,b'evil',0)\n"
        "try: os.close(os.open('new',os.O_CREAT|os.O_WRONLY,dir_fd=where)); print('made')\n"
        "except OSError as error: print('refused')\n"
    )
    script = f"echo good > var/file; while [ ! -e {ready}/held ]; do sleep 0.05; done"
    acting.publish(declaration(["var/**"], [script]))
    with subprocess.Popen(["python3", "-c", COLLEAGUE, code], stdout=subprocess.PIPE, text=True) as colleague:
        acting.install()
        assert (ready / "held").exists()
        (ready / "installed").touch()
        said, _ = colleague.communicate(timeout=30)
    assert said == "refused\n"
    assert (acting.top / "var/file").read_text() == "good\n"
    assert [path.name for path in (acting.top / "var").iterdir()] == ["file"]


def test_a_race_of_a_colleague_with_the_taking_back(acting, nobody):
    """While root takes the tree back, a process of that user swaps directories with links: nothing elsewhere changes hands."""
    outside = acting.home / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/precious").write_text("precious")
    acting.landlock = 0
    for path in [outside, *outside.rglob("*")]:
        path.chmod(0o700)
    script = (
        "for d in $(seq 30); do mkdir -p var/$d/sub; touch var/$d/sub/1 var/$d/sub/2; done; touch var/done; sleep 0.1"
    )
    acting.publish(declaration(["var/**"], [script]))
    code = (
        f"out='{outside}'\n"
        "seen=[]\n"
        "while True:\n"
        "  for p in glob.glob('/proc/[0-9]*/cwd'):\n"
        "    try: seen.append(os.open(p+'/var',os.O_RDONLY))\n"
        "    except OSError: pass\n"
        "  for at in seen[-3:]:\n"
        "    for n in range(1,31):\n"
        "      try:\n"
        "        os.stat('done',dir_fd=at)\n"
        "        os.rename(str(n),f'moved{n}',src_dir_fd=at,dst_dir_fd=at)\n"
        "        os.symlink(out,str(n),dir_fd=at); print(n,flush=True)\n"
        "      except OSError: pass\n"
        "  for fd in seen[:-3]: os.close(fd)\n"
        "  seen=seen[-3:]\n"
    )
    with subprocess.Popen(["python3", "-c", COLLEAGUE, code], stdout=subprocess.PIPE) as colleague:
        try:
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                with contextlib.suppress(ActionFailed):
                    acting.install()
                    shutil.rmtree(acting.top)
            assert colleague.poll() is None
        finally:
            colleague.kill()
        assert len(colleague.stdout.read().split()) > 30
    assert {path.lstat().st_uid for path in [outside, *outside.rglob("*")]} == {0}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in [outside, *outside.rglob("*")]} == {0o700}
    assert (outside / "sub/precious").read_text() == "precious"


def test_with_an_owner(acting):
    """Everything belongs to the owner in the end, whoever ran the commands."""
    acting.owner = (12345, 23456)
    acting.publish(declaration([PYC, "etc/setup.sh"], ["python3 -m compileall -q lib; echo y > etc/setup.sh"]))
    acting.install()
    assert owners(acting.top) == {(12345, 23456)}
    assert len(acting.record().paths) == 5


def test_after_a_kill_nothing_of_theirs_is_taken_over(acting):
    """What they had is removed; what is root's is moved."""
    flag = acting.home / "works"
    script = f"echo x > etc/setup.sh; echo x > var/file; cp lib/data var/data; test -e {flag}"
    acting.publish(declaration(["etc/setup.sh", "var/**"], [script]))
    acting.fails()
    [attempt] = (acting.root / ".pacball/staging").iterdir()
    assert (65534, 65534) in owners(attempt)
    assert stat.S_IMODE(attempt.stat().st_mode) == 0o700
    inode = (attempt / "tree/lib/data").stat().st_ino
    flag.touch()
    acting.install()
    assert (acting.top / "lib/data").stat().st_ino == inode
    assert owners(acting.top) == {(0, 0)}


def test_a_place_that_the_user_cannot_reach(acting):
    acting.home.chmod(0o700)
    acting.publish(declaration([], ["true"]))
    error = acting.fails()
    assert "could not be started: Permission denied" in error.message
    assert str(acting.root) in error.message


def test_two_at_once(acting):
    acting.publish(declaration(["var/**"], ["head -c 9 /dev/urandom > var/file; sleep 0.2"]))
    threads = [threading.Thread(target=acting.install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = acting.record().paths["var/file"]
    assert made.digest.of((acting.top / "var/file").read_bytes()) == made.digest
    assert owners(acting.top) == {(0, 0)}


def test_what_releases_share(acting):
    """Nothing of root's is written by anybody else, so all stays shared but what is handed over."""
    acting.share = Share.HARDLINK
    acting.publish(declaration(), NEXT)
    acting.install(NEXT)
    other = acting.root / "releases" / NEXT
    before = look(other)
    acting.publish(declaration(["etc/*.conf"], ["echo x >> etc/other.conf; echo y >> etc/linked.conf"]))
    acting.install()
    assert look(other) == before
    assert (acting.top / "lib/data").stat().st_ino == (other / "lib/data").stat().st_ino
    assert {(acting.top / name).read_text() for name in ("etc/other.conf", "etc/linked.conf")} == {
        "other\nx\n",
        "other\ny\n",
    }
    assert owners(other) == {(0, 0)}
    assert acting.damage(NEXT) == []


def test_validation_as_somebody_else(acting):
    acting.publish(
        declaration(
            [],
            [],
            ["id -un; touch $HOME/x $TMPDIR/y; (echo x >> lib/data) || echo cannot; rm -f lib/data || echo cannot"],
        )
    )
    acting.install()
    shutil.rmtree(acting.root / ".pacball/logs")
    found = validate(
        acting.root, Release.parse(NAME), options=acting.options().actions, progress=acting.notes, now=time.time
    )
    assert found.passed
    assert "nobody\n" in acting.log()
    assert acting.log().count("cannot\n") == 2
    assert acting.damage() == []
    assert os.listdir(acting.root / ".pacball/staging") == []

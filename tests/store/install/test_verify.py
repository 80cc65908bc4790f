"""Verify finds each kind of damage, and nothing else."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from blake3 import blake3

from pacstore.digest import Digest
from pacstore.errors import NotFound, Unavailable
from pacstore.globs import Patterns
from pacstore.install.actions.generated import Generated, Made
from pacstore.install.root.layout import Root
from pacstore.install.root.timeline import Timeline
from pacstore.install.team import may_fork
from pacstore.install.tree.hashing import Known, digest_of, key_of
from pacstore.install.upkeep.checking import Readers, Subject, examiners
from pacstore.install.upkeep.findings import Fault, Finding
from pacstore.install.upkeep.parts import Piece
from pacstore.install.upkeep.verify import check_release, read_record_of, shared_with, verify
from pacstore.release import Release
from pacstore.tree import EntryKind
from tests.store.install.alone import alone
from tests.store.install.world import NAME, FakeSource, Notes, World, noise, put

RELEASE = Release.parse(NAME)


@pytest.fixture
def top(entry, source, root):
    return put(entry, source, root).path


class Reading(Notes):
    """Counts what is read."""

    total = done = 0

    def begin(self, phase, total_bytes):
        super().begin(phase, total_bytes)
        self.total = total_bytes

    def advance(self, count_bytes):
        self.done += count_bytes


def verified_here(root, releases):
    """What is found by processes, and what was said meanwhile; the caller has no thread."""
    progress = Reading()
    assert may_fork()
    return verify(root, releases, progress, readers=Readers(1, 2, 0)), progress


def in_threads(root, releases=()):
    progress = Reading()
    return verify(root, releases, progress), progress


def in_processes(root, releases=()):
    return alone(verified_here, root, releases)


def exactly(verified):
    """All that is known of the findings, also what is not compared."""
    return [
        [(one.path, one.fault, one.detail, one.entry, one.inode, one.generated) for one in each.findings]
        for each in verified
    ]


def found(root, *, both=False):
    if both:
        threads, counted = in_threads(root)
        processes, also = in_processes(root)
        assert exactly(threads) == exactly(processes)
        assert (threads, vars(counted)) == (processes, vars(also))
    return [(one.path, str(one.fault)) for one in findings(root)]


def findings(root):
    (found,) = verify(root, [RELEASE], Notes())
    return list(found.findings)


def test_a_good_release(top, root):
    assert found(root, both=True) == []
    (verified,) = verify(root, [], Notes(), readers=Readers(threads=1))
    assert (verified.release, verified.findings, verified.is_intact(strict=True)) == (RELEASE, (), True)


def test_each_kind_of_damage(top, root):
    with (top / "lib/big.so").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"?")
    with (top / "lib/copy.so").open("ab") as file:
        file.write(b"?")
    (top / "lib/none.py").unlink()
    (top / "extra\n").write_text("")
    (top / "bin/more").mkdir()
    (top / "bin/run").chmod(0o4755)
    (top / "lib/deep").chmod(0o700)
    (top / "lib/abs").unlink()
    (top / "lib/abs").symlink_to("/etc/shadow")
    (top / "up").unlink()
    (top / "up").mkdir()
    (top / "none").unlink()
    os.mkfifo(top / "none")
    assert found(root, both=True) == [
        ("bin/more", "extra"),
        ("bin/run", "mode"),
        ("extra\\n", "extra"),
        ("lib/abs", "target"),
        ("lib/big.so", "damaged"),
        ("lib/copy.so", "damaged"),
        ("lib/deep", "mode"),
        ("lib/none.py", "missing"),
        ("none", "kind"),
        ("up", "kind"),
    ]


def test_a_missing_directory_and_all_in_it(top, root):
    shutil.rmtree(top / "lib/deep/er")
    assert found(root, both=True) == [
        ("lib/deep/er", "missing"),
        ("lib/deep/er/same-again", "missing"),
        ("lib/deep/er/still", "missing"),
        ("lib/deep/er/still/text", "missing"),
    ]


def test_a_directory_that_became_a_link_is_not_followed(top, root, tmp_path):
    (top / "lib/deep/er").rename(tmp_path / "er")
    (top / "lib/deep/er").symlink_to(tmp_path / "er")
    assert ("lib/deep/er", "kind") in found(root, both=True)
    assert ("lib/deep/er/still/text", "missing") in found(root)


def test_details_for_people(top, root):
    (top / "bin/run").write_bytes(b"")
    assert findings(root) == [Finding("bin/run", Fault.DAMAGED, "has 0 bytes, not 17")]


def test_what_is_not_installed(top, root, tmp_path):
    with pytest.raises(NotFound):
        verify(root, [Release.parse("Sample-9-any")], Notes())
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing", [RELEASE], Notes())
    shutil.rmtree(top)
    with pytest.raises(NotFound):
        verify(root, [RELEASE], Notes())


def test_a_damaged_record(top, root):
    (root / f".pacball/manifests/{NAME}.manifest").write_bytes(b"PBMANI01")
    assert found(root) == [(f".pacball/manifests/{NAME}.manifest", "record")]


# -- the record


def test_a_record_that_is_not_the_one_that_was_kept(top, root):
    manifests = root / ".pacball/manifests"
    for suffix, at in (("manifest", -3), ("attributes", -200)):
        path = manifests / f"{NAME}.{suffix}"
        good = path.read_bytes()
        # An id of a chunk, a time: nothing that any check of the format notices.
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(data)
        assert findings(root) == [
            Finding(
                f".pacball/manifests/{NAME}.{suffix}", Fault.RECORD, "is not what it was when the release was installed"
            )
        ]
        path.write_bytes(good)
    assert found(root) == []


@pytest.mark.parametrize("data", [None, b"", b"x"])
def test_attributes_that_are_gone_or_damaged(top, root, data):
    path = root / f".pacball/manifests/{NAME}.attributes"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    (top / "none").write_bytes(b"?")
    assert found(root) == [(f".pacball/manifests/{NAME}.attributes", "record"), ("none", "damaged")]


# -- what commands made


def record(root, paths):
    made = Generated(RELEASE, Digest.of(b""), Patterns(["lib/**"], place=""), paths)
    (root / f".pacball/manifests/{NAME}.generated").write_bytes(made.encode())


def test_what_commands_made_is_compared_with_their_record(top, root):
    (top / "lib/cache/deep").mkdir(parents=True)
    (top / "lib/cache/deep/a").write_bytes(b"made")
    (top / "lib/cache/link").symlink_to("deep/a")
    (top / "bin/run").write_bytes(b"relocated")
    (top / "new").write_bytes(b"x")
    (top / "new").chmod(0o755)
    paths = {
        "bin/run": Made(EntryKind.EXECUTABLE, 9, Digest.of(b"relocated")),
        "lib/cache": Made(EntryKind.DIRECTORY),
        "lib/cache/deep": Made(EntryKind.DIRECTORY),
        "lib/cache/deep/a": Made(EntryKind.FILE, 4, Digest.of(b"made")),
        "lib/cache/link": Made(EntryKind.SYMLINK, target="deep/a"),
        "new": Made(EntryKind.EXECUTABLE, 1, Digest.of(b"x")),
    }
    record(root, paths)
    assert found(root) == []
    (top / "bin/run").write_bytes(b"other....")
    (top / "lib/cache/deep/a").write_bytes(b"made more")
    (top / "lib/cache/deep/later").write_bytes(b"")
    (top / "lib/cache/link").unlink()
    (top / "lib/cache/link").symlink_to("/etc/passwd")
    (top / "new").chmod(0o644)
    assert found(root, both=True) == [
        ("bin/run", "damaged"),
        ("lib/cache/deep/a", "damaged"),
        ("lib/cache/deep/later", "extra"),
        ("lib/cache/link", "target"),
        ("new", "mode"),
    ]
    assert all(one.generated == (one.fault is not Fault.EXTRA) for one in findings(root))
    shutil.rmtree(top / "lib/cache")
    (top / "lib/cache").symlink_to("/etc")
    assert ("lib/cache", "kind") in found(root, both=True)
    assert ("lib/cache/deep/a", "missing") in found(root)


def test_a_damaged_record_of_what_commands_made(top, root):
    (root / f".pacball/manifests/{NAME}.generated").write_bytes(b"{")
    assert found(root) == [(f".pacball/manifests/{NAME}.generated", "record")]


# -- owners and links


def test_another_owner_than_at_the_installation(top, root):
    path = root / ".pacball/history.jsonl"
    me = [os.geteuid(), os.getegid()]
    for owner, wrong in ((me, False), ([me[0], None], False), ([me[0] + 1, None], True), ([me[0], me[1] + 1], True)):
        line = {"event": "install", "time": 1.8e9, "release": NAME, "owner": owner}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        faults = findings(root)
        assert [one.fault for one in faults] == ([Fault.OWNER] * len(faults) if wrong else [])
        assert bool(faults) == wrong
    assert found(root, both=True)[0] == (".", "owner")
    assert faults[0].path == "."
    detail = f"belongs to user {me[0]} and group {me[1]}, not to user {me[0]} and group {me[1] + 1}"
    assert faults[0].detail == detail


def test_hard_links_that_are_none_any_more_are_a_warning(top, root):
    data = (top / "lib/deep/same").read_bytes()
    (top / "lib/deep/same").unlink()
    (top / "lib/deep/same").write_bytes(data)
    assert found(root, both=True) == [("lib/deep/same", "link")]
    (verified,) = verify(root, [], Notes())
    assert verified.findings == (Finding("lib/deep/same", Fault.LINK, "is no longer the same file as bin/same-too"),)
    assert verified.is_intact()
    assert not verified.is_intact(strict=True)


def test_the_top_itself(top, root):
    top.chmod(0o700)
    assert found(root) == [(".", "mode")]


def test_extra_files_are_a_warning(top, root):
    (top / "lib/__pycache__").mkdir()
    (verified,) = verify(root, [], Notes())
    assert [(one.path, one.fault) for one in verified.findings] == [("lib/__pycache__", Fault.EXTRA)]
    assert verified.is_intact()
    assert not verified.is_intact(strict=True)


@pytest.mark.parametrize("way", [in_threads, in_processes])
def test_a_file_that_releases_share_is_named_once(site, way):
    for name in ("App-1-any", "App-2-any", "App-3-any"):
        site.install(name)
    tops = [site.root / "releases" / f"App-{n}-any" for n in (1, 2, 3)]
    for top in tops[1:2]:
        (top / "same").unlink()
        os.link(tops[0] / "same", top / "same")
    (tops[0] / "same").write_bytes(b"x" * 5000)
    all_of_them, progress = way(site.root)
    assert (progress.done, progress.total, progress.phases) == (30_000, 30_000, ["verifying"])
    assert [[one.path for one in verified.findings] for verified in all_of_them] == [["same"], ["same"], []]
    (releases,) = shared_with(all_of_them).values()
    assert [str(release) for release in releases] == ["App-1-any", "App-2-any"]
    assert shared_with(all_of_them[1:]) == {}


def test_shared_files_are_read_once_unless_they_change(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    os.link(path, tmp_path / "other")
    known = Known()
    key = key_of(path.stat())
    assert known.find_all([key]) == [None]
    known.keep_all([(key, b"digest")])
    assert known.find_all([key_of((tmp_path / "other").stat()), b"another"]) == [b"digest", None]
    path.write_bytes(b"2")
    assert known.find_all([key_of(path.stat())]) == [None]
    alone = tmp_path / "alone"
    alone.write_bytes(b"")
    assert key_of(alone.stat()) is None


def with_known(root, name, readers, believed):
    """What is found if the content of each file that has several links is `believed` to be known; and what is known then."""
    known = Known()
    with Root.existing(root) as opened:
        keys = [key_of(path.stat()) for path in root.glob("releases/*/*") if path.stat().st_nlink > 1]
        if believed is not None:
            known.keep_all([(key, believed) for key in keys])
        release = Release.parse(name)
        record = read_record_of(opened, release, Timeline.of(opened.history()))
        with examiners(opened, readers, bytes_total=1) as who:
            verified = check_release(opened, record, Notes(), known, who)
        return type(who).__name__, [one.path for one in verified.findings], known.find_all(keys)


@pytest.mark.parametrize(("readers", "kind"), [(Readers(2), "Threads"), (Readers(1, 2, 0), "Processes")])
def test_what_is_known_of_a_shared_file_is_not_read_again(site, readers, kind):
    for name in ("App-1-any", "App-2-any"):
        site.install(name)
    tops = [site.root / "releases" / f"App-{n}-any" for n in (1, 2)]
    (tops[1] / "same").unlink()
    os.link(tops[0] / "same", tops[1] / "same")
    right = blake3((tops[0] / "same").read_bytes()).digest()
    ask = lambda believed: alone(with_known, site.root, "App-2-any", readers, believed)  # noqa: E731
    assert ask(None) == (kind, [], [right, right])
    assert ask(right) == (kind, [], [right, right])
    # Only who does not read the file believes this.
    assert ask(bytes(32)) == (kind, ["same"], [bytes(32), bytes(32)])


def wide_tree(top):
    """Directories and files that are cut into several pieces, at every kind of place."""
    (top / "many/below").mkdir(parents=True)
    for number in range(2500):
        (top / f"many/{number:04}").write_bytes(b"%d" % (number % 7))
    for number in range(3):
        (top / f"many/below/{number}").write_bytes(noise(str(number), 9 << 20))
        (top / f"empty {number}").mkdir()
        (top / f"link {number}").symlink_to(f"empty {number}")
    (top / "zeros").write_bytes(bytes(65 << 20))
    return top


def test_large_directories_and_files(tmp_path, root):
    world = World()
    put(world.publish(wide_tree(tmp_path / "wide")), FakeSource(world), root)
    top = root / "releases" / NAME
    assert found(root, both=True) == []
    for name in ("many/0000", "many/1023", "many/1024", "many/2499"):
        (top / name).write_bytes(b"?")
    (top / "many/more").write_bytes(b"")
    (top / "many/below/1").unlink()
    (top / "empty 1/file").write_bytes(b"")
    with (top / "zeros").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    assert found(root, both=True) == [
        ("empty 1/file", "extra"),
        ("many/0000", "damaged"),
        ("many/1023", "damaged"),
        ("many/1024", "damaged"),
        ("many/2499", "damaged"),
        ("many/below/1", "missing"),
        ("many/more", "extra"),
        ("zeros", "damaged"),
    ]


@pytest.mark.parametrize("files", [{}, {"only": b""}])
def test_releases_of_hardly_anything(site, files):
    (site.trees / "App-1-any").mkdir(parents=True, exist_ok=True)
    site.publish("App-1-any", files)
    site.install("App-1-any")
    assert found_of_all(site.root) == []
    (site.root / "releases/App-1-any/more").write_bytes(b"")
    assert found_of_all(site.root) == [("more", "extra")]


def found_of_all(root):
    threads, processes = in_threads(root), in_processes(root)
    assert exactly(threads[0]) == exactly(processes[0])
    return [(one.path, str(one.fault)) for each in threads[0] for one in each.findings]


def short_of_descriptors(root):
    """Too few for a team, enough for a thread."""
    used = len(os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 25, hard))
    with Root.existing(root) as opened, examiners(opened, Readers(1, 50, 0), bytes_total=0) as who:
        kind = type(who).__name__
    (verified,) = verify(root, [], Notes(), readers=Readers(1, 50, 0))
    return kind, verified.findings, os.path.exists(f"/proc/self/fd/{used + 15}")


def test_threads_read_where_processes_cannot_be_made(top, root):
    (top / "none").unlink()
    kind, findings, leaks = alone(short_of_descriptors, root)
    assert (kind, [one.path for one in findings], leaks) == ("Threads", ["none"], False)


class Killing(Reading):
    """Kills the processes that read as soon as the first has read something."""

    def advance(self, count_bytes):
        super().advance(count_bytes)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)


def killed(root):
    try:
        verify(root, [], Killing(), readers=Readers(1, 2, 0))
    except Unavailable as error:
        return str(error)
    return "done"


def test_processes_that_are_killed_are_never_a_result(tmp_path, root):
    world = World()
    put(world.publish(wide_tree(tmp_path / "wide")), FakeSource(world), root)
    assert "a worker of this command was ended by signal 9 (Killed) before it was done" in alone(killed, root)


def replaced(root, *, by_another):
    with Root.existing(root) as opened, examiners(opened, Readers(1, 2, 0), bytes_total=0) as who:
        release = root / "releases/App-1-any"
        top = os.open(release, os.O_RDONLY)
        release.rename(root / "releases/away")
        if by_another:
            release.mkdir()
        subject = Subject(Release.parse("App-1-any"), top, [Piece([], None)])
        try:
            who.examine(subject, known=Known(), progress=Notes(), take=repr)
        except (Unavailable, OSError) as error:
            return str(error)
    return "done"


def replaced_by_another(root):
    return replaced(root, by_another=True)


def replaced_by_nothing(root):
    return replaced(root, by_another=False)


@pytest.mark.parametrize(
    ("how", "what"),
    [
        (replaced_by_another, "App-1-any: has been replaced while it was compared (run the same command again)"),
        (replaced_by_nothing, "[Errno 2] No such file or directory: 'App-1-any'"),
    ],
)
def test_a_tree_that_somebody_replaces_meanwhile(site, how, what):
    site.install("App-1-any")
    assert alone(how, site.root) == what


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (64 << 20) - 1, 64 << 20, (65 << 20) + 7])
def test_files_of_all_sizes_are_hashed(tmp_path, size):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"begin")
        file.truncate(size)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = digest_of(descriptor, size, memoryview(bytearray(1 << 18)))
    finally:
        os.close(descriptor)
    assert found == blake3(path.read_bytes()).digest()


def test_a_large_file_that_cannot_be_read(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            digest_of(descriptor, 1 << 30, memoryview(bytearray(10)))
    finally:
        os.close(descriptor)


def test_of_what_pacball_did_not_install(root, top):
    (root / "releases/Other-1-any").mkdir()
    with pytest.raises(NotFound, match="was not installed by pacball"):
        verify(root, [Release.parse("Other-1-any")], Notes())


def test_a_file_that_grows_without_end_is_not_read_for_ever(tmp_path):
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    with file.open("rb") as opened:
        found = digest_of(opened.fileno(), 64 << 20, memoryview(bytearray(1 << 18)))
    assert found != blake3(bytes(64 << 20)).digest()

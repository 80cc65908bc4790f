"""The record of generated paths: what it holds comes back, anything else is refused, and it finds its place after a kill."""

import json
import os

import pytest

from pacstore.digest import Digest
from pacstore.errors import Corrupt, NewerFormat, PacballError, Refused, TooLarge
from pacstore.globs import Patterns
from pacstore.install.actions import generated as records
from pacstore.install.actions.generated import Generated, Made, has_record, place_record, read_generated, stage
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import Attempt, remove_attempt, sweep
from pacstore.release import Release
from pacstore.tree import EntryKind
from tests.store.install.world import NAME

RELEASE = Release.parse(NAME)
RECORD = Generated(
    RELEASE,
    Digest.of(b"tree"),
    Patterns(["lib/**/__pycache__/**", "etc/setup.sh"], place=""),
    {
        "etc/setup.sh": Made(EntryKind.EXECUTABLE, 12, Digest.of(b"x")),
        "lib/Grüße/__pycache__": Made(EntryKind.DIRECTORY),
        "lib/Grüße/__pycache__/a.pyc": Made(EntryKind.FILE, 0, Digest.of(b"")),
        "lib/Grüße/__pycache__/link": Made(EntryKind.SYMLINK, target="../a"),
    },
)
VALUE = json.loads(RECORD.encode())


@pytest.fixture
def opened(root):
    with Root.open(root) as opened:
        yield opened


def attempt(root):
    made = Attempt.begin(root, RELEASE, Digest.of(b"manifest"), 0.0)
    made.give_up()
    return made


def test_what_was_recorded_comes_back():
    found = Generated.parse(RECORD.encode(), place="here")
    assert (found.release, found.tree_digest, found.paths) == (RELEASE, RECORD.tree_digest, RECORD.paths)
    assert found.patterns.texts == RECORD.patterns.texts
    assert found.encode() == RECORD.encode()
    assert VALUE["paths"]["etc/setup.sh"] == {"kind": "executable", "bytes": 12, "digest": Digest.of(b"x").hex}


def changed(**values):
    return VALUE | values


@pytest.mark.parametrize(
    "value",
    [
        [],
        changed(format="1"),
        changed(more=1),
        {key: VALUE[key] for key in VALUE if key != "patterns"},
        changed(release="nothing"),
        changed(release=7),
        changed(tree_digest="00"),
        changed(patterns=["../x"]),
        changed(patterns="x"),
        changed(paths=[]),
        changed(paths={"a": 1}),
        changed(paths={"a": {"kind": "fifo"}}),
        changed(paths={"a": {"kind": "directory", "bytes": 1}}),
        changed(paths={"a": {"kind": "file", "bytes": -1, "digest": "0" * 64}}),
        changed(paths={"a": {"kind": "file", "bytes": True, "digest": "0" * 64}}),
        changed(paths={"a": {"kind": "file", "bytes": 1, "digest": "x"}}),
        changed(paths={"a": {"kind": "file", "bytes": 1}}),
        changed(paths={"a": {"kind": "symlink", "target": ""}}),
        changed(paths={"a": {"kind": "symlink", "target": 1}}),
        changed(paths={"../a": {"kind": "directory"}}),
        changed(paths={"/a": {"kind": "directory"}}),
        changed(paths={"a//b": {"kind": "directory"}}),
        changed(paths={"a\n": {"kind": "directory"}}),
        changed(paths={"a\ud800": {"kind": "directory"}}),
        changed(paths={"a/" * 2_100 + "b": {"kind": "directory"}}),
    ],
)
def test_what_is_no_record(value):
    with pytest.raises(Corrupt, match="here"):
        Generated.parse(json.dumps(value).encode(), place="here")


def test_bytes_that_are_no_record():
    for data in (b"", b"{", b"\xff", b"[" * 100_000, RECORD.encode()[:-10], b'{"format":1,"format":1}'):
        with pytest.raises(Corrupt):
            Generated.parse(data, place="here")
    with pytest.raises(NewerFormat):
        Generated.parse(json.dumps(changed(format=2)).encode(), place="here")
    with pytest.raises(TooLarge):
        Generated.parse(b" " * (records.RECORD_BYTES + 1), place="here")


def test_too_many_paths(monkeypatch):
    monkeypatch.setattr(records, "PATHS", 100)
    paths = {str(n): Made(EntryKind.DIRECTORY) for n in range(101)}
    with pytest.raises(Refused, match="more than 100 paths"):
        Generated(RELEASE, RECORD.tree_digest, RECORD.patterns, paths).encode()


def test_no_record(opened):
    assert read_generated(opened, RELEASE) is None
    assert not has_record(opened, RELEASE)


def test_it_is_kept(opened):
    made = attempt(opened)
    stage(made.directory, RECORD)
    assert not has_record(opened, RELEASE)
    os.rename("tree", "tree", src_dir_fd=made.directory, dst_dir_fd=opened.releases)
    place_record(opened, made.directory)
    assert os.listdir(made.directory) == ["owner.json"]
    made.close()
    assert read_generated(opened, RELEASE).paths == RECORD.paths
    assert os.stat(f"{NAME}.generated", dir_fd=opened.manifests).st_mode & 0o777 == 0o600
    other = Release.parse("Other-1-any")
    os.rename(f"{NAME}.generated", f"{other}.generated", src_dir_fd=opened.manifests, dst_dir_fd=opened.manifests)
    with pytest.raises(Corrupt, match="another release"):
        read_generated(opened, other)


def test_killed_between_the_tree_and_its_record(opened):
    """Whoever comes next moves the record into place; nobody sweeps it away before."""
    made = attempt(opened)
    stage(made.directory, RECORD)
    os.rename("tree", "tree", src_dir_fd=made.directory, dst_dir_fd=opened.releases)
    made.close()
    remove_attempt(opened, made.name)
    sweep(opened)
    assert read_generated(opened, RELEASE).paths == RECORD.paths
    sweep(opened)
    assert os.listdir(opened.staging) == []


def test_who_does_not_get_the_name_leaves_no_record(opened):
    made = attempt(opened)
    stage(made.directory, RECORD)
    made.close()
    assert not has_record(opened, RELEASE)
    remove_attempt(opened, made.name)
    assert os.listdir(opened.staging) == []
    assert not has_record(opened, RELEASE)


def test_a_record_behind_a_link_is_not_read(opened, tmp_path):
    (tmp_path / "elsewhere").write_bytes(RECORD.encode())
    os.symlink(tmp_path / "elsewhere", f"{NAME}.generated", dir_fd=opened.manifests)
    with pytest.raises(PacballError):
        read_generated(opened, RELEASE)

"""Files that other releases share are copied before commands could write to them, and no others."""

import os

import pytest

from pacstore.attributes import Attributes
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import TOP, Paths
from pacstore.install.tree.unsharing import unshare
from pacstore.storage import ObjectKind, object_path
from tests.store.install.acting import declaration, make_release
from tests.store.install.world import World, look, tree_of


@pytest.fixture
def shared(tmp_path):
    """A tree with some of its files linked from outside, and what `unshare` is told of it."""
    tree = make_release(tmp_path / "tree", declaration())
    world = World()
    entry = world.publish(tree)
    manifest = tree_of(world, entry)
    attributes = Attributes.parse(
        world.public[object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)], manifest, place=""
    )
    (tmp_path / "other").mkdir()
    for name in ("lib/data", "etc/linked.conf", "pacball.toml"):
        os.link(tree / name, tmp_path / "other" / name.replace("/", "-"))
    top = os.open(tree, os.O_RDONLY)
    paths = Paths(manifest)
    directories = Directories(top, paths, limit=8)
    yield tree, paths, directories, attributes
    directories.close()
    os.close(top)


def inodes(tree):
    return {str(path.relative_to(tree)): path.stat().st_ino for path in tree.rglob("*") if path.is_file()}


def test_all(shared, tmp_path):
    tree, paths, directories, attributes = shared
    before, was = look(tree), inodes(tree)
    copied = unshare(paths, directories, attributes, exposed=None)
    after = inodes(tree)
    assert {name for name in was if was[name] != after[name]} == {
        "lib/data", "lib/link", "etc/linked.conf", "etc/other.conf", "pacball.toml"}  # fmt: skip
    assert copied == 300_000 + 6 + (tree / "pacball.toml").stat().st_size
    assert after["etc/linked.conf"] == after["etc/other.conf"]
    assert {path.stat().st_nlink for path in (tmp_path / "other").iterdir()} == {1}
    # The times of directories are set when all is done.
    same = [path for path in before if not (tree / path).is_dir()]
    assert {path: look(tree)[path] for path in same} == {path: before[path] for path in same}
    assert unshare(paths, directories, attributes, exposed=None) == 0


def test_only_where_commands_may_write(shared):
    tree, paths, directories, attributes = shared
    was = inodes(tree)
    [etc] = [entry for entry in paths.directories() if paths.path(entry) == b"etc"]
    assert unshare(paths, directories, attributes, exposed={etc}) == 6
    assert {name for name, inode in inodes(tree).items() if inode != was[name]} == {"etc/linked.conf", "etc/other.conf"}
    assert unshare(paths, directories, attributes, exposed={TOP}) > 0
    assert unshare(paths, directories, attributes, exposed=frozenset()) == 0

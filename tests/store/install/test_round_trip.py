"""A release arrives exactly as it was published."""

import json
import os
import stat

import pytest

from pacstore.errors import Refused
from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions
from pacstore.install.tree.disk import Free
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, look, put


def test_every_kind_of_entry(tree, entry, source, root):
    done = put(entry, source, root)
    assert look(done.path) == look(tree)
    assert done.path == root / "releases" / NAME
    assert (done.already_installed, done.switched) == (False, True)
    assert done.bytes_downloaded == source.traffic.bytes_downloaded
    assert done.bytes_reused == 0
    assert done.tree_digest == entry.tree_digest


def test_the_layout_of_the_root(entry, source, root):
    put(entry, source, root)
    link = root / "current/Sample/any"
    assert os.readlink(link) == f"../../releases/{NAME}"
    assert (link / "none").exists()
    assert stat.S_IMODE((root / ".pacball").stat().st_mode) == 0o700
    assert os.listdir(root / ".pacball/staging") == []
    assert sorted(os.listdir(root / ".pacball/manifests")) == [f"{NAME}.attributes", f"{NAME}.manifest"]
    lines = [json.loads(line) for line in (root / ".pacball/history.jsonl").read_text().splitlines()]
    both = {"time": 1_700_000_000.0, "release": NAME, "tree_digest": entry.tree_digest.hex, "source": "fake"}
    owner = {"owner": [os.geteuid(), None]}
    documents = {"manifest_digest": entry.manifest.digest.hex, "attributes_digest": entry.attributes.digest.hex}
    assert lines == [
        {"event": "install", **both, **documents, **owner},
        {"event": "switch", **both, "previous": None},
    ]


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o027, 0o777])
def test_the_umask_changes_nothing(tree, entry, source, root, mask):
    root.mkdir()
    before = os.umask(mask)
    try:
        done = put(entry, source, root)
    finally:
        os.umask(before)
    assert look(done.path) == look(tree)


def test_again_is_a_quiet_success(entry, source, root):
    put(entry, source, root)
    requests = source.traffic.requests
    again = put(entry, source, root)
    assert again.already_installed
    assert not again.switched
    assert source.traffic.requests == requests


def test_again_switches_back(tree, world, entry, source, root, tmp_path):
    put(entry, source, root)
    (tmp_path / "next").mkdir()
    (tmp_path / "next/file").write_text("new")
    put(world.publish(tmp_path / "next", NEXT), source, root)
    assert os.readlink(root / "current/Sample/any").endswith(NEXT)
    again = put(entry, source, root)
    assert again.already_installed
    assert again.switched
    assert os.readlink(root / "current/Sample/any").endswith(NAME)
    lines = [json.loads(line) for line in (root / ".pacball/history.jsonl").read_text().splitlines()]
    assert [(line["event"], line["release"]) for line in lines] == [
        ("install", NAME),
        ("switch", NAME),
        ("install", NEXT),
        ("switch", NEXT),
        ("switch", NAME),
    ]


def test_an_empty_release(world, source, root, tmp_path):
    (tmp_path / "empty").mkdir()
    done = put(world.publish(tmp_path / "empty"), source, root)
    assert list(done.path.iterdir()) == []


def test_small_limits_change_nothing(tree, entry, source, root):
    options = InstallOptions(workers=3, range_bytes=1, gap_bytes=0, open_directories=1, open_files=1)
    done = put(entry, source, root, options=options)
    assert look(done.path) == look(tree)


def test_a_plan_says_what_will_happen(entry, source, root):
    before = plan(entry, source=source, root=root, progress=Notes())
    assert not root.exists()
    assert (before.already_installed, before.bytes_reused) == (False, 0)
    done = put(entry, FakeSource(source.world), root)
    documents = entry.manifest.length + entry.attributes.length + entry.placement.length
    assert done.bytes_downloaded == before.bytes_to_download + documents
    assert before.bytes_total == entry.total_bytes <= before.disk_bytes + (3 << 20)
    after = plan(entry, source=source, root=root, progress=Notes())
    assert after.already_installed
    assert after.switched_from == NAME


def test_the_name_is_taken_by_something_else(entry, source, root):
    (root / "releases" / NAME).mkdir(parents=True)
    with pytest.raises(Refused, match="did not install it"):
        put(entry, source, root)


def test_the_name_is_taken_by_another_tree(world, tree, entry, source, root, tmp_path):
    put(entry, source, root)
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused, match="another tree"):
        put(world.publish(tmp_path / "other"), source, root)


def test_current_is_in_the_way(entry, source, root):
    (root / "current/Sample/any").mkdir(parents=True)
    with pytest.raises(Refused, match="not a symbolic link"):
        put(entry, source, root)


def test_the_directory_above_the_root_is_missing(entry, source, tmp_path):
    with pytest.raises(Refused, match="directory above it"):
        put(entry, source, tmp_path / "no/root")


def test_the_switch_can_be_left_out(entry, source, root):
    assert not put(entry, source, root, options=InstallOptions(switch=False)).switched
    assert not (root / "current/Sample").exists()


def test_a_real_run_tells_its_plan_before_it_begins(entry, source, root):
    told = []
    put(entry, source, root, planned=lambda plan: told.append((plan, os.listdir(root / ".pacball/staging"))))
    ((made, staged),) = told
    assert staged == []
    assert made.bytes_to_download > 0
    assert (made.switched, made.switched_from, made.fits) == (True, "", True)
    assert made.bytes_of_documents == entry.manifest.length + entry.attributes.length + entry.placement.length
    assert made.disk_bytes == made.disk_bytes_after > made.bytes_total // 2
    put(entry, source, root, planned=told.append)
    assert len(told) == 1


def test_a_plan_says_that_there_is_no_room(entry, source, root):
    options = InstallOptions(free_space=lambda _: Free(1000, 10, 4096))
    for _ in range(2):
        made = plan(entry, source=source, root=root, progress=Notes(), options=options)
        assert (made.fits, made.disk_bytes_free, made.inodes_free) == (False, 1000, 10)
        root.mkdir(exist_ok=True)


def test_a_plan_for_a_root_that_cannot_be_made(entry, source, tmp_path):
    with pytest.raises(Refused, match="directory above it"):
        plan(entry, source=source, root=tmp_path / "no/root", progress=Notes())

"""Power loss during exports and imports, at random moments and right after a command has said that it is done."""

from __future__ import annotations

import pytest

from tests.e2e import trees
from tests.e2e.site import Site
from tests.peers.conftest import OLD
from tests.peers.test_power_loss import cut_during, timed
from tests.peers.volumes import volume
from tests.seeds import seeded

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ROUNDS = 4


@pytest.fixture
def disk(tmp_path):
    with volume("ext4", tmp_path, mib=1500) as made:
        yield made


@pytest.fixture
def origin(tmp_path):
    """A store on a disk that keeps its power, with a release; its root."""
    site = Site(tmp_path / "origin")
    tree = trees.fill(tmp_path / "tree", seed=3, files=60, file_bytes=3 * trees.MIB, bits=8)
    site.publish(tree, OLD, tmp_path / "store")
    return tmp_path / "store", site.root_keys(tmp_path / "store"), tree


def test_what_was_exported_and_imported_is_there(disk, origin, tmp_path):
    (store, root, tree), site, dice = origin, Site(tmp_path / "home"), seeded("air gap")
    pin, to, out = ("--root-keys", root), disk.path / "mirror", disk.path / "x.tar"
    words = ("export", OLD, "--from", store, *pin, "-o")
    seconds = timed(site.ok, *words, tmp_path / "good.tar")
    for _ in range(ROUNDS):
        if not cut_during(disk, site, (*words, out), dice.uniform(0.2, 1.0) * seconds) and out.exists():
            # It has its name only when it is whole.
            assert out.read_bytes() == (tmp_path / "good.tar").read_bytes()
            out.unlink()
    site.ok(*words, out)
    disk.cut_power()
    disk.power_on()
    assert out.read_bytes() == (tmp_path / "good.tar").read_bytes()
    for _ in range(ROUNDS):
        cut_during(disk, site, ("import", tmp_path / "good.tar", "--to", to, *pin), dice.uniform(0.3, 2.0) * seconds)
    assert site.ok("import", tmp_path / "good.tar", "--to", to, *pin)["is_complete"]
    disk.cut_power()
    disk.power_on()
    assert (to / "public/holdings" / OLD).exists()
    checked = site.ok("store", "check", "--store", to)
    assert (checked["intact"], checked["releases_checked"]) == (True, 1)
    again = site.ok("import", tmp_path / "good.tar", "--to", to)
    assert (again["is_complete"], again["bytes_copied"]) == (True, 0)
    site.ok("install", OLD, "--from", to, *pin, "--root", tmp_path / "root")
    trees.assert_same(tmp_path / "root/releases" / OLD, tree)

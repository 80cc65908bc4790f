"""A pacball with a file of more than 8 GiB, whose size octal digits cannot hold: built, fetched, and installed by its stub."""

from __future__ import annotations

import filecmp
import shutil

import pytest

from tests.e2e import trees
from tests.e2e.site import Site
from tests.store.pacball.shells import Machine

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]

HUGE = "Huge-1.0-any"
HUGE_BYTES = (8 << 30) + 12_345


@pytest.fixture
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("large")
    yield made
    shutil.rmtree(made)


def test_a_file_of_more_than_eight_gigabytes(home):
    site, tree = Site(home / "home"), home / "tree"
    (tree / "z").mkdir(parents=True)
    with open(tree / "huge.bin", "wb") as file:
        file.truncate(HUGE_BYTES)
        file.seek(5 << 30)
        file.write(trees.content(1, 1 << 20))
    (tree / "z/last").write_bytes(trees.content(2, 100_000))
    site.publish(tree, HUGE, home / "store")
    words = ("--from", home / "store", "--root-keys", site.root_keys(home / "store"))
    fetched = site.ok("fetch", HUGE, "-o", home, *words)["path"]
    built = site.ok("build", tree, HUGE, "-o", home / "built.sh")["path"]
    assert filecmp.cmp(fetched, built, shallow=False)
    (home / "built.sh").unlink()
    for kind in ("busybox sh", "dash", "mksh"):
        target = home / kind.split()[0]
        machine = Machine(tuple(kind.split()), home / "tmp")
        with machine.start(fetched, "--prefix", target, cwd=home) as process:
            assert process.wait(900) == 0, process.stderr.read()
        assert filecmp.cmp(tree / "huge.bin", target / "huge.bin", shallow=False)
        assert filecmp.cmp(tree / "z/last", target / "z/last", shallow=False)
        shutil.rmtree(target)

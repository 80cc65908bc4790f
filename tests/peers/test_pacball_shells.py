"""Pacballs with the shells and tars that sites have: busybox alone, bsdtar, mksh, yash; and where the disk is too small."""

from __future__ import annotations

import os
import shutil

import pytest

from pacstore.pacball.building import build
from pacstore.progress import Silent
from pacstore.release import Release
from tests.peers.programs import call, program
from tests.peers.volumes import memory_volume
from tests.store.install.world import NAME, make_tree
from tests.store.pacball.shells import Machine, tools
from tests.store.pacball.test_stub import image

pytestmark = pytest.mark.peers
KINDS = ["busybox", "bsdtar", "mksh", "yash", "bash --posix", "dash"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("pacballs") / "tree")


@pytest.fixture(scope="module")
def pacball(tree):
    (tree.parent / "made").mkdir()
    return build(tree, Release.parse(NAME), tree.parent / "made", progress=Silent()).path


def machine_of(kind, where):
    if kind == "busybox":
        (where / "bin").mkdir()
        for name in call("busybox", "--list").stdout.split():
            (where / "bin" / name).symlink_to(program("busybox"))
        return Machine((program("busybox"), "sh"), where / "tmp", str(where / "bin"))
    if kind == "bsdtar":
        return Machine(("sh",), where / "tmp", tools(where / "bin", tar=f'exec {program("bsdtar")} "$@"'))
    name, *options = kind.split()
    return Machine((program(name), *options), where / "tmp")


@pytest.mark.parametrize("kind", KINDS)
def test_install_verify_and_parts(kind, pacball, tree, tmp_path):
    machine = machine_of(kind, tmp_path)
    target = tmp_path / "in to"
    machine.ok(pacball, "--prefix", "in to", cwd=tmp_path, umask=0o077)
    expected, found = image(tree), image(target)
    if kind == "busybox":  # it leaves the times of links and directories as they come
        expected, found = ({k: (v[0], *v[2:]) for k, v in one.items()} for one in (expected, found))
    assert found == expected
    assert (target / "lib/deep/same").stat().st_ino == (target / "bin/same-too").stat().st_ino
    assert machine.ok(pacball, "--verify", cwd=target).out == ""
    shutil.rmtree(target / "lib/deep/er")
    (target / "lib/big.so").write_bytes(b"short")
    (target / "bin/run").chmod(0o644)
    (target / "lib/Grüße – 日本").unlink()
    (target / "lib/Grüße – 日本").symlink_to("elsewhere")
    (target / "ex tra").touch()
    done = machine.run(pacball, "--verify", cwd=target)
    assert done.code == 1
    for line in ("missing: lib/deep/er/still/text", "damaged: lib/big.so", "wrong mode: bin/run", "extra: ex tra"):
        assert line in done.out.splitlines(), done
    assert any(line.endswith("lib/Grüße – 日本") for line in done.out.splitlines()), done
    machine.ok(pacball, "--prefix", "part", "lib/deep/f0*", "empty/", cwd=tmp_path)
    names = sorted(os.listdir(tmp_path / "part/lib/deep"))
    assert names == [f"f0{number}" for number in range(10)]
    assert (tmp_path / "part/empty").is_dir()
    assert machine.run(pacball, "--prefix", "none", "lib/deep/zz*", cwd=tmp_path).code == 3
    assert machine.run(pacball, cwd=target).code == 7


@pytest.mark.parametrize("kind", KINDS)
def test_an_altered_file_is_never_installed(kind, pacball, tmp_path):
    machine = machine_of(kind, tmp_path)
    data = bytearray(pacball.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.sh").write_bytes(data)
    done = machine.run(tmp_path / "bad.sh", "--prefix", "target", cwd=tmp_path)
    assert done.code == 4
    assert "is damaged" in done.err
    assert os.listdir(tmp_path / "target") == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["busybox", "bsdtar", "dash"])
def test_a_disk_that_is_too_small_or_becomes_full(kind, pacball, tmp_path):
    machine = machine_of(kind, tmp_path)
    with memory_volume(tmp_path, "size=4m") as volume:
        done = machine.run(pacball, cwd=volume)
        assert done.code == 6
        assert "not enough disk" in done.err
        # Of parts nobody knows beforehand how much they need.
        done = machine.run(pacball, "lib", cwd=volume)
        assert done.code == 6
        assert os.listdir(volume) == []

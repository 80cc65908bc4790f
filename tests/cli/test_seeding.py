"""What people say of seeds and sharing."""

from pathlib import Path

import pytest

from paccli.seeding import find_seed_directories, find_share
from paccli.settings import Settings
from pacstore.errors import NotFound, Refused
from pacstore.install.options import Share


def test_directories_of_the_command_line_and_of_the_settings(tmp_path):
    settings = Settings(seeds=("/not/there", str(tmp_path)))
    assert find_seed_directories([tmp_path], settings) == (tmp_path, Path("/not/there"))
    assert find_seed_directories(None, Settings()) == ()


def test_a_slip_on_the_command_line_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(NotFound, match="is no directory"):
            find_seed_directories([path], Settings())


def test_how_much_is_shared():
    assert find_share(None, Settings()) is Share.REFLINK
    assert find_share(None, Settings(share="none")) is Share.NONE
    assert find_share("hardlink", Settings(share="none")) is Share.HARDLINK
    with pytest.raises(Refused, match="is one of none, reflink, hardlink, not soft"):
        find_share("soft", Settings())


def test_the_command_takes_from_a_directory_and_shares(pacball, store, tmp_path):
    words = ("--from", store, "--root", tmp_path / "root")
    pacball.json("install", "Demo-1.0-x86_64", *words)
    pacball.json("install", "Demo-1.0-x86_64", "--from", store, "--root", tmp_path / "root", "--share", "soft", code=7)
    first = tmp_path / "root/releases/Demo-1.0-x86_64"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in first.rglob("*"):
        if path.is_file() and not path.is_symlink():
            (foreign / f"{path.name}.copy").write_bytes(path.read_bytes())
    other = ("--from", store, "--root", tmp_path / "other", "--seed", foreign)
    planned = pacball.json("install", "Demo-1.0-x86_64", *other, "--plan")
    assert [seed["name"] for seed in planned["reuse"]] == [str(foreign)]
    done = pacball.json("install", "Demo-1.0-x86_64", *other)
    assert done["bytes_reused"] == planned["bytes_reused"] > 0
    done = pacball.json("install", "Demo-1.1-x86_64", *words, "--share=hardlink")
    second = tmp_path / "root/releases/Demo-1.1-x86_64"
    assert any(path.is_file() and path.stat().st_nlink > 1 for path in second.rglob("*"))

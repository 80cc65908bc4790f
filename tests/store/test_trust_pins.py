import stat

import pytest

from pacstore.errors import Corrupt, NotFound, Refused, Unavailable, Untrusted
from pacstore.trust.pins import Pins, check_root, fetch_root, find_pin, fingerprint, read_pins
from tests.store.trust_signing import renew
from tests.store.trust_world import NOW, MemorySource, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


def test_a_root_is_trusted_on_first_use_and_remembered(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    assert pins.recall("https://mirror") is None
    root = fetch_root(world.source)
    pins.remember("https://mirror", root)
    pins.remember("https://mirror", root)
    assert Pins(tmp_path / "pins").recall("https://mirror") == root == world.catalog.root_bytes
    assert pins.recall("https://other") is None
    assert world.open(root=root).projects() == ["AtlasOffline"]
    (file,) = (tmp_path / "pins").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_root_never_replaces_a_pinned_one(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.remember("m", world.catalog.root_bytes)
    stranger = World(tmp_path / "stranger")
    with pytest.raises(Untrusted, match="another root"):
        pins.remember("m", stranger.catalog.root_bytes)
    assert pins.recall("m") == world.catalog.root_bytes


def test_only_a_root_that_signs_itself_is_a_root(world):
    root = world.catalog.root_bytes
    assert check_root(root, place="keys") == root
    others = [b"", b"{}", b"[1]", b"\xff", root[:-1], root.replace(b'"version":1', b'"version":2')]
    others += [data for path, data in world.storage.files.items() if "root" not in path]
    for data in others:
        with pytest.raises(Refused, match="not a TUF root") as caught:
            check_root(data, place="keys")
        assert caught.value.hint


def test_a_damaged_pin_is_refused(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.remember("m", world.catalog.root_bytes)
    (file,) = (tmp_path / "pins").iterdir()
    file.write_bytes(b"")
    with pytest.raises(Refused, match="not a TUF root"):
        pins.recall("m")


def test_a_source_without_a_root(world):
    with pytest.raises(NotFound):
        fetch_root(MemorySource({}))


def test_fingerprints_tell_roots_apart(world, tmp_path):
    assert len(fingerprint(world.catalog.root_bytes)) == 64
    assert fingerprint(world.catalog.root_bytes)[:16] == world.catalog.catalog_id
    assert fingerprint(World(tmp_path / "b").catalog.root_bytes) != fingerprint(world.catalog.root_bytes)


@pytest.fixture
def roots(world, tmp_path):
    """A directory with the three roots of the world, and one of a stranger."""
    directory = tmp_path / "roots"
    directory.mkdir()
    for _ in range(2):
        renew(world, "root", now=NOW)
    for version in (1, 2, 3):
        data = world.storage.files[f"catalog/{version}.root.json"]
        (directory / f"ours-{version}.json").write_bytes(data)
    (directory / "a-stranger.json").write_bytes(World(tmp_path / "stranger").catalog.root_bytes)
    return directory


def test_the_pin_of_a_source_is_found_among_many(world, roots, tmp_path):
    pins = read_pins([tmp_path / "missing", roots])
    assert [(pin.path.name, pin.version) for pin in pins] == [
        ("a-stranger.json", 1), ("ours-1.json", 1), ("ours-2.json", 2), ("ours-3.json", 3),
    ]  # fmt: skip
    for name in ("ours-3.json", "ours-2.json", "ours-1.json"):
        found = find_pin(world.source, read_pins([roots]))
        assert found.path == roots / name
        assert world.open(root=found.root).root_version == 3
        found.path.unlink()
    assert find_pin(world.source, read_pins([roots])) is None
    assert find_pin(world.source, []) is None


def test_a_source_without_the_latest_pinned_root_is_behind(world, roots):
    del world.storage.files["catalog/3.root.json"]
    with pytest.raises(Untrusted) as caught:
        find_pin(world.source, read_pins([roots]))
    assert f"not version 3 of {roots / 'ours-3.json'}" in caught.value.message
    # A later root of another catalog says nothing about this one.
    stranger = World(roots.parent / "another")
    renew(stranger, "root", now=NOW)
    (roots / "ours-3.json").unlink()
    (roots / "later.json").write_bytes(stranger.storage.files["catalog/2.root.json"])
    assert find_pin(world.source, read_pins([roots])).path == roots / "ours-2.json"


def test_a_version_is_asked_for_once(world, roots):
    find_pin(world.source, read_pins([roots]))
    assert world.source.asked == ["catalog/3.root.json"]
    other = MemorySource({})
    find_pin(other, read_pins([roots]))
    assert other.asked == [f"catalog/{version}.root.json" for version in (3, 2, 1)]


@pytest.mark.parametrize("change", [lambda data: data + b" ", lambda data: b"{}", lambda data: data * 600])
def test_a_pin_fits_byte_for_byte_or_not_at_all(world, roots, change):
    files = world.copy()
    for version in (1, 2, 3):
        files[f"catalog/{version}.root.json"] = change(files[f"catalog/{version}.root.json"])
    assert find_pin(MemorySource(files), read_pins([roots])) is None


class ErrorPages(MemorySource):
    """Answers with a page of words where it has nothing."""

    def read(self, path, *, limit):
        if path not in self.files:
            raise Corrupt("is a page, not a file", place=path)
        return super().read(path, limit=limit)


def test_a_source_with_error_pages_fits_too(world, roots):
    (roots / "ours-3.json").rename(roots / "a-later-one")
    assert find_pin(ErrorPages(world.storage.files), read_pins([roots])).version == 2
    assert find_pin(ErrorPages({}), read_pins([roots])) is None


def test_a_network_that_is_down_says_nothing_about_pins(world, roots):
    world.source.down = True
    with pytest.raises(Unavailable):
        find_pin(world.source, read_pins([roots]))


def test_a_file_that_is_no_root_is_not_passed_over(roots):
    for content in (b"", b"{}", b"\xff"):
        (roots / "b.json").write_bytes(content)
        with pytest.raises(Refused, match="not a TUF root") as caught:
            read_pins([roots])
        assert caught.value.place == str(roots / "b.json")
    (roots / "b.json").unlink()
    (roots / "b.json").symlink_to("nowhere")
    with pytest.raises(Refused, match="leads nowhere"):
        read_pins([roots])
    (roots / "b.json").unlink()
    (roots / "b.json").mkdir()
    with pytest.raises(Unavailable):
        read_pins([roots])


def test_other_files_are_left_alone(roots):
    for name in ("README", "ours.json~", ".ours.json.swp", ".hidden.json"):
        (roots / name).write_text("nothing")
    assert len(read_pins([roots])) == 4

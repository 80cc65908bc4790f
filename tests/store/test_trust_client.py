import fcntl
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import FetcherInterface, Updater

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable, Untrusted
from pacstore.release import Release
from pacstore.trust import entries
from pacstore.trust.metadata import COMPACT, METADATA_LIMITS
from pacstore.trust.targets import CatalogRelease, SignedDocument
from tests.store.trust_signing import renew, sign_line
from tests.store.trust_world import DAY, NOW, RELEASE, MemorySource, World, entry

OTHER = "AtlasOffline-17.2.1-x86_64-slc6-gcc46-opt"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_what_was_published_is_read(world):
    world.publish(OTHER)
    world.publish("Zebra-1-any")
    catalog = world.open()
    assert catalog.release(Release.parse(RELEASE)) == entry()
    assert catalog.releases() == [entry(), entry(OTHER), entry("Zebra-1-any")]
    assert catalog.releases("Zebra") == [entry("Zebra-1-any")]
    assert catalog.releases("Nothing") == []
    assert catalog.projects() == ["AtlasOffline", "Zebra"]
    assert (catalog.version, catalog.root_version) == (world.catalog.version, 1)
    assert catalog.expires == NOW + 30 * DAY


def test_a_second_look_fetches_only_what_changed(world):
    world.open().releases()
    world.source.asked.clear()
    world.open().releases()
    assert world.source.asked == ["catalog/2.root.json", "catalog/timestamp.json"]


def test_a_release_that_is_not_there_names_what_is(world):
    with pytest.raises(NotFound) as caught:
        world.open().release(Release.parse(OTHER))
    assert f"nearest: {RELEASE}" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        world.open().release(Release.parse("AtlasOfline-1-any"))
    assert "has the projects AtlasOffline" in caught.value.hint


def test_an_address_without_a_catalog_is_not_found(world):
    with pytest.raises(NotFound, match="has no catalog"):
        world.open(source=MemorySource({}))


def test_a_network_that_is_down_is_unavailable(world):
    world.source.down = True
    with pytest.raises(Unavailable, match="the network is down"):
        world.open()


def test_a_missing_file_that_was_promised_is_unavailable_not_absent(world):
    for path in [path for path in world.storage.files if "2.snapshot" in path or "placement" in path]:
        files = world.copy()
        del files[path]
        with pytest.raises(Unavailable, match="missing here"):
            world.open(source=MemorySource(files)).release(Release.parse(RELEASE))
        shutil.rmtree(world.state)


def test_an_endless_timestamp_is_too_large(world):
    files = world.copy()
    files["catalog/timestamp.json"] += b" " * METADATA_LIMITS.timestamp_bytes
    with pytest.raises(TooLarge):
        world.open(source=MemorySource(files))


def current_files(world) -> list[str]:
    """The files that a new client reads, the pinned root apart."""
    source = MemorySource(world.copy())
    world.open(source=source).releases()
    shutil.rmtree(world.state)
    return [path for path in source.asked if path in source.files]


def test_a_flipped_byte_anywhere_in_any_file_is_refused(world):
    paths = current_files(world)
    assert len(paths) == 5
    for path in paths:
        data = world.storage.files[path]
        for position in range(0, len(data), max(1, len(data) // 40)):
            files = world.copy()
            files[path] = data[:position] + bytes([data[position] ^ 0x04]) + data[position + 1 :]
            with pytest.raises(Untrusted) as caught:
                world.open(source=MemorySource(files)).releases()
            assert path in caught.value.place
            assert caught.value.hint
            shutil.rmtree(world.state)


def test_a_file_of_another_role_or_release_is_refused(world):
    world.publish("Zebra-1-any")
    for path in current_files(world):
        for other in ("catalog/1.root.json", "catalog/1.line-Zebra.json", "catalog/1.snapshot.json"):
            files = world.copy()
            if files[path] == files[other]:
                continue
            files[path] = files[other]
            # A file that is longer than the signed length is not even read to its end.
            with pytest.raises((Untrusted, TooLarge)):
                world.open(source=MemorySource(files)).releases()
            shutil.rmtree(world.state)


def test_a_rollback_of_the_whole_catalog_is_refused(world):
    old = world.copy()
    world.publish(OTHER)
    world.open()
    with pytest.raises(
        Untrusted, match=r"rolled back: timestamp is version 2, and version 3 was seen before"
    ) as caught:
        world.open(source=MemorySource(old))
    assert "use another source" in caught.value.hint
    assert world.open().release(Release.parse(OTHER)) == entry(OTHER)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 9, None])
def test_damaged_local_state_opens_no_door_and_stops_nobody(world, content):
    old = world.copy()
    world.publish(OTHER)
    for source, refused in ((MemorySource(old), True), (world.source, False)):
        world.open().releases()
        for path in [path for path in world.metadata_dir().rglob("*") if path.is_file() and not path.is_symlink()]:
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        if refused:
            with pytest.raises(Untrusted, match=r"rolled back: timestamp is version 2, and version 3") as caught:
                world.open(source=source)
            assert caught.value.hint
        else:
            assert len(world.open(source=source).releases()) == 2


def test_local_state_that_cannot_be_used_is_replaced(world):
    world.open()
    metadata = world.metadata_dir()
    shutil.rmtree(metadata)
    metadata.write_text("a file in the place of the directory")
    assert world.open().releases() == [entry()]


def test_a_damaged_floor_is_never_ignored(world):
    world.open()
    (record,) = world.floor_records()
    for content in (b"", record.read_bytes()[:-2] + b" }"):
        record.write_bytes(content)
        with pytest.raises(Corrupt) as caught:
            world.open()
        assert caught.value.place == str(record)


def test_the_floor_has_one_record_and_rises(world):
    world.open()
    before = world.floor_records()
    world.open()
    assert world.floor_records() == before
    world.publish(OTHER)
    world.open()
    (record,) = world.floor_records()
    versions = json.loads(record.read_bytes())["versions"]
    assert (versions["timestamp"], versions["root"], versions["line-AtlasOffline"]) == (world.catalog.version, 1, 2)


def test_another_root_is_refused(world, tmp_path):
    stranger = World(tmp_path / "stranger")
    with pytest.raises(Untrusted) as caught:
        world.open(root=stranger.catalog.root_bytes)
    assert "get its new root from its operator" in caught.value.hint
    with pytest.raises(Refused, match="not a TUF root"):
        world.open(root=b"{}")


def test_root_changes_are_followed_from_the_pinned_root(world):
    for _ in range(3):
        renew(world, "root", now=NOW)
    assert world.open().root_version == 4
    files = world.copy()
    del files["catalog/4.root.json"], files["catalog/3.root.json"]
    shutil.rmtree(world.metadata_dir())
    with pytest.raises(Untrusted, match="root is version 2, and version 4"):
        world.open(source=MemorySource(files))


def test_a_line_cannot_speak_for_another(world):
    def forge(line):
        for target in entries.encode_line(entry("Zebra-2-any")):
            line.targets[target.path] = target

    sign_line(world, forge)
    with pytest.raises(NotFound):
        world.open().release(Release.parse("Zebra-2-any"))
    with pytest.raises(Corrupt, match="may sign"):
        world.open().releases()


MANIFEST = f"releases/AtlasOffline/{RELEASE}/manifest"
BAD_FIELDS = [
    ("digest", "x" * 64),
    ("digest", None),
    ("tree_digest", 5),
    ("tree_digest", "AB" * 32),
    ("bytes", "12"),
    ("bytes", -1),
    ("bytes", True),
    ("bytes", 1 << 63),
    ("files", None),
    ("published", "2023-11-14 22:13:20"),
    ("published", 17),
]


@pytest.mark.parametrize(("key", "value"), BAD_FIELDS)
def test_signed_nonsense_is_corrupt(world, key, value):
    sign_line(world, lambda line: line.targets[MANIFEST].custom.update({key: value}))
    for use in (lambda: world.open().releases(), lambda: world.open().release(Release.parse(RELEASE))):
        with pytest.raises(Corrupt) as caught:
            use()
        assert caught.value.place == MANIFEST


def test_unknown_fields_are_ignored_and_missing_targets_are_not(world):
    sign_line(world, lambda line: line.targets[MANIFEST].custom.update({"later": {"new": 1}}))
    assert world.open().releases() == [entry()]
    sign_line(world, lambda line: line.targets.pop(MANIFEST.replace("manifest", "attributes")))
    shutil.rmtree(world.state)
    with pytest.raises(Corrupt, match="incomplete"):
        world.open().releases()


def test_a_lock_that_is_held_delays_but_does_not_stop(world):
    old = world.copy()
    world.publish(OTHER)
    world.open()
    (lock,) = world.state.glob("*/lock")
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert len(world.open(lock_seconds=0.1).releases()) == 2
        with pytest.raises(Untrusted, match="rolled back"):
            world.open(source=MemorySource(old), lock_seconds=0)
    finally:
        os.close(descriptor)


def test_clients_that_share_a_directory_all_succeed(world):
    publishing = Lock()

    def read(n: int) -> int:
        if n % 4 == 0:
            with publishing:
                world.publish(f"AtlasOffline-18.{n}-any")
        return len(world.open(lock_seconds=(n % 3) * 0.2).releases())

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(read, range(24)))
    assert min(counts) >= 1
    assert len(world.open().releases()) == 7


def test_an_unmodified_client_of_tuf_follows_the_repository(world, tmp_path):
    class Plain(FetcherInterface):
        def _fetch(self, url):
            path = url.removeprefix("http://mirror/")
            if path not in world.storage.files:
                raise DownloadHTTPError("not found", 404)
            yield world.storage.files[path]

    # This client has no clock but that of the machine.
    for n in range(3):
        world.publish(f"AtlasOffline-18.{n}-any", now=NOW)
        renew(world, now=4_000_000_000.0)
        world.publish("Zebra-1-any", now=4_000_000_000.0)
        updater = Updater(
            str(tmp_path / "tuf"), "http://mirror/catalog/", fetcher=Plain(), bootstrap=world.catalog.root_bytes
        )
        later = {Release.parse(RELEASE): (entry(number=n + 2).placement, n + 2)}
        world.catalog.replace_placements(later, world.keys, now=4_000_000_000.0)
        updater.refresh()
        target = updater.get_targetinfo(f"releases/AtlasOffline/{RELEASE}/placement")
        assert target.custom == {"digest": entry(number=n + 2).placement.digest.hex, "number": n + 2}


def test_a_line_of_ten_thousand_releases_fits(world):
    longest = "P" * 146
    largest = SignedDocument(entry().tree_digest, 8 << 30, b"\xff" * 32)
    one = CatalogRelease(
        Release(longest, "1", "a"),
        entry().tree_digest,
        largest,
        largest,
        largest,
        2**63 - 1,
        2**63 - 1,
        2**63 - 1,
        int(NOW),
    )
    bare, full = Targets(), Targets()
    full.targets = {target.path: target for target in entries.encode_line(one)}
    size = len(Metadata(full).to_bytes(COMPACT)) - len(Metadata(bare).to_bytes(COMPACT))
    assert len(str(one.release)) == 150
    assert size + 1 <= 1_202
    assert METADATA_LIMITS.targets_bytes > 10_000 * 1_202 + 10_000

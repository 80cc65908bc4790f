"""What is said about a catalog that does not verify: which role, which version, why, and what to do."""

import pytest
from tuf.api.exceptions import BadVersionNumberError, LengthOrHashMismatchError, RepositoryError, UnsignedMetadataError
from tuf.ngclient._internal import trusted_metadata_set

from pacstore.errors import Untrusted
from pacstore.release import Release
from pacstore.trust.fetcher import BASE_URL, SourceFetcher, pacball_errors
from tests.store.trust_signing import LINE, sign_role, sign_snapshot, sign_timestamp
from tests.store.trust_world import RELEASE, MemorySource, World

# (python-tuf's words, ours); its order of old and new differs from one to the other.
ROLLBACKS = (
    ("New timestamp version 2 must be >= 3", "timestamp is version 2, and version 3 was seen before"),
    ("New snapshot version must be >= 3, got version 2", "snapshot is version 2, and version 3 was seen before"),
    ("Expected line-A.json version 2, got 3.", "line-A is version 2, and version 3 was seen before"),
)
MIXTURES = (
    ("Expected root version 2 instead got version 5", "root is version 5, not 2"),
    ("Expected snapshot version 2, got 5", "snapshot is version 5, not 2"),
    ("Expected line-A v2, got v5.", "line-A is version 5, not 2"),
)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def said(error: Exception, file: str = "3.snapshot.json") -> Untrusted:
    fetcher = SourceFetcher(MemorySource({f"catalog/{file}": b"x"}))
    fetcher.download_bytes(BASE_URL + file, 10)
    with pytest.raises(Untrusted) as caught, pacball_errors(fetcher):
        raise error
    assert caught.value.place == f"memory/catalog/{file}"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(("theirs", "ours"), ROLLBACKS)
def test_a_rollback_says_both_versions(theirs, ours):
    error = said(BadVersionNumberError(theirs))
    assert error.message == f"the catalog was rolled back: {ours}"
    assert "use another source" in error.hint


@pytest.mark.parametrize(("theirs", "ours"), MIXTURES)
def test_a_mixture_says_both_versions(theirs, ours):
    error = said(BadVersionNumberError(theirs))
    assert error.message == f"the catalog is mixed from several versions: {ours}"
    assert "try again" in error.hint


def test_words_that_are_not_known_are_passed_on():
    error = said(BadVersionNumberError("version 7 is nothing"))
    assert "snapshot, version 3: version 7 is nothing" in error.message


@pytest.mark.parametrize(
    ("error", "file", "message"),
    [
        (UnsignedMetadataError("snapshot was signed by 0/1 keys"), "3.snapshot.json", "snapshot, version 3: snapshot was"),
        (UnsignedMetadataError("timestamp was signed by 0/1 keys"), "timestamp.json", "believed: timestamp was signed"),
        (LengthOrHashMismatchError("Observed hash"), "12.line-A.json", "line-A, version 12: Observed hash"),
        (RepositoryError(), "timestamp.json", "timestamp: RepositoryError"),
    ],
)  # fmt: skip
def test_other_faults_say_role_and_version(error, file, message):
    assert message in said(error, file).message


def test_python_tuf_still_says_it_in_these_words():
    # Its source is looked at, because the last three cannot be brought about from outside: hashes do not match before.
    with open(trusted_metadata_set.__file__, encoding="utf-8") as file:
        source = "".join(file.read().replace('f"', "").replace('"', "").split())
    for words in (
        "New timestamp version {new_timestamp.version} must be >= {self.timestamp.version}",
        "New snapshot version must be >= {snapshot_meta.version}, got version {new_snapshot_meta.version}",
        "Expected {filename} version {new_fileinfo.version}, got {fileinfo.version}.",
        "Expected root version {self.root.version + 1} instead got version {new_root.version}",
        "Expected snapshot version {snapshot_meta.version}, got {self.snapshot.version}",
        "Expected {role_name} v{meta.version}, got v{version}.",
    ):
        assert "".join(words.split()) in source


def test_an_older_snapshot_is_named(world):
    world.open()

    def older(timestamp) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta.version = 1

    sign_timestamp(world, older)
    with pytest.raises(Untrusted, match="rolled back: snapshot is version 1, and version 2 was seen before"):
        world.open()


def test_an_older_line_is_named(world):
    world.publish("AtlasOffline-18-any")
    world.open()
    world.publish("Zebra-1-any")
    sign_snapshot(world, lambda snapshot: setattr(snapshot.meta[f"{LINE}.json"], "version", 1))
    with pytest.raises(Untrusted, match="rolled back: line-AtlasOffline is version 1, and version 2 was seen before"):
        world.open()


def test_a_line_of_another_key_says_so(world):
    sign_role(world, LINE, lambda _: None, key="targets")
    with pytest.raises(
        Untrusted, match="line-AtlasOffline, version 1: line-AtlasOffline was signed by 0/1 keys"
    ) as caught:
        world.open().release(Release.parse(RELEASE))
    assert "pacball trust status" in caught.value.hint

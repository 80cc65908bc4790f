"""A stolen online key withholds and slows, but it invents nothing, and what was done with it is forgotten with it."""

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Targets

from pacstore.errors import Refused, Untrusted
from pacstore.trust import entries
from pacstore.trust.metadata import COMPACT
from tests.store.trust_world import NOW, RELEASE, Foreign, World, entry, followers, releases_of

LINE, PLACEMENT = "line-AtlasOffline", "placement-AtlasOffline"
NEWER = "AtlasOffline-18-any"


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    releases_of(world.storage.files, world.state)
    return world


class Thief:
    """Has the online key, and serves files of his own."""

    def __init__(self, world: World) -> None:
        self.files = world.copy()
        self.key = world.keys.signer("online")
        self.timestamp = Metadata.from_bytes(self.files["catalog/timestamp.json"])
        version = self.timestamp.signed.snapshot_meta.version
        self.snapshot = Metadata.from_bytes(self.files[f"catalog/{version}.snapshot.json"])

    def load(self, role: str) -> Metadata:
        version = self.snapshot.signed.meta[f"{role}.json"].version
        return Metadata.from_bytes(self.files[f"catalog/{version}.{role}.json"])

    def put(self, role: str, metadata: Metadata, *, sign: bool = True) -> MetaFile:
        if sign:
            metadata.sign(self.key)
        data = metadata.to_bytes(COMPACT)
        self.files[f"catalog/{metadata.signed.version}.{role}.json"] = data
        return MetaFile.from_data(metadata.signed.version, data, ["sha256"])

    def list(self, role: str, meta: MetaFile) -> None:
        self.snapshot.signed.meta[f"{role}.json"] = meta

    def commit(self, *, version: int = 0) -> dict[str, bytes]:
        self.snapshot.signed.version = version or self.snapshot.signed.version + 1
        self.timestamp.signed.version = version or self.timestamp.signed.version + 1
        self.timestamp.signed.snapshot_meta = self.put("snapshot", self.snapshot)
        self.put("timestamp", self.timestamp)
        self.files["catalog/timestamp.json"] = self.timestamp.to_bytes(COMPACT)
        return self.files


def invents_a_placement(thief: Thief) -> None:
    placements = thief.load(PLACEMENT)
    target = entries.encode_placement(entry("AtlasOffline-666-any"))
    placements.signed.targets[target.path] = target
    placements.signed.version += 1
    thief.list(PLACEMENT, thief.put(PLACEMENT, placements))


def invents_a_manifest_among_placements(thief: Thief) -> None:
    placements = thief.load(PLACEMENT)
    for target in entries.encode_line(entry("AtlasOffline-666-any")):
        placements.signed.targets[target.path] = target
    invents_a_placement(thief)


def invents_a_manifest_in_the_line(thief: Thief) -> None:
    line = thief.load(LINE)
    for target in entries.encode_line(entry("AtlasOffline-666-any")):
        line.signed.targets[target.path] = target
    line.signed.version += 1
    thief.list(LINE, thief.put(LINE, line))
    invents_a_placement(thief)


def replaces_a_manifest(thief: Thief) -> None:
    line = thief.load(LINE)
    for target in entries.encode_line(entry(tree="evil")):
        line.signed.targets[target.path] = target
    thief.list(LINE, thief.put(LINE, line, sign=False))


def delegates_to_himself(thief: Thief) -> None:
    targets = thief.load("targets")
    targets.signed.add_key(thief.key.public_key, LINE)
    targets.signed.version += 1
    thief.list("targets", thief.put("targets", targets))


def makes_a_line(thief: Thief) -> None:
    for role in ("line-Zebra", "placement-Zebra"):
        thief.list(role, thief.put(role, Metadata(Targets())))
    delegates_to_himself(thief)


def rolls_back_the_line(thief: Thief) -> None:
    old = thief.files[f"catalog/1.{LINE}.json"]
    thief.list(LINE, MetaFile.from_data(1, old, ["sha256"]))


def hides_the_line(thief: Thief) -> None:
    del thief.snapshot.signed.meta[f"{LINE}.json"]


INVENTIONS = [
    invents_a_placement,
    invents_a_manifest_among_placements,
    invents_a_manifest_in_the_line,
    replaces_a_manifest,
    delegates_to_himself,
    makes_a_line,
    rolls_back_the_line,
    hides_the_line,
]


@pytest.mark.parametrize("invention", INVENTIONS)
@pytest.mark.parametrize("knows", [True, False])
def test_a_thief_of_the_online_key_invents_nothing(world, tmp_path, invention, knows):
    world.publish(NEWER)
    true = [RELEASE, NEWER]
    state = world.state if knows else tmp_path / "new"
    if knows:
        assert releases_of(world.storage.files, state) == true
    thief = Thief(world)
    invention(thief)
    try:
        seen = releases_of(thief.commit(), state)
    except (Untrusted, RepositoryError):
        seen = []
    # A new client cannot know what was there: an old state can be shown to it.
    withheld = [] if knows or invention is not rolls_back_the_line else [RELEASE]
    assert seen in ([], true, withheld)
    if seen:
        foreign = Foreign(thief.files, tmp_path / "foreign", world.catalog.root_bytes)
        assert foreign.manifest(RELEASE) == entry().manifest.sha256.hex()
        assert foreign.manifest("AtlasOffline-666-any") is None


@pytest.mark.parametrize("version", [1 << 31, (1 << 31) - 1, 1 << 62])
def test_versions_that_a_thief_has_driven_up_are_forgotten_with_his_key(world, tmp_path, version):
    thief = Thief(world)
    placements = thief.load(PLACEMENT)
    placements.signed.version = version
    thief.list(PLACEMENT, thief.put(PLACEMENT, placements))
    assert releases_of(thief.commit(version=version), world.state) == [RELEASE]
    world.publish(NEWER)
    # What the origin has published since is older than what this client has seen.
    with pytest.raises(Untrusted, match="rolled back"):
        releases_of(world.storage.files, world.state)
    new = world.keys.create("online-2")
    world.catalog.revoke(world.keys.public("online").keyid, new, world.keys, now=NOW)
    assert followers(world, tmp_path) == [[RELEASE, NEWER]] * 3
    with pytest.raises(Untrusted):
        releases_of(thief.files, world.state)
    assert world.catalog.version < 10


def test_a_thief_who_writes_into_the_store_drives_up_its_versions_at_most(world, tmp_path):
    """The origin goes on from what it finds; republishing is not needed, and clients follow."""
    thief = Thief(world)
    world.storage.files.update(thief.commit(version=1 << 40))
    world.publish(NEWER)
    assert world.catalog.version == (1 << 40) + 1
    assert followers(world, tmp_path) == [[RELEASE, NEWER]] * 3
    with pytest.raises(Refused, match="has version"):
        world.catalog.republish(world.keys, now=NOW, above=1000)

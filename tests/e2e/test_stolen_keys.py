"""What a mirror can do with keys that it has stolen, or as another line's manager: withhold, but never invent.

And what brings a catalog back: keys are changed with the real commands, and installers that slept meanwhile follow.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, TargetFile

from pacmirror.source import HttpSource
from pacstore import codec
from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.manifest import Manifest
from pacstore.pack import FOOTER_BYTES, FRAMES_BEGIN
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.trust.client import open_catalog
from pacstore.trust.keyring import KeyRing
from pacstore.trust.targets import SignedDocument
from tests.e2e.attacker import mirroring
from tests.e2e.forger import Forger, new_key, put, target_of
from tests.e2e.site import Site
from tests.e2e.victims import NEW, OLD, OTHER, copied, path_of, world_below
from tests.mirror.scripted import answer
from tests.store.statements import slsa_1

pytestmark = pytest.mark.slow

FORGED = "Demo-6.6-any"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return world_below(tmp_path_factory.getbasetemp())


@pytest.fixture
def mirror(world, tmp_path):
    """A mirror whose files may be forged."""
    with mirroring(copied(world.second, tmp_path / "public")) as made:
        yield made


@pytest.fixture
def thief(world, mirror):
    """Who has stolen the online key, and the mirror."""
    return Forger(mirror.public, world.keys.signer("online"))


@pytest.fixture
def online(world):
    return world.keys.signer("online")


def add_forged(signed):
    """A release that the line never published, beside the others."""
    for path, target in list(signed.targets.items()):
        again = TargetFile(target.length, target.hashes, path.replace(NEW, FORGED), target.unrecognized_fields)
        signed.targets[again.path] = again


@pytest.mark.parametrize("who", ["nobody", "line-Other", "online"])
def test_a_line_is_signed_by_its_own_keys(world, mirror, thief, online, tmp_path, who):
    victim = world.early(tmp_path / "victim")
    thief.sign("line-Demo", add_forged, new_key() if who == "nobody" else world.keys.signer(who))
    thief.sign("placement-Demo", add_forged, online)
    said = ("3.line-Demo.json", "line-Demo was signed by 0/1 keys", "get its new root from its operator")
    victim.refuses(mirror, 8, *said, release=FORGED)
    victim.refuses(mirror, 8, *said)
    mirror.public = world.second
    # It is the recovery from a stolen online key that lets older versions in again: see below.
    victim.refuses(mirror, 8, "rolled back: timestamp is version 5, and version 7 was seen")


def test_a_placement_speaks_for_no_manifest(world, mirror, thief, online, tmp_path):
    victim = world.early(tmp_path / "victim")
    line = thief.read("line-Demo").signed

    def add_manifests(signed):
        signed.targets.update(line.targets)
        add_forged(signed)

    for role in ("placement-Demo", "placement-Other"):
        thief.sign(role, add_manifests, online)
    victim.refuses(mirror, 3, f"{FORGED}: is not in the catalog", f"nearest: {NEW}", release=FORGED)
    victim.installs(mirror)


def delegate(role, key):
    """Let placements say nothing any more, but delegate everything to `role`, for which only `key` signs."""

    def change(signed):
        signed.targets.clear()
        signed.delegations = Delegations({}, {role: DelegatedRole(role, [], 1, False, paths=["releases/*/*/*"])})
        signed.add_key(key.public_key, role)

    return change


def forge_line(thief, change):
    """The path and the bytes of the newest version of line-Demo as another key signs it; listed without a hash."""
    key, path = new_key(), path_of(thief.public, "line-Demo")
    before, metadata = (thief.public / path).read_bytes(), thief.read("line-Demo")
    change(metadata.signed)
    thief.write("line-Demo", metadata, key)
    forged = (thief.public / path).read_bytes()
    (thief.public / path).write_bytes(before)
    thief.snapshot(lambda signed: signed.meta.update({"line-Demo.json": MetaFile(metadata.signed.version)}))
    return key, path, forged


def test_a_placement_delegates_to_nobody_else_in_the_name_of_a_line(world, mirror, thief, online, tmp_path):
    placement = thief.read("placement-Demo").signed.targets[f"releases/Demo/{NEW}/placement"]
    manifest = thief.read("line-Demo").signed.targets[f"releases/Demo/{NEW}/manifest"]
    subject = {"name": NEW, "digest": {"pacballTree": manifest.custom["tree_digest"]}}
    statement = json.dumps(slsa_1(subject)).replace("https://example.org/builder", "forged").encode()
    provenance = put(thief.public, ObjectKind.PROVENANCE, statement)

    def attach(signed):
        signed.targets[placement.path] = placement
        target = target_of(f"releases/Demo/{NEW}/provenance", provenance)
        signed.targets[target.path] = target

    key, path, forged = forge_line(thief, attach)
    thief.sign("placement-Demo", delegate("line-Demo", key), online)
    mirror.gives(path, forged)
    victim = world.late(tmp_path / "victim")
    assert "forged" not in victim.prints("show", NEW, *victim.source(mirror), "--provenance")
    assert "forged" not in victim.prints("show", NEW, *victim.source(mirror))
    victim.refuses(mirror, 4, f"{NEW}: is incomplete in the catalog")


def test_no_line_takes_the_place_of_another_in_one_process(world, mirror, thief, online, tmp_path):
    key, path, forged = forge_line(thief, add_forged)
    thief.sign("placement-Demo", add_forged, online)
    thief.sign("placement-Other", delegate("line-Demo", key), online)
    with HttpSource(mirror.url) as source:
        catalog = open_catalog(source, root=world.root_keys.read_bytes(), state_dir=tmp_path, now=time.time())
        assert [str(entry.release) for entry in catalog.releases("Demo")] == [OLD, NEW]
        mirror.gives(path, forged)
        with pytest.raises(PacballError):
            catalog.release(Release.parse(OTHER))
        assert [str(entry.release) for entry in catalog.releases("Demo")] == [OLD, NEW]


def test_a_placement_that_leads_to_other_bytes(world, mirror, thief, online, tmp_path):
    victim = world.early(tmp_path / "victim")
    path = f"releases/Demo/{NEW}/placement"
    digest = Digest.parse(
        thief.read("line-Demo").signed.targets[path.replace("placement", "manifest")].custom["digest"]
    )
    manifest = Manifest.parse((mirror.public / object_path(ObjectKind.MANIFEST, digest)).read_bytes(), place="")
    where = mirror.public / document_path(DocumentKind.PLACEMENT, f"{NEW}.1")
    placement = Placement.parse(where.read_bytes(), manifest, place="")
    assert placement.frames == 1
    frame = codec.compress(b"evil" * (int(placement.frame_plain_lengths[0]) // 4), 3)
    pack = bytes(FRAMES_BEGIN) + frame + bytes(FOOTER_BYTES)
    evil = put(mirror.public, ObjectKind.PACK, pack)
    forged = dataclasses.replace(
        placement,
        pack_ids=np.frombuffer(evil.digest.raw, np.uint8).reshape(placement.pack_ids.shape),
        pack_lengths=np.full_like(placement.pack_lengths, len(pack)),
        frame_offsets=np.full_like(placement.frame_offsets, FRAMES_BEGIN),
        frame_lengths=np.full_like(placement.frame_lengths, len(frame)),
        frame_digests=np.frombuffer(Digest.of(frame).raw, np.uint8).reshape(placement.frame_digests.shape),
    ).encode()
    where.write_bytes(forged)
    document = SignedDocument.of_all([forged])

    def replace(signed):
        signed.targets[path] = target_of(path, document, number=1)

    thief.sign("placement-Demo", replace, online)
    victim.refuses(mirror, 4, str(evil.digest), "does not hold the chunk that its placement promises", "another source")
    assert mirror.asked[object_path(ObjectKind.PACK, evil.digest)] == 2


# Recovery


class Operator:
    """Who has all keys, and a copy of the store to change with real commands."""

    def __init__(self, world, home):
        self.site = Site(home / "operator")
        self.store = home / "store"
        shutil.copytree(world.store, self.store)
        shutil.copytree(world.keys.directory, home / "keys")
        self.ring = KeyRing(home / "keys")
        self.public = self.store / "public"

    def trust(self, *words):
        """A command of `pacball trust` that changes the catalog at once."""
        done = self.site.ok("trust", *words, "--store", self.store, "--keys", self.ring.directory)
        assert done["waiting"] == []

    def new(self, name):
        """The public file of a new key."""
        self.ring.create(name)
        return self.ring.public_path(name)

    def replace(self, role, old, new):
        """Another key for a role."""
        self.trust("rotate", role, "--add", self.new(new), "--remove", old)


@pytest.fixture
def operator(world, tmp_path):
    return Operator(world, tmp_path)


def test_versions_that_were_run_up_and_the_recovery(world, mirror, thief, operator, tmp_path):
    victim = world.early(tmp_path / "victim")
    thief.snapshot(lambda signed: signed.meta.update({"line-Other.json": MetaFile(10**30)}), version=2**62)
    thief.timestamp(lambda _: None, version=2**63 - 1)
    victim.installs(mirror)
    forged, mirror.public = mirror.public, operator.public
    victim.refuses(mirror, 8, "rolled back: timestamp is version 5, and version 9223372036854775807 was seen")
    operator.trust("revoke", "online", "--replace-with", operator.new("online-2"))
    victim.installs(mirror, OLD)
    mirror.public = forged
    victim.refuses(mirror, 8, "timestamp")
    shutil.copy(operator.public / "catalog/3.root.json", forged / "catalog")
    victim.refuses(mirror, 8, "timestamp was signed by 0/1 keys")
    mirror.public = operator.public
    victim.installs(mirror)


def test_a_catalog_that_is_too_large_to_remember(world, mirror, thief, tmp_path):
    # 8 MB as they are sent, and three times as many as they would be kept.
    victim = world.early(tmp_path / "victim")
    roles = {f"{chr(0x1F600) * 1000}{number}.json": MetaFile(1) for number in range(1900)}
    thief.snapshot(lambda signed: signed.meta.update(roles))
    victim.refuses(mirror, 5, "too much to remember", "use another source")
    mirror.public = world.second
    # Nothing was remembered but what python-tuf knows, which a new key makes it forget.
    shutil.rmtree(victim.state / "metadata")
    victim.installs(mirror)


def test_a_key_that_was_revoked(world, mirror, operator, tmp_path):
    victim = world.early(tmp_path / "victim")
    operator.trust("revoke", "line-Demo", "--replace-with", operator.new("line-Demo-2"))
    mirror.public = copied(operator.public, tmp_path / "forged")
    thief = Forger(mirror.public, world.keys.signer("online"))
    thief.sign("line-Demo", add_forged, world.keys.signer("line-Demo"))
    thief.sign("placement-Demo", add_forged, world.keys.signer("online"))
    victim.refuses(mirror, 8, "line-Demo was signed by 0/1 keys", release=FORGED)
    # What that key had signed while it was good is signed again by the new one.
    victim = world.early(tmp_path / "another")
    mirror.public = operator.public
    victim.installs(mirror)


def test_an_installer_that_slept_through_every_change_of_keys(world, mirror, operator, tmp_path):
    sleeping = [world.early(tmp_path / f"victim{number}") for number in range(2)]
    operator.replace("root", "root", "root-2")
    operator.replace("online", "online", "online-2")
    operator.replace("root", "root-2", "root-3")
    operator.replace("targets", "targets", "targets-2")
    operator.replace("line-Demo", "line-Demo", "line-Demo-2")
    operator.replace("root", "root-3", "root-4")
    operator.trust("refresh")
    mirror.public = operator.public
    roots = [operator.public / f"catalog/{version}.root.json" for version in range(1, 8)]
    assert all(root.exists() for root in roots)
    mirror.says("catalog/4.root.json", answer("404 Not Found"))
    sleeping[0].refuses(mirror, 8, "was signed by 0/1 keys")
    mirror.gives("catalog/4.root.json", (operator.public / "catalog/5.root.json").read_bytes())
    sleeping[0].refuses(mirror, 8, "root is version 5, not 4")
    mirror.is_honest()
    sleeping[0].installs(mirror)
    sleeping[1].installs(mirror)
    world.fresh(tmp_path / "new").installs(mirror)


# Roots


def rename(signed):
    """A change that means nothing."""
    signed.unrecognized_fields["note"] = "changed"


def give_to(key):
    """Let only `key` sign for a role of the root."""

    def change(signed):
        for role in signed.roles:
            for keyid in list(signed.roles[role].keyids):
                signed.revoke_key(keyid, role)
            signed.add_key(key.public_key, role)

    return change


def ask_for_two(key):
    def change(signed):
        signed.add_key(key.public_key, "root")
        signed.roles["root"].threshold = 2

    return change


def only_new(forger, root, key):
    forger.root(give_to(key), key)


def only_old(forger, root, key):
    forger.root(give_to(key), root)


def too_few(forger, root, key):
    forger.root(ask_for_two(key), root, key)
    forger.root(rename, root)


def gap(forger, root, key):
    forger.root(rename, root)
    forger.root(rename, root, name=3)


def loop(forger, root, key):
    shutil.copy(forger.public / "catalog/1.root.json", forger.public / "catalog/3.root.json")


def too_many(forger, root, key):
    for _ in range(300):
        forger.root(rename, root)


CHAINS = {
    only_new: "root, version 3: root was signed by 0/1 keys",
    only_old: "root, version 3: root was signed by 0/1 keys",
    too_few: "root, version 4: root was signed by 1/2 keys",
    gap: "root is version 4, not 3",
    loop: "root is version 1, not 3",
    too_many: "the root was changed too often since the pinned one",
}


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.__name__)
def test_a_chain_of_roots_that_does_not_hold(world, mirror, thief, tmp_path, chain):
    victim = world.early(tmp_path / "victim")
    chain(thief, world.keys.signer("root"), new_key())
    victim.refuses(mirror, 8, CHAINS[chain], ".root.json")
    assert sum(mirror.asked[f"catalog/{version}.root.json"] for version in range(1000)) <= 258
    if chain is not too_few and chain is not too_many:
        mirror.public = world.second
        victim.installs(mirror)

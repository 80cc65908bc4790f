"""For the tests of clients: what operators, key holders and thieves sign, in one place."""

from __future__ import annotations

from tuf.api.metadata import Metadata, MetaFile

from pacstore.trust.metadata import COMPACT
from tests.store.trust_world import World

LINE = "line-AtlasOffline"


def refresh(world: World, *, now: float) -> None:
    """The operator's timer: signs what the online key signs."""
    world.catalog.refresh(world.keys, now=now)


def renew(world: World, *roles: str, now: float) -> None:
    """The holders of keys sign these roles anew, or root, targets and the line."""
    world.catalog.renew(roles or ("root", "targets", LINE), world.keys, now=now)


def new_online_key(world: World, *, now: float) -> None:
    """The holders of the root replace the online key by another one."""
    old = world.keys.public("online")
    new = world.keys.create("online-2")
    world.catalog.rotate("online", world.keys, now=now, add=[new], remove=[old.keyid])


def sign_again(world: World, name: str, change, key: str) -> None:
    """Sign the newest `catalog/NAME.json` again after `change` of its signed part, in place; nothing else follows."""
    path = f"catalog/{name}.json"
    metadata = Metadata.from_bytes(world.storage.files[path])
    change(metadata.signed)
    metadata.sign(world.keys.signer(key))
    world.storage.files[path] = metadata.to_bytes(COMPACT)


def sign_timestamp(world: World, change, *, key: str = "online") -> None:
    """Sign the timestamp again after `change`."""
    sign_again(world, "timestamp", change, key)


def sign_snapshot(world: World, change) -> None:
    """Sign the newest snapshot again after `change`, and the timestamp that lists it."""
    files = world.storage.files
    timestamp = Metadata.from_bytes(files["catalog/timestamp.json"]).signed
    name = f"{timestamp.snapshot_meta.version}.snapshot"
    sign_again(world, name, change, "online")
    again = MetaFile.from_data(timestamp.snapshot_meta.version, files[f"catalog/{name}.json"], ["sha256"])
    sign_timestamp(world, lambda signed: setattr(signed, "snapshot_meta", again))


def sign_role(world: World, role: str, change, *, key: str) -> None:
    """Sign a role again after `change`, and what lists it."""
    files = world.storage.files
    timestamp = Metadata.from_bytes(files["catalog/timestamp.json"]).signed
    snapshot = Metadata.from_bytes(files[f"catalog/{timestamp.snapshot_meta.version}.snapshot.json"]).signed
    version = snapshot.meta[f"{role}.json"].version
    sign_again(world, f"{version}.{role}", change, key)
    again = MetaFile.from_data(version, files[f"catalog/{version}.{role}.json"], ["sha256"])
    sign_snapshot(world, lambda signed: signed.meta.update({f"{role}.json": again}))


def sign_line(world: World, change) -> None:
    """Publish a line whose holder signs whatever `change` makes of it."""
    sign_role(world, LINE, change, key=LINE)

"""What is believed of a catalog that has expired: what was seen while it was fresh, and nothing else."""

import os
import shutil
import stat

import pytest

from pacstore.errors import NotFound, Untrusted
from pacstore.release import Release
from pacstore.trust.client import open_insecurely
from pacstore.trust.clock import date
from pacstore.trust.metadata import at
from tests.store.trust_signing import LINE, refresh, renew, sign_line, sign_role, sign_timestamp
from tests.store.trust_world import DAY, NOW, RELEASE, MemorySource, World, entry

OTHER = "AtlasOffline-17.2.1-x86_64-slc6-gcc46-opt"
LATE = NOW + 31 * DAY
YEARS = NOW + 400 * DAY
KNOWN = Release.parse(RELEASE)
NEW = Release.parse(OTHER)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def told():
    return []


def refusal(world, name=KNOWN, **options) -> Untrusted:
    with pytest.raises(Untrusted) as caught:
        world.open(**options).release(name)
    return caught.value


def test_a_release_that_was_seen_is_believed_with_a_warning(world, told):
    assert world.open().release(KNOWN) == entry()
    catalog = world.open(now=LATE, warn=told.append)
    assert told == []
    assert catalog.release(KNOWN) == entry()
    (warning,) = told
    assert f"timestamp, version 2, expired at {date(NOW + 30 * DAY)}" in warning
    assert f"signed at {date(NOW)}, 31 days ago" in warning
    assert catalog.stale in warning


def test_a_release_that_was_not_seen_is_refused_with_the_remedy(world, told):
    world.open().release(KNOWN)
    world.publish(OTHER)
    error = refusal(world, NEW, now=LATE, warn=told.append)
    assert f"{OTHER} was not seen here" in error.message
    assert "timestamp, version 3, expired" in error.message
    assert "pacball trust refresh --store" in error.hint
    assert "--renew" not in error.hint
    assert "use a source" in error.hint
    assert told == []
    refresh(world, now=LATE)
    assert world.open(now=LATE).release(NEW) == entry(OTHER)


def test_to_have_opened_a_catalog_is_not_to_have_seen_its_releases(world):
    world.open()
    refusal(world, now=LATE)


def test_fresh_is_fresh(world, told):
    catalog = world.open(now=NOW + 30 * DAY - 1, warn=told.append)
    assert (catalog.release(KNOWN), catalog.releases(), catalog.stale, told) == (entry(), [entry()], "", [])
    refusal(World(world.state.parent / "again"), now=NOW + 30 * DAY)


def test_the_same_name_with_another_manifest_was_not_seen(world):
    world.open().release(KNOWN)

    def alter(line):
        target = line.targets[f"releases/AtlasOffline/{RELEASE}/manifest"]
        target.custom["digest"] = "ab" * 32

    sign_line(world, alter)
    shutil.rmtree(world.metadata_dir())
    assert "was not seen here" in refusal(world, now=LATE).message


def test_the_same_manifest_under_another_name_was_not_seen(world):
    world.open().release(KNOWN)

    def copy(line):
        for path in list(line.targets):
            line.targets[path.replace("17.2.0", "17.2.9")] = line.targets[path]

    sign_line(world, copy)
    shutil.rmtree(world.metadata_dir())
    sign_role(
        world,
        "placement-AtlasOffline",
        lambda signed: signed.targets.update({p.replace("17.2.0", "17.2.9"): t for p, t in signed.targets.items()}),
        key="online",
    )
    refusal(world, Release.parse(RELEASE.replace("17.2.0", "17.2.9")), now=LATE)


def test_a_listing_shows_what_was_seen_and_how_much_is_hidden(world, told):
    world.open().releases()
    world.publish(OTHER)
    world.publish("AtlasOffline-17.2.2-any")
    world.publish("Zebra-1-any")
    assert world.open(now=LATE, warn=told.append).releases() == [entry()]
    assert len(told) == 2
    assert "out of date" in told[0]
    assert "not shown, because they were not seen here while it was fresh: 3" in told[1]
    with pytest.raises(Untrusted, match="none of its releases was seen"):
        world.open(now=LATE).releases("Zebra")
    assert world.open(now=LATE).releases("Nothing") == []


def test_what_is_not_in_an_expired_catalog_may_be_in_a_newer_one(world):
    world.open().releases()
    error = refusal(world, NEW, now=LATE)
    assert "a newer one may have it" in error.message
    with pytest.raises(NotFound):
        world.open().release(NEW)


def test_each_line_counts_for_itself(world, told):
    world.publish("Zebra-1-any")
    zebra = Release.parse("Zebra-1-any")
    world.open().release(zebra)
    assert world.open(now=LATE).release(zebra) == entry("Zebra-1-any")
    refusal(world, now=LATE)
    # Its line expires, that of the other one does not.
    refresh(world, now=LATE)
    sign_role(world, "line-Zebra", lambda line: setattr(line, "expires", at(LATE)), key="line-Zebra")
    catalog = world.open(now=LATE, warn=told.append)
    assert catalog.release(KNOWN) == entry()
    assert (catalog.stale, told) == ("", [])
    assert catalog.release(zebra) == entry("Zebra-1-any")
    assert "line-Zebra, version 1, expired" in catalog.stale
    assert len(told) == 1
    assert catalog.release(KNOWN) == entry()
    assert len(told) == 1
    # What is fresh is still seen and shown, whatever else has expired.
    assert world.open(now=LATE).releases() == [entry(), entry("Zebra-1-any")]


@pytest.mark.parametrize("role", ["root", "targets", LINE])
def test_what_people_sign_needs_their_keys(world, role):
    world.open().releases()
    renew(world, *({"root", "targets", LINE} - {role}), now=YEARS)
    refresh(world, now=YEARS)
    world.publish("Zebra-1-any", now=YEARS) if role == LINE else None
    assert world.open(now=YEARS).release(KNOWN) == entry()
    stranger = World(world.state.parent / "stranger")
    renew(stranger, *({"root", "targets", LINE} - {role}), now=YEARS)
    refresh(stranger, now=YEARS)
    error = refusal(stranger, now=YEARS)
    assert f"{role}, version" in error.message
    assert f"keys of {role} runs: pacball trust sign --renew --store" in error.hint
    assert "trust refresh" not in error.hint
    renew(stranger, role, now=YEARS)
    assert stranger.open(now=YEARS).release(KNOWN) == entry()


def test_an_expired_placement_is_signed_by_the_operator(world):
    world.open().releases()
    sign_role(world, "placement-AtlasOffline", lambda signed: setattr(signed, "expires", at(NOW + DAY)), key="online")
    assert world.open(now=NOW + 2 * DAY).release(KNOWN) == entry()
    shutil.rmtree(world.state)
    error = refusal(world, now=NOW + 2 * DAY)
    assert "placement-AtlasOffline" in error.message
    assert "pacball trust refresh" in error.hint


def test_an_old_expired_catalog_is_a_rollback_all_the_same(world):
    world.open().release(KNOWN)
    old = world.copy()
    world.publish(OTHER)
    world.open().release(NEW)
    with pytest.raises(Untrusted, match="rolled back: timestamp is version 2, and version 3"):
        world.open(source=MemorySource(old), now=LATE)
    shutil.rmtree(world.metadata_dir())
    with pytest.raises(Untrusted, match="rolled back: timestamp is version 2, and version 3"):
        world.open(source=MemorySource(old), now=LATE)


def test_an_expired_catalog_raises_the_floor(world):
    world.open().release(KNOWN)
    old = world.copy()
    world.publish(OTHER)
    world.open(now=LATE).release(KNOWN)
    shutil.rmtree(world.metadata_dir())
    with pytest.raises(Untrusted, match="rolled back"):
        world.open(source=MemorySource(old), now=LATE)


def test_bad_signatures_stay_refused(world):
    world.open().release(KNOWN)
    renew(world, "root", now=NOW)
    for path in ("catalog/2.root.json", "catalog/timestamp.json"):
        files = world.copy()
        files[path] = files[path].replace(b'"sig":"', b'"sig":"00')
        with pytest.raises(Untrusted, match="cannot be believed"):
            world.open(source=MemorySource(files), now=LATE)
    sign_timestamp(world, lambda _: None, key=LINE)
    with pytest.raises(Untrusted, match="cannot be believed: timestamp was signed by 0/1 keys"):
        world.open(now=LATE)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, None])
def test_pythons_cache_may_be_lost_but_not_what_was_seen(world, content):
    world.open().release(KNOWN)
    for path in [path for path in world.metadata_dir().rglob("*") if path.is_file() and not path.is_symlink()]:
        path.unlink() if content is None else path.write_bytes(content)
    assert world.open(now=LATE).release(KNOWN) == entry()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"x" * 64])
def test_a_damaged_record_of_what_was_seen_counts_as_none_and_is_made_anew(world, content):
    world.open().release(KNOWN)
    (record,) = world.state.glob("*/seen/*")
    record.write_bytes(content)
    refusal(world, now=LATE)
    world.open().release(KNOWN)
    assert world.open(now=LATE).release(KNOWN) == entry()


def test_nothing_is_written_when_nothing_has_changed(world):
    def look():
        return {
            path: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in world.state.rglob("*")
            if path.is_file() and path.parent.name in ("seen", "floor", "clock")
        }

    world.open().releases()
    before = look()
    assert len(before) == 3
    world.open().releases()
    world.open().release(KNOWN)
    world.open(now=LATE).release(KNOWN)
    assert look() == before


def test_the_state_is_private(world):
    world.open().releases()
    for path in world.state.rglob("*"):
        if path.parent.name in ("seen", "floor", "clock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(world.state) == [world.metadata_dir().parent.name]


def test_an_expired_catalog_still_says_what_it_is(world):
    catalog = world.open(now=YEARS)
    assert catalog.projects() == ["AtlasOffline"]
    assert catalog.version == 2
    assert catalog.expiries() == world.catalog.expiries()
    for role in ("root", "timestamp", "snapshot", "targets"):
        assert f"{role}, version" in catalog.stale
    assert catalog.retain("AtlasOffline") is None


def test_freshness_can_be_demanded(world):
    catalog = world.open(now=NOW + 29 * DAY)
    catalog.releases()
    catalog.check_fresh()
    sign_role(world, LINE, lambda line: setattr(line, "expires", at(NOW)), key=LINE)
    shutil.rmtree(world.metadata_dir())
    catalog = world.open(now=NOW)
    catalog.check_fresh()
    assert catalog.releases() == [entry()]
    with pytest.raises(Untrusted, match=r"line-AtlasOffline, version 1, expired") as caught:
        catalog.check_fresh()
    assert "pacball trust sign --renew" in caught.value.hint
    with pytest.raises(Untrusted, match="timestamp, version 2, expired"):
        world.open(now=LATE).check_fresh()


def test_a_line_says_how_long_it_keeps_its_releases(world):
    assert world.open().retain("Nothing") is None
    for value, expected in (({"releases": 3, "later": [1]}, {"releases": 3, "later": [1]}), ("3", None), (None, None)):
        sign_line(world, lambda line, value=value: line.unrecognized_fields.update({"retain": value}))
        shutil.rmtree(world.state, ignore_errors=True)
        assert world.open().retain("AtlasOffline") == expected


def test_insecurely_everything_is_believed_and_nothing_remembered(world, tmp_path):
    old = world.copy()
    world.publish(OTHER)
    world.open().releases()
    before = sorted(world.state.rglob("*"))
    root = old["catalog/1.root.json"]
    catalog = open_insecurely(MemorySource(old), root=root, now=YEARS)
    assert (catalog.release(KNOWN), catalog.releases(), catalog.stale) == (entry(), [entry()], "")
    assert catalog.signed_at == NOW
    assert sorted(world.state.rglob("*")) == before
    # The bytes are still those that its own keys have signed.
    old["catalog/timestamp.json"] = old["catalog/timestamp.json"].replace(b'"version":2', b'"version":9')
    with pytest.raises(Untrusted, match="cannot be believed"):
        open_insecurely(MemorySource(old), root=root, now=YEARS)

"""What a server may serve, and what it never may; and the warnings before metadata expire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Delegations, SuccinctRoles

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, PacballError, Unavailable, Untrusted
from pacstore.trust.served import Verifier, decode_record, encode_record
from pacstore.trust.warnings import expiry_warnings
from tests.store.signed_catalog import SignedCatalog, flipped

NOW = 1_800_000_000.0
DAY = 86_400.0


class Reading:
    """A storage over a dictionary of files, which notes what was read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.memory = MemoryStorage()
        self.memory.files = files
        self.names: list[str] = []

    def get(self, kind, name, *, limit):
        self.names.append(name)
        return self.memory.get(kind, name, limit=limit)


@pytest.fixture
def catalog():
    return SignedCatalog("Alpha", "Beta", now=NOW)


def verify(catalog, *floors):
    return Verifier(Reading(catalog.files)).verify(catalog.stamp, floors=floors)


def test_a_good_catalog_is_served_with_all_that_is_known_of_it(catalog):
    catalog.commit("line-Alpha")
    state = verify(catalog)
    assert (state.timestamp, state.version, state.root_version) == (catalog.stamp, 2, 1)
    assert {role: one.version for role, one in state.roles.items()} == {
        "timestamp": 2,
        "snapshot": 2,
        "targets": 1,
        "line-Alpha": 2,
        "line-Beta": 1,
        "placement-Alpha": 1,
        "placement-Beta": 1,
    }
    assert set(state.expires) == {*state.roles, "root"}
    assert state.expires["timestamp"] == NOW + 30 * DAY
    assert state.expires["line-Beta"] == NOW + 365 * DAY
    assert state.signed_at == NOW


@pytest.mark.parametrize("value", [None, 7, "", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_timestamp_need_not_say_when_it_was_signed(catalog, value):
    catalog.signed_at = False
    catalog.timestamp.unrecognized_fields = {} if value is None else {"signed_at": value}
    catalog.stamp_again()
    assert verify(catalog).signed_at is None


def test_an_expired_catalog_is_served(catalog):
    catalog.now = 0.0
    catalog.commit("targets", *catalog.signed["targets"].delegations.roles)
    assert verify(catalog).expires["line-Alpha"] == 365 * DAY


@pytest.mark.parametrize("role", ["targets", "line-Alpha", "placement-Beta", "snapshot"])
def test_what_is_not_signed_by_the_keys_of_its_role_is_not_served(catalog, role):
    before = verify(catalog)
    catalog.sign_with[role] = catalog.keys["line-Beta"]
    catalog.commit(*([role] if role != "snapshot" else []))
    with pytest.raises(Untrusted, match="is not signed by the keys of its role") as caught:
        verify(catalog, before)
    assert caught.value.place == catalog.path(role)


@pytest.mark.parametrize("role", ["snapshot", "targets", "line-Alpha", "placement-Beta", "root", "timestamp"])
def test_one_wrong_digit_anywhere_is_seen(catalog, role):
    path = f"catalog/1.{role}.json" if role != "timestamp" else "catalog/timestamp.json"
    catalog.files[path] = flipped(catalog.files[path])
    with pytest.raises((Corrupt, Untrusted)) as caught:
        verify(catalog)
    assert caught.value.place == path


@pytest.mark.parametrize("role", ["snapshot", "targets", "line-Alpha", "placement-Beta", "root"])
def test_a_missing_file_is_seen(catalog, role):
    del catalog.files[f"catalog/1.{role}.json"]
    with pytest.raises(Corrupt, match="is missing") as caught:
        verify(catalog)
    assert caught.value.place == f"catalog/1.{role}.json"


def test_a_longer_file_than_was_signed_is_not_read(catalog):
    catalog.files["catalog/1.line-Alpha.json"] += b" "
    with pytest.raises(Corrupt, match="more than"):
        verify(catalog)


def test_a_file_that_cannot_be_read_is_no_verdict(catalog):
    class Failing(Reading):
        def get(self, kind, name, *, limit):
            if "line-" in name:
                raise Unavailable("input/output error", place=name)
            return super().get(kind, name, limit=limit)

    with pytest.raises(Unavailable):
        Verifier(Failing(catalog.files)).verify(catalog.stamp)


def test_a_role_of_another_kind_or_version_is_not_served(catalog):
    catalog.files["catalog/2.line-Alpha.json"] = catalog.files["catalog/1.line-Alpha.json"]
    catalog.signed["snapshot"].meta["line-Alpha.json"].version = 2
    catalog.commit()
    with pytest.raises(Corrupt, match="says that it is version 1"):
        verify(catalog)


@pytest.mark.parametrize("wrong", [b"", b"{}", b"[" * 5000, b"\xff", b'{"signed":{},"signatures":[]}'])
def test_garbage_is_damage(catalog, wrong):
    with pytest.raises(Corrupt) as caught:
        Verifier(Reading(catalog.files)).verify(wrong)
    assert caught.value.place == "catalog/timestamp.json"


@given(st.data())
def test_no_change_of_a_byte_is_served(data):
    catalog = CHANGED.copy()
    path = data.draw(st.sampled_from(sorted(catalog.files)))
    old = catalog.files[path]
    at = data.draw(st.integers(0, len(old) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda value: value != old[at]))
    catalog.files[path] = old[:at] + bytes([new]) + old[at + 1 :]
    try:
        state = verify(catalog)
    except PacballError:
        return
    # It can only be what does not count: another spelling of the same, or the copy of the timestamp.
    good = verify(CHANGED)
    assert state.expires == good.expires
    assert {role: one.version for role, one in state.roles.items()} == {
        role: one.version for role, one in good.roles.items()
    }


CHANGED = SignedCatalog("Alpha", now=NOW)


def test_an_older_state_is_not_served_after_a_newer_one(catalog):
    old = catalog.copy()
    catalog.commit("line-Alpha")
    floor = verify(catalog)
    with pytest.raises(Untrusted, match="timestamp is version 1, and version 2 was served before") as caught:
        verify(old, floor)
    assert "private/served.json" in caught.value.hint


@pytest.mark.parametrize("role", ["line-Alpha", "placement-Beta", "targets", "snapshot"])
def test_no_role_goes_backward_under_a_newer_timestamp(catalog, role):
    old = catalog.copy()
    catalog.commit(*([role] if role != "snapshot" else []))
    floor = verify(catalog)
    old.timestamp.version = 5
    if role == "snapshot":
        old.stamp_again()
    else:
        old.signed["snapshot"].version = 5
        old.commit()
    with pytest.raises(Untrusted, match=f"{role} is version 1, and version 2 was served before"):
        verify(old, floor)


def test_no_role_disappears(catalog):
    floor = verify(catalog)
    for role in ("line-Beta", "placement-Beta"):
        del catalog.signed["targets"].delegations.roles[role]
        del catalog.signed["snapshot"].meta[f"{role}.json"]
    catalog.commit("targets")
    verify(catalog)
    with pytest.raises(Untrusted, match="line-Beta, served before at version 1, is gone"):
        verify(catalog, floor)


@pytest.mark.parametrize("role", ["timestamp", "line-Alpha"])
def test_the_same_version_is_always_the_same_bytes(catalog, role):
    other = catalog.copy()
    catalog.commit("line-Alpha")
    floor = verify(catalog)
    other.now += 1
    other.commit("line-Alpha")
    if role != "timestamp":
        other.timestamp.version = 5
        other.signed["snapshot"].version = 5
        other.commit()
    with pytest.raises(Untrusted, match=f"{role} version 2 is not the same"):
        verify(other, floor)


def test_the_root_never_goes_backward_or_changes(catalog):
    old = catalog.copy()
    catalog.write_root()
    floor = verify(catalog)
    assert floor.root_version == 2
    with pytest.raises(Untrusted, match="root is version 1, and version 2 was served before"):
        verify(old, floor)
    old.now += 1
    old.write_root()
    with pytest.raises(Untrusted, match="is another one than was served before"):
        verify(old, floor)
    with pytest.raises(Untrusted, match="is another one"):
        verify(SignedCatalog("Alpha", "Beta", now=NOW), verify(CHANGED))


def test_a_root_that_the_one_before_did_not_sign_is_not_believed(catalog):
    catalog.write_root(catalog.keys["line-Alpha"])
    with pytest.raises(Untrusted, match="does not verify") as caught:
        verify(catalog)
    assert caught.value.place == "catalog/2.root.json"


def test_new_online_keys_let_versions_start_anew(catalog):
    for _ in range(3):
        catalog.stamp_again()
    floor = verify(catalog)
    old = catalog.keys["online"]
    catalog.keys["online"] = new = type(old).generate_ed25519()
    for role in ("snapshot", "timestamp"):
        catalog.root.revoke_key(old.public_key.keyid, role)
        catalog.root.add_key(new.public_key, role)
    for role in ("placement-Alpha", "placement-Beta"):
        catalog.signed["targets"].revoke_key(old.public_key.keyid, role)
        catalog.signed["targets"].add_key(new.public_key, role)
    catalog.write_root()
    catalog.timestamp.version = 0
    catalog.commit("targets", "placement-Alpha", "placement-Beta")
    assert verify(catalog, floor).version == 1


def test_a_verified_role_is_not_read_again(catalog):
    reading = Reading(catalog.files)
    verifier = Verifier(reading)
    verifier.verify(catalog.stamp)
    reading.names.clear()
    catalog.commit("line-Beta")
    verifier.verify(catalog.stamp)
    assert [name for name in reading.names if "-" in name] == ["2.line-Beta.json"]


def test_a_role_is_verified_again_when_its_keys_have_changed(catalog):
    verifier = Verifier(Reading(catalog.files))
    verifier.verify(catalog.stamp)
    targets, old = catalog.signed["targets"], catalog.keys["line-Alpha"]
    targets.revoke_key(old.public_key.keyid, "line-Alpha")
    targets.add_key(type(old).generate_ed25519().public_key, "line-Alpha")
    catalog.commit("targets")
    with pytest.raises(Untrusted, match="is not signed by the keys of its role"):
        verifier.verify(catalog.stamp)


def test_a_threshold_counts_different_keys(catalog):
    catalog.signed["targets"].delegations.roles["line-Alpha"].threshold = 2
    catalog.commit("targets")
    with pytest.raises(Untrusted, match="1/2 keys"):
        verify(catalog)


def test_whether_the_files_of_a_state_are_there(catalog):
    state = verify(catalog)
    for path in ("catalog/1.snapshot.json", "catalog/1.targets.json"):
        for change in ({}, {path: flipped(catalog.files[path])}):
            files = {name: data for name, data in catalog.files.items() if name != path} | change
            assert not Verifier(Reading(files)).is_there(state)
    assert Verifier(Reading(catalog.files)).is_there(state)


def test_what_was_served_is_remembered_exactly_and_damage_is_seen(catalog):
    state = verify(catalog)
    record = encode_record(state)
    assert decode_record(record, "place") == state
    for damaged in (
        b"",
        b"[]",
        record[:-1],
        record.replace(b"Alpha", b"Alphb"),
        b'{"format":1,"record":7,"sha256":""}',
    ):
        with pytest.raises(Corrupt, match="damaged"):
            decode_record(damaged, "place")


def test_a_catalog_of_hash_bins_is_not_ours(catalog):
    keys = catalog.signed["targets"].delegations.keys
    keyid = catalog.keys["online"].public_key.keyid
    catalog.signed["targets"].delegations = Delegations(
        keys, succinct_roles=SuccinctRoles([keyid], 1, bit_length=1, name_prefix="bin")
    )
    catalog.commit("targets")
    with pytest.raises(Corrupt, match="hash bins"):
        verify(catalog)


@pytest.mark.parametrize(
    ("role", "days", "warned"),
    [
        ("timestamp", 8, False),
        ("timestamp", 7, True),
        ("snapshot", 8, False),
        ("placement-Alpha", 7, True),
        ("line-Alpha", 61, False),
        ("line-Alpha", 59, True),
        ("targets", 59, True),
        ("root", 59, True),
        ("root", -1, True),
    ],
)
def test_warnings_come_early_enough_and_name_the_command(role, days, warned):
    found = expiry_warnings({role: NOW + days * DAY, "root": NOW + 365 * DAY} | {role: NOW + days * DAY}, now=NOW)
    assert len(found) == warned
    online = role in ("timestamp", "snapshot") or role.startswith("placement-")
    for sentence in found:
        assert sentence.startswith(f"{role} expire")
        assert ("pacball trust refresh" if online else "pacball trust sign --renew") in sentence
        assert (f"in {days} days" if days > 0 else "expired at") in sentence


def test_a_timestamp_that_is_signed_for_a_day_is_warned_of_in_its_last_hours():
    expires = {"timestamp": NOW + DAY, "snapshot": NOW + DAY}
    assert expiry_warnings(expires, now=NOW, signed_at=NOW) == []
    (one, two) = expiry_warnings(expires, now=NOW + 0.8 * DAY, signed_at=NOW)
    assert "in 4 hours" in one
    assert "in 4 hours" in two


def test_the_first_to_expire_are_named_first_and_not_all_of_many():
    found = expiry_warnings({f"line-P{n}": NOW + n * DAY for n in range(50)}, now=NOW)
    assert len(found) == 21
    assert found[0].startswith("line-P0 expired")
    assert "in 1 day:" in found[1]
    assert found[-1].startswith("30 more roles")

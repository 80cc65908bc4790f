"""What comes from a publisher elsewhere: the spool, the admission of objects, placements, and signed changes."""

from __future__ import annotations

import os

import pytest
import zstandard

from pacstore.digest import Digest
from pacstore.errors import Corrupt, NewerFormat, PacballError, Refused, Unavailable
from pacstore.incoming.admission import admit, is_admitted
from pacstore.incoming.publication import StillMissing, missing_chunks, place, take_change
from pacstore.incoming.spool import UploadName, UploadSpool
from pacstore.pack import HEADER, TableBuilder, ending
from pacstore.packing import PackingOptions
from pacstore.release import Release
from pacstore.storage import ObjectKind
from pacstore.trust.keyring import KeyRing
from pacstore.trust.targets import SignedDocument
from tests.store.outgoing import Here, Site, pack_of
from tests.store.releases import NAME, NEXT, NOW, Origin, make_tree, noise, write

OWNER = "0123abcd"


@pytest.fixture
def origin(tmp_path):
    return Origin.make(tmp_path / "origin")


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "staging").mkdir()
    return UploadSpool(tmp_path / "uploads", tmp_path / "staging")


def name_of(data, kind=ObjectKind.PACK, owner=OWNER):
    return UploadName(owner, kind, Digest.of(data))


def test_an_upload_is_found_again_as_far_as_it_is_acknowledged(spool):
    upload = spool.begin(name_of(b"x"), 1000)
    upload.path.write_bytes(b"a" * 700)
    assert spool.find(upload.name).offset == 0
    upload = spool.acknowledge(upload, 500)
    assert spool.find(upload.name) == upload
    assert (upload.offset, upload.length) == (500, 1000)
    assert spool.find(name_of(b"x", owner="ffffffff")) is None
    spool.drop(upload.name)
    assert spool.find(upload.name) is None
    spool.drop(upload.name)


@pytest.mark.parametrize("damage", ["shorter", "record", "no record"])
def test_an_upload_that_lost_something_begins_anew(spool, damage):
    upload = spool.begin(name_of(b"x"), 1000)
    upload.path.write_bytes(b"a" * 700)
    upload = spool.acknowledge(upload, 700)
    record = upload.path.with_name(upload.path.name + ".state")
    if damage == "shorter":
        os.truncate(upload.path, 699)
    elif damage == "record":
        record.write_bytes(b"\0" * 42)
    else:
        record.unlink()
    assert spool.find(upload.name) is None
    assert list(spool.uploads()) == []


def test_uploads_that_were_left_are_collected_and_others_stay(spool):
    old, new = spool.begin(name_of(b"old"), 10), spool.begin(name_of(b"new", owner="ffffffff"), 10)
    for path in (old.path, old.path.with_name(old.path.name + ".state")):
        os.utime(path, (1000, 1000))
    orphan = old.path.with_name(f"packs-{Digest.of(b'?').hex}")
    orphan.touch()
    os.utime(orphan, (1000, 1000))
    assert [upload.name for upload in spool.collect(2000)] == [old.name]
    assert [upload.name for upload, _ in spool.uploads()] == [new.name]
    assert not orphan.parent.exists()


@pytest.mark.parametrize("owner", ["", "..", "../../../x", "0123ABCD", "0123abcd/"])
def test_no_owner_leads_out_of_the_spool(owner):
    with pytest.raises(Refused):
        UploadName(owner, ObjectKind.PACK, Digest.of(b"x"))


def admitted(origin, digest, data, kind=ObjectKind.PACK):
    path = write(origin.top / "sent", data)
    admit(origin.store, kind, digest, path)


def test_an_honest_pack_is_admitted_and_its_chunks_are_found(origin):
    chunks = [noise("a", 1000), noise("b", 2000)]
    digest, data = pack_of(*chunks)
    ids = [Digest.of(chunk).raw for chunk in chunks]
    assert missing_chunks(origin.store, [ids[0], ids[1], ids[0]]) == ids
    assert not is_admitted(origin.store, ObjectKind.PACK, digest)
    admitted(origin, digest, data)
    assert is_admitted(origin.store, ObjectKind.PACK, digest)
    assert missing_chunks(origin.store, ids) == []
    assert origin.check().damage == []
    admitted(origin, digest, data)


def pack_of_nothing():
    table = TableBuilder().encode()
    return Digest.of(table), HEADER + ending(table)


BOMB = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * (64 << 20))
LIES = {
    "another pack": lambda: (Digest.of(b"other"), pack_of(b"x" * 100)[1]),
    "nothing": lambda: (Digest.of(b""), b""),
    "noise": lambda: (pack_of(b"x")[0], noise("n", 5000)),
    "truncated": lambda: (pack_of(b"x" * 100)[0], pack_of(b"x" * 100)[1][:-1]),
    "bytes behind": lambda: (pack_of(b"x" * 100)[0], pack_of(b"x" * 100)[1] + b"x"),
    "a frame that was altered": lambda: (pack_of(noise("f", 900))[0], altered(pack_of(noise("f", 900))[1], 100)),
    "chunks that are others": lambda: pack_of(b"x" * 100, ids=Digest.of(b"not this").raw),
    "lengths that are wrong": lambda: pack_of(b"x" * 100, lengths=[99]),
    "what does not decode": lambda: pack_of(b"x" * 100, compressed=noise("z", 90)),
    "a bomb": lambda: pack_of(b"x" * 100, compressed=BOMB),
    "a bomb that says so": lambda: pack_of(b"\0" * 100, compressed=zstandard.compress(b"\0" * (64 << 20))),
    "a kind that nobody knows": lambda: pack_of(b"x" * 100, kind=9),
    "no frames": pack_of_nothing,
}


def altered(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("lie", LIES)
def test_a_pack_that_lies_changes_nothing(origin, lie):
    digest, data = LIES[lie]()
    before = origin.public()
    with pytest.raises((Corrupt, NewerFormat, Refused)):
        admitted(origin, digest, data)
    assert origin.public() == before
    assert origin.store.index.counts() == (0, 0, 0)
    assert os.listdir(origin.store.staging) == []


@pytest.mark.parametrize("kind", [ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES])
def test_a_document_with_another_digest_changes_nothing(origin, kind):
    with pytest.raises(Corrupt, match="another digest"):
        admitted(origin, Digest.of(b"a"), b"b", kind)
    admitted(origin, Digest.of(b"a"), b"a", kind)
    assert is_admitted(origin.store, kind, Digest.of(b"a"))


def test_what_others_refer_to_is_not_moved_by_what_is_sent(origin, tmp_path):
    tree = make_tree(tmp_path / "tree")
    origin.publish(tree)
    shared = (tree / "lib/text").read_bytes()[:20_000]
    known = noise("known", 3000)
    first, data = pack_of(known)
    admitted(origin, first, data)
    place_before = origin.store.index.find([Digest.of(known).raw])
    admitted(origin, *pack_of(known, shared))
    assert origin.store.index.find([Digest.of(known).raw]) == place_before


def test_a_condemned_pack_does_not_count_as_here_until_it_is_sent_again(origin):
    chunk = noise("c", 1000)
    digest, data = pack_of(chunk)
    admitted(origin, digest, data)
    origin.store.index.condemn(digest, None)
    assert not is_admitted(origin.store, ObjectKind.PACK, digest)
    assert missing_chunks(origin.store, [Digest.of(chunk).raw]) == [Digest.of(chunk).raw]
    admitted(origin, digest, data)
    assert is_admitted(origin.store, ObjectKind.PACK, digest)
    assert missing_chunks(origin.store, [Digest.of(chunk).raw]) == []


def documents(origin, tree, name=NAME):
    """The documents of a release of `tree`, as another store has them, and what they are."""
    other = Origin.make(origin.top.parent / f"other-{tree.name}")
    other.publish(tree, name)
    entry = other.entry(name)
    found = []
    for kind, signed in ((ObjectKind.MANIFEST, entry.manifest), (ObjectKind.ATTRIBUTES, entry.attributes)):
        with other.store.storage.open(kind, signed.digest) as file:
            found.append((kind, signed, file.read()))
    return other, found


@pytest.mark.slow
def test_a_release_whose_chunks_are_not_here_gets_no_placement(origin, tmp_path):
    tree = make_tree(tmp_path / "tree")
    other, found = documents(origin, tree)
    signed = [one for _, one, _ in found]
    options = PackingOptions(level=1)
    with pytest.raises(StillMissing, match="is not here"):
        place(origin.store, Release.parse(NAME), *signed, options=options)
    for kind, one, data in found:
        admitted(origin, one.digest, data, kind)
    with pytest.raises(StillMissing, match="chunks are not here"):
        place(origin.store, Release.parse(NAME), *signed, options=options)
    for pack in other.store.storage.digests(ObjectKind.PACK):
        with other.store.storage.open(ObjectKind.PACK, pack) as file:
            admitted(origin, pack, file.read())
    assert place(origin.store, Release.parse(NAME), *signed, options=options).number == 1
    lying = SignedDocument(signed[0].digest, signed[0].length + 1, signed[0].sha256)
    with pytest.raises(Corrupt):
        place(origin.store, Release.parse(NAME), lying, signed[1], options=options)
    with pytest.raises(PacballError):
        place(origin.store, Release.parse(NAME), signed[1], signed[1], options=options)
    assert origin.listed() == []


def test_a_change_of_anything_else_than_the_line_is_refused(origin, tmp_path):
    origin.publish(make_tree(tmp_path / "tree"))
    none = KeyRing(tmp_path / "none")
    origin.catalog.renew(["targets"], KeyRing(origin.keys.directory), now=NOW)
    site = Site(tmp_path, Here(origin, none), origin.keys)
    copy = site.copy(Release.parse(NEXT))
    other = origin.entry()
    change = copy.signed(type(other)(**{**fields(other), "release": Release.parse(NEXT)}), origin.keys, now=NOW)
    before = origin.public()
    with pytest.raises(Refused, match="something else than the line"):
        take_change(origin.store, origin.catalog, change, Release.parse("Other-1.0-x"), none, now=NOW)
    change.above = 7
    with pytest.raises(Refused, match="something else than the line"):
        take_change(origin.store, origin.catalog, change, Release.parse(NEXT), none, now=NOW)
    assert origin.public() == before
    assert origin.listed() == [NAME]


def fields(entry):
    return {name: getattr(entry, name) for name in type(entry).__dataclass_fields__}


def test_a_damaged_index_is_not_the_fault_of_what_was_sent(origin, tmp_path):
    origin.publish(make_tree(tmp_path / "tree"))
    origin = origin.again()
    origin.store.index_path.unlink()
    digest, data = pack_of(b"x" * 100)
    path = write(tmp_path / "pack", data)
    with pytest.raises(Unavailable, match="the store there is damaged: the index"):
        admit(origin.store, ObjectKind.PACK, digest, path)
    (known, *_) = origin.store.storage.digests(ObjectKind.PACK)
    with pytest.raises(Unavailable, match="the store there is damaged: the index"):
        is_admitted(origin.store, ObjectKind.PACK, known)
    origin.store.close()

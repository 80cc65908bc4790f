"""Volumes that somebody has made on purpose: whatever they say, nothing is written that the signed catalog does not name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pacstore.errors import Corrupt, NewerFormat, PacballError, Refused, TooLarge
from pacstore.pacball.members import BLOCK_BYTES, Member
from pacstore.release import Release
from pacstore.tree import EntryKind
from pacstore.volumes.contents import CONTENTS_BYTES, NAME, Piece, parse_contents
from pacstore.volumes.layout import header_of
from pacstore.volumes.volume import Volume
from tests.store.carried import NAMES, carry_in, carry_out, forge, members_of, root_of
from tests.store.releases import Origin, noise, snapshot

PACK = "packs/ab/ab" + "0" * 62


@pytest.fixture(scope="module")
def made(tmp_path_factory, trees):
    origin = Origin.make(tmp_path_factory.mktemp("made"))
    for tree, name in zip(trees[:2], NAMES[:2], strict=True):
        origin.publish(tree, name)
    yield origin
    origin.store.close()


@pytest.fixture(scope="module")
def good(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.tar"
    carry_out(made.store.path, path, NAMES[1:2])
    return path


@pytest.fixture
def contents(good):
    volume = Volume.open(good)
    volume.close()
    return volume.contents


@pytest.fixture(scope="module")
def there(made, tmp_path_factory):
    """A mirror that has another release; no test changes it."""
    top = tmp_path_factory.mktemp("there")
    carry_out(made.store.path, top / "other.tar", NAMES[:1])
    carry_in([top / "other.tar"], top / "mirror", root=root_of(made.store.path))
    return top / "mirror"


@pytest.fixture
def refuses(made, there, tmp_path):
    """Asks for a volume to be refused, into a new store and into one that has another release, without any change."""
    before, root = snapshot(there), root_of(made.store.path)

    def check(path, kind, message):
        for to in (there, tmp_path / "new"):
            with pytest.raises(kind, match=message):
                carry_in([path], to, root=root)
        assert snapshot(there) == before
        assert not (tmp_path / "new").exists()

    return check


def swapped(contents, path, length):
    """The contents with another member in the place of the last pack."""
    own = list(contents.volumes[0])
    at = max(number for number, piece in enumerate(own) if piece.pack is not None)
    own[at] = Piece(path, length)
    return replace(contents, volumes=(tuple(own),))


def test_what_was_forged_as_it_was_is_taken_in(good, contents, made, tmp_path):
    forged = forge(tmp_path / "x.tar", contents, members_of(good))
    assert forged.read_bytes() == good.read_bytes()
    assert carry_in([forged], tmp_path / "mirror", root=root_of(made.store.path)).is_complete


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "packs/ab/../../../x",
        "packs/ab/cd" + "0" * 62,
        "packs/" + "a" * 64,
        PACK + "\n",
        "private/settings.json",
        "catalog/9.root.json",
        "store.json",
        "holdings/..",
        "holdings/a\n",
        "",
        "x\0y",
    ],
)
def test_no_path_leads_out_of_its_place(good, contents, refuses, tmp_path, path):
    forged = forge(tmp_path / "x.tar", swapped(contents, path, 10), members_of(good))
    refuses(forged, Corrupt, "has a member that no export has")


def test_only_what_the_catalog_names_is_taken(good, contents, refuses, tmp_path):
    members = members_of(good)
    refuses(forge(tmp_path / "a", swapped(contents, PACK, 10), members), Corrupt, "has other members")
    more = replace(contents, volumes=((*contents.volumes[0], Piece(PACK, 10)),))
    refuses(forge(tmp_path / "b", more, members), Corrupt, "has other members")
    extra = replace(contents, shared=(*contents.shared, Piece("manifests" + PACK[5:], 10)))
    refuses(forge(tmp_path / "c", extra, members), Corrupt, "has other members")
    fewer = replace(contents, volumes=(contents.volumes[0][:-1],))
    refuses(forge(tmp_path / "d", fewer, members), Corrupt, "has other members")
    other = replace(contents, releases=(Release.parse("Other-1-x"),))
    refuses(forge(tmp_path / "e", other, members), Corrupt, "does not name Other-1-x")
    wrong = replace(contents, releases=(Release.parse(NAMES[0]),))
    refuses(forge(tmp_path / "f", wrong, members), Corrupt, "lacks|has other members")
    refuses(forge(tmp_path / "g", replace(contents, version=99), members), Corrupt, "another catalog than it has")


def test_bytes_that_are_not_what_their_names_say(good, contents, there, refuses, tmp_path):
    members = members_of(good)
    packs = [path for path in members if path.startswith("packs/") and not (there / "public" / path).exists()]
    for path in (packs[0], next(path for path in members if path.startswith("manifests/"))):
        other = noise(path, len(members[path]))
        refuses(forge(tmp_path / "x.tar", contents, {**members, path: other}), Corrupt, "was altered")
    another = next(path for path in members if path.startswith("packs/") and path != packs[0])
    exchanged = {**members, packs[0]: members[another], another: members[packs[0]]}
    refuses(forge(tmp_path / "x.tar", contents, exchanged), Corrupt, "was altered")
    held = next(path for path in members if path.startswith("holdings/"))
    refuses(forge(tmp_path / "x.tar", contents, {**members, held: b"x"}), Corrupt, "was altered")
    # A pack whose length lies is none of the release's.
    last = [piece for piece in contents.volumes[0] if piece.pack is not None][-1]
    refuses(forge(tmp_path / "x.tar", swapped(contents, last.path, 10), members), Corrupt, "has other members")


def test_a_member_twice_and_counts_beyond_all_bounds(good, contents, refuses, tmp_path):
    own = contents.volumes[0]
    refuses(forge(tmp_path / "x.tar", replace(contents, volumes=((*own, own[0]),)), {}), Corrupt, "has a member twice")
    many = replace(contents, volumes=(own, *[()] * 10_000))
    data = many.encode(1)
    with pytest.raises(TooLarge, match="10001 volumes"):
        parse_contents(data, place="x")
    huge = json.loads(contents.encode(1))
    for length in (1 << 62, -1, 1.5, "1", True, None):
        huge["volumes"][0][0][1] = length
        with pytest.raises(Corrupt):
            parse_contents(json.dumps(huge).encode(), place="x")


def test_a_first_member_that_is_larger_than_any_is_not_read(refuses, tmp_path):
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(header_of(NAME, CONTENTS_BYTES + 1))
        file.truncate(1 << 34)
    refuses(tmp_path / "x.tar", Corrupt, "its beginning was altered")
    (tmp_path / "x.tar").write_bytes(header_of(NAME, CONTENTS_BYTES) + b"[" * CONTENTS_BYTES)
    refuses(tmp_path / "x.tar", PacballError, "is not JSON")


@pytest.mark.parametrize("number", [1, 4])
def test_a_link_in_the_place_of_a_member_is_refused(good, refuses, tmp_path, number):
    data = bytearray(good.read_bytes())
    volume = Volume.open(good)
    volume.close()
    place = volume.places[number]
    link = Member(place.path.encode(), EntryKind.SYMLINK, 0, target=b"/etc/passwd").header()
    assert len(link) == BLOCK_BYTES
    data[place.at : place.at + BLOCK_BYTES] = link
    (tmp_path / "x.tar").write_bytes(data)
    refuses(tmp_path / "x.tar", Corrupt, f"was altered at {place.path}")


def test_what_else_may_be_in_a_file(contents, refuses, tmp_path, good):
    values = json.loads(contents.encode(1))
    for change in (
        {"volume": 2},
        {"id": "0" * 64},
        {"since": ["Demo-9-x"]},
        {"more": 1},
        {"catalog": 1},
        {"volumes": []},
        {"releases": [5]},
        {"since": [None]},
        {"shared": [["\ud800", 1]]},
    ):
        with pytest.raises(Corrupt):
            parse_contents(
                json.dumps({**values, **change}, sort_keys=True, separators=(",", ":")).encode() + b"\n", place="x"
            )
    with pytest.raises(NewerFormat):
        parse_contents(json.dumps({**values, "format": 2}).encode(), place="x")
    (tmp_path / "x.tar").mkdir()
    refuses(tmp_path / "x.tar", Refused, "is not a file")
    (tmp_path / "y.tar").symlink_to("/dev/zero")
    refuses(tmp_path / "y.tar", Refused, "is not a file")

"""The envelope: headers in the deterministic encoding only, sections exactly as listed, nothing allocated on a claim."""

import time

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pacstore.document import Layout, check_magic, decode, encode
from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from tests import independent_reader as reader
from tests.memory import taking_at_most
from tests.store.samples import BOUNDED, put, raw

LAYOUT = Layout("TEST", "test document", ("a", "b"), ("one", "two"), 100_000)
OPEN = Layout("TEST", "test document", ("a", "b"), ("one", "two"), 100_000, extensible=True)
MAGIC = b"PBTEST01"
PARTS = [("one", b"123"), ("two", b"")]
LISTED = [["one", 3], ["two", 0]]
GOOD = put(MAGIC, {"a": 1, "b": 2}, PARTS)


def header(tail: bytes, count: int = 3) -> bytes:
    """A document whose header is a map of a, b, sections and then the given raw pairs."""
    start = bytes([0xA0 + count]) + b"\x61a\x01\x61b\x02"
    return raw(MAGIC, start + tail, PARTS)


SECTIONS = cbor2.dumps("sections") + cbor2.dumps(LISTED)


def laughs(levels: int) -> bytes:
    """Lists that hold the list before them twice, by shared references: 2 to the power of `levels` elements."""
    doubled = [b"\xd8\x1c\x82" + 2 * (b"\xd8\x1d" + cbor2.dumps(n)) for n in range(levels)]
    return b"\x61c" + cbor2.dumps(levels + 1).replace(b"\x18", b"\x98", 1) + b"\xd8\x1c\x81\x00" + b"".join(doubled)


HOSTILE = {
    "nothing": (b"", Corrupt),
    "no header length": (GOOD[:11], Corrupt),
    "another kind": (b"PBTREE01" + GOOD[8:], Corrupt),
    "an older version": (b"PBTEST00" + GOOD[8:], Corrupt),
    "a version that is no number": (b"PBTEST0x" + GOOD[8:], Corrupt),
    "a newer version": (b"PBTEST02" + GOOD[8:], NewerFormat),
    "a much newer version": (b"PBTEST99" + b"\xff" * 8, NewerFormat),
    "header of 0 bytes": (MAGIC + bytes(4) + b"123", Corrupt),
    "header of 2^32-1 bytes": (MAGIC + b"\xff" * 4 + GOOD[12:], Corrupt),
    "header of 65,537 bytes": (MAGIC + (65_537).to_bytes(4, "little") + bytes(70_000), Corrupt),
    "header cut short": (GOOD[:20], Corrupt),
    "longer than its limit": (GOOD + bytes(100_000), TooLarge),
    "bytes behind it": (GOOD + b"x", Corrupt),
    "bytes missing": (GOOD[:-1], Corrupt),
    "no map": (raw(MAGIC, b"\x80", PARTS), Corrupt),
    "something behind the map": (raw(MAGIC, header(SECTIONS)[12:-3] + b"\x00", PARTS), Corrupt),
    "indefinite map": (raw(MAGIC, b"\xbf\x61a\x01\x61b\x02" + SECTIONS + b"\xff", PARTS), Corrupt),
    "indefinite text": (header(SECTIONS.replace(b"\x63one", b"\x7f\x63one\xff")), Corrupt),
    "indefinite array": (header(b"\x68sections\x9f\x82\x63one\x03\x82\x63two\x00\xff"), Corrupt),
    "integer in two bytes for 3": (header(SECTIONS.replace(b"one\x03", b"one\x18\x03")), Corrupt),
    "integer in five bytes for 3": (header(SECTIONS.replace(b"one\x03", b"one\x1a\0\0\0\x03")), Corrupt),
    "length of a text not the shortest": (header(SECTIONS.replace(b"\x63one", b"\x78\x03one")), Corrupt),
    "reserved length": (header(SECTIONS.replace(b"one\x03", b"one\x1c")), Corrupt),
    "the same key twice": (header(b"\x61b\x02" + SECTIONS, 4), Corrupt),
    "keys not sorted": (raw(MAGIC, b"\xa3\x61b\x02\x61a\x01" + SECTIONS, PARTS), Corrupt),
    "a key that is no text": (raw(MAGIC, b"\xa4\x00\x00\x61a\x01\x61b\x02" + SECTIONS, PARTS), Corrupt),
    "a tag": (header(b"\x61c\xc1\x00" + SECTIONS, 4), Corrupt),
    "a big integer": (header(b"\x61c\xc2\x49\x01" + bytes(8) + SECTIONS, 4), Corrupt),
    "a decimal fraction": (header(b"\x61c\xc4\x82\x1b" + b"\x7f" * 8 + b"\x01" + SECTIONS, 4), Corrupt),
    "a float": (header(b"\x61c\xfa\x3f\xc0\0\0" + SECTIONS, 4), Corrupt),
    "a negative integer": (header(b"\x61c\x20" + SECTIONS, 4), Corrupt),
    "true": (header(b"\x61c\xf5" + SECTIONS, 4), Corrupt),
    "null": (header(b"\x61c\xf6" + SECTIONS, 4), Corrupt),
    "text that is not UTF-8": (header(b"\x61c\x61\xff" + SECTIONS, 4), Corrupt),
    "text with a surrogate": (header(b"\x61c\x63\xed\xa0\x80" + SECTIONS, 4), Corrupt),
    "nested too deep": (header(b"\x61c\x81\x81\x81\x00" + SECTIONS, 4), Corrupt),
    "nested 60,000 deep": (raw(MAGIC, b"\x81" * 60_000, []), Corrupt),
    "an array of 2^64-1": (raw(MAGIC, b"\x9b" + b"\xff" * 8, []), Corrupt),
    "a text of 2^63": (raw(MAGIC, b"\xa1\x7b\x80" + bytes(7), []), Corrupt),
    "shared references that double 60 times": (header(laughs(60) + SECTIONS, 4), Corrupt),
    "no sections": (raw(MAGIC, cbor2.dumps({"a": 1, "b": 2}), PARTS), Corrupt),
    "sections that are a number": (header(b"\x68sections\x05"), Corrupt),
    "a section without length": (header(b"\x68sections\x82\x81\x63one\x82\x63two\x00"), Corrupt),
    "a section of 2^64-1 bytes": (
        header(b"\x68sections\x82\x82\x63one\x1b" + b"\xff" * 8 + b"\x82\x63two\x00"),
        Corrupt,
    ),
    "a section whose name is a number": (header(b"\x68sections\x82\x82\x01\x03\x82\x63two\x00"), Corrupt),
    "a section twice": (put(MAGIC, {"a": 1, "b": 2}, [PARTS[0], PARTS[0], PARTS[1]]), Corrupt),
    "sections in another order": (put(MAGIC, {"a": 1, "b": 2}, PARTS[::-1]), Corrupt),
    "a section missing": (put(MAGIC, {"a": 1, "b": 2}, PARTS[:1]), Corrupt),
    "a section before the known": (put(MAGIC, {"a": 1, "b": 2}, [("new", b""), *PARTS]), Corrupt),
}
STRICT = {
    "a section more": put(MAGIC, {"a": 1, "b": 2}, [*PARTS, ("new", b"x")]),
    "a key more": put(MAGIC, {"a": 1, "b": 2, "c": 3}, PARTS),
    "a key missing": put(MAGIC, {"a": 1}, PARTS),
}


def independent(data: bytes, *, more: bool) -> bool:
    """Whether the independent reader accepts the envelope."""
    reader.SIZE_LIMITS["TEST"] = LAYOUT.limit_bytes
    try:
        document = reader.Document(data, "TEST", {"a": int, "b": int}, more=more)
        for name in ("one", "two"):
            document.raw(name, dict(map(tuple, document.sections)).get(name, 0))
        document.end()
    except reader.Wrong:
        return False
    return True


@pytest.mark.parametrize("layout", [LAYOUT, OPEN], ids=["exact", "extensible"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name, layout):
    data, error = HOSTILE[name]
    began = time.monotonic()
    with taking_at_most(4 << 20), pytest.raises(error) as caught:
        decode(layout, data, place="hostile")
    assert time.monotonic() - began < 60
    assert type(caught.value) is error
    assert caught.value.place == "hostile"
    assert not independent(data, more=layout.extensible)


@pytest.mark.parametrize("name", STRICT)
def test_additions_are_for_extensible_documents_only(name):
    with pytest.raises(Corrupt):
        decode(LAYOUT, STRICT[name], place="hostile")
    assert decode(OPEN, STRICT[name], place="x").sections["one"] == b"123"


def test_good():
    document = decode(LAYOUT, GOOD, place="x")
    assert (document.number("a", 5), bytes(document.sections["one"])) == (1, b"123")
    assert encode(LAYOUT, {"b": 2, "a": 1}, [b"123", b""]) == GOOD
    assert independent(GOOD, more=False)
    with pytest.raises(TooLarge):
        document.number("b", 1)


def test_what_a_later_writer_may_add():
    later = {"a": 1, "b": 2, "c": {"x": [1, b"y"]}, "d": 2**64 - 1}
    assert decode(OPEN, put(MAGIC, later, [*PARTS, ("new", b"x")]), place="x").header["c"] == {"x": [1, b"y"]}


def test_magic():
    check_magic(b"PBPACK01", b"PBPACK01", "pack", "p")
    with pytest.raises(NewerFormat, match="version 12"):
        check_magic(b"PBPACK12", b"PBPACK01", "pack", "p")
    with pytest.raises(Corrupt):
        check_magic(b"PBPACK1\xb2", b"PBPACK01", "pack", "p")


ITEMS = st.recursive(
    st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=30), st.text(max_size=300)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=30), inner, max_size=3)),
    max_leaves=8,
)


def depth(value) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@settings(BOUNDED, max_examples=150)
@given(st.dictionaries(st.text(max_size=40), ITEMS, max_size=4))
@example({"c": 23, "d": 24, "e": 255, "f": 256, "g": 65_535, "h": 65_536, "i": 2**32 - 1, "j": 2**32})
def test_our_decoder_agrees_with_cbor2(extra):
    data = put(MAGIC, {**extra, "a": 1, "b": 2}, PARTS)
    if max(depth(v) for v in [*extra.values(), 0]) > 2 or "sections" in extra:
        return
    extra = {**extra, "a": 1, "b": 2}
    assert decode(OPEN, data, place="x").header == extra
    assert independent(data, more=True)


@settings(BOUNDED, max_examples=200)
@given(st.binary(max_size=60), st.booleans())
def test_any_header(tail, keep):
    data = raw(MAGIC, (b"\xa4\x61a\x01\x61b\x02\x61c" + tail + SECTIONS) if keep else tail, PARTS)
    try:
        document = decode(OPEN, data, place="x")
    except PacballError:
        accepted = False
    else:
        accepted = set(document.header) >= {"a", "b"}
        again = cbor2.dumps({**document.header, "sections": LISTED}, canonical=True)
        assert raw(MAGIC, again, PARTS) == data
    assert accepted == independent(data, more=True)

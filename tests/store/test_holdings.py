"""Holdings: one JSON object, in one spelling when written, with every digest spelled as a digest."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from pacstore.holdings import Holdings, check_format, decode_json, encode_json
from tests import independent_reader as reader
from tests.store.samples import BOUNDED, NAME, ordinary

GOOD = ordinary().holdings
VALUE = json.loads(GOOD)


def change(**changes: object) -> bytes:
    return encode_json({**VALUE, **changes})


HOSTILE = {
    "empty": (b"", Corrupt),
    "no JSON": (GOOD[:-2], Corrupt),
    "an array": (b"[]", Corrupt),
    "an error page": (b"<html>404</html>", Corrupt),
    "two objects": (GOOD + GOOD, Corrupt),
    "UTF-16": (GOOD.decode().encode("utf-16"), Corrupt),
    "UTF-32": (GOOD.decode().encode("utf-32-le"), Corrupt),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, Corrupt),
    "not UTF-8": (GOOD.replace(b'"release"', b'"x":"\xff","release"'), Corrupt),
    "raw surrogate": (GOOD.replace(b'"release"', b'"x":"\xed\xa0\x80","release"'), Corrupt),
    "a key twice": (GOOD.replace(b'"release"', b'"format":1,"release"'), Corrupt),
    "nested 30,000 deep": (b"[" * 30_000, Corrupt),
    "a number of 60,000 digits": (b'{"format":' + b"9" * 60_000 + b"}", Corrupt),
    "65,537 bytes": (GOOD[:-1].ljust(65_537), TooLarge),
    "format 2": (change(format=2), NewerFormat),
    "format 10^300": (change(format=10**300), NewerFormat),
    "format 0": (change(format=0), Corrupt),
    "format 1.0": (change(format=1.0), Corrupt),
    "format true": (change(format=True), Corrupt),
    "format as text": (change(format="1"), Corrupt),
    "no format": (encode_json({k: v for k, v in VALUE.items() if k != "format"}), Corrupt),
    "placement 0": (change(placement_number=0), Corrupt),
    "placement -1": (change(placement_number=-1), Corrupt),
    "placement 2^63": (change(placement_number=2**63), Corrupt),
    "placement 1.5": (change(placement_number=1.5), Corrupt),
    "placement true": (change(placement_number=True), Corrupt),
    "placement as text": (change(placement_number="1"), Corrupt),
    "release that is a path": (change(release="../../x"), Corrupt),
    "release that is null": (change(release=None), Corrupt),
    "digest in capitals": (change(tree_digest=VALUE["tree_digest"].upper()), Corrupt),
    "digest of 63 digits": (change(tree_digest="a" * 63), Corrupt),
    "digest with a newline": (change(manifest_digest="a" * 64 + "\n"), Corrupt),
    "digest in other digits": (change(manifest_digest="\u0661" * 64), Corrupt),
    "digest that is a number": (change(attributes_digest=int("1" * 64)), Corrupt),
    "digest that is a list": (change(placement_digest=["a" * 64]), Corrupt),
    "no digest": (encode_json({k: v for k, v in VALUE.items() if k != "placement_digest"}), Corrupt),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, error = HOSTILE[name]
    with pytest.raises(error) as caught:
        Holdings.parse(data, place="hostile")
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    with pytest.raises(reader.Wrong):
        reader.parse_holdings(data, NAME)


def test_good():
    holdings = Holdings.parse(GOOD, place="x")
    assert holdings.encode() == GOOD
    assert reader.parse_holdings(GOOD, NAME) == VALUE
    assert GOOD.endswith(b"}\n")
    assert b" " not in GOOD


def test_unknown_keys_and_another_spelling():
    data = json.dumps({"later": [1, {"x": "\u00e4"}], **VALUE}, indent=1).encode()
    assert Holdings.parse(data, place="x").encode() == GOOD
    reader.parse_holdings(data, NAME)


def test_check_format():
    check_format({"format": 1}, 1, "x")
    with pytest.raises(NewerFormat):
        check_format({"format": 2}, 1, "x")
    with pytest.raises(TooLarge):
        decode_json(b"{}   ", limit=4, place="x")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**65), st.floats(), st.text(max_size=70), st.just("a" * 64), st.just([])
)


@settings(BOUNDED, max_examples=300)
@given(st.data())
def test_mutations(data):
    if data.draw(st.booleans()):
        key = data.draw(st.sampled_from([*VALUE, "later"]))
        mutated = json.dumps({**VALUE, key: data.draw(VALUES)}).encode()
    else:
        at = data.draw(st.integers(0, len(GOOD) - 1))
        mutated = GOOD[:at] + data.draw(st.binary(max_size=3)) + GOOD[at + data.draw(st.integers(0, 2)) :]
    try:
        ours = Holdings.parse(mutated, place="x")
    except PacballError:
        ours = None
    try:
        reader.parse_holdings(mutated, str(ours.release) if ours else NAME)
    except reader.Wrong:
        assert ours is None
    else:
        assert ours is not None
        assert Holdings.parse(ours.encode(), place="x") == ours

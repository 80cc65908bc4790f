"""Header fields that strangers and publishers have a hand in: whatever they say, what is sent is one well-formed field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from pacmirror.pacballs.fields import disposition, instance_digests, wants_digests
from pacstore.digest import EMPTY
from pacstore.pacball.digests import PacballDigests

DIGESTS = PacballDigests(EMPTY, 9, bytes(32), bytes(32), bytes(16), 0x1A2B, 4096, bytes(32))
ONE = r"(adler32=00001a2b|md5=A{22}==|sha-256=A{43}=)"


@given(
    st.lists(st.text(max_size=80) | st.from_regex(r"(adler32|MD5|sha-256)(;q=[01](\\.[0-9]{1,3})?)?", fullmatch=True))
)
def test_whatever_digests_are_wanted(wanted):
    assert re.fullmatch(rf"({ONE}(,{ONE})*)?", instance_digests(wanted, DIGESTS))


def test_digests_are_given_once_each_the_most_wanted_first():
    said = instance_digests(["md5;q=0.2, sha-256;q=0.5", "MD5, adler32"], DIGESTS)
    assert re.findall(r"[a-z0-9-]+(?==)", said)[:1] == ["adler32"]
    assert said.count("md5=") == 1


@given(st.lists(st.tuples(st.sampled_from(["Want-Digest", "Want-Repr-Digest", "want-digest"]), st.text(max_size=80))))
def test_whatever_is_said_of_wanted_digests(fields):
    wants_digests(CIMultiDictProxy(CIMultiDict(fields)))


@pytest.mark.parametrize(
    ("name", "said", "wanted"),
    [
        ("Want-Repr-Digest", "sha-256=10", True),
        ("Want-Repr-Digest", "sha-512=3, sha-256=1", True),
        ("Want-Repr-Digest", "sha-256", True),
        ("Want-Repr-Digest", "sha-256=0", False),
        ("Want-Repr-Digest", "sha-256=5, sha-256=0", False),
        ("Want-Repr-Digest", "sha-512=10, md5=3", False),
        ("Want-Repr-Digest", "SHA-256=x", False),
        ("Want-Digest", "SHA-256;q=0.5", True),
        ("Want-Digest", "adler32", True),
        ("Want-Digest", "unixsum, md5;q=0", False),
        ("Want-Content-Digest", "sha-256=10", False),
    ],
)
def test_who_wants_digests(name, said, wanted):
    assert wants_digests(CIMultiDictProxy(CIMultiDict([(name, said)]))) is wanted


@given(st.text(min_size=1, max_size=100).filter(lambda name: name.isprintable()))
def test_any_name_of_a_file(name):
    said = disposition(name)
    assert re.fullmatch(r"attachment; filename=\"[^\"\\\\\r\n]*\"(; filename\*=UTF-8''[A-Za-z0-9._~%-]+)?", said)
    assert said.isascii()

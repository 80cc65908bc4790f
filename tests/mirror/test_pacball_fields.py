"""Header fields that strangers and publishers have a hand in: whatever they say, what is sent is one well-formed field."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pacmirror.pacballs.fields import disposition, instance_digests
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


@given(st.text(min_size=1, max_size=100).filter(lambda name: name.isprintable()))
def test_any_name_of_a_file(name):
    said = disposition(name)
    assert re.fullmatch(r"attachment; filename=\"[^\"\\\\\r\n]*\"(; filename\*=UTF-8''[A-Za-z0-9._~%-]+)?", said)
    assert said.isascii()

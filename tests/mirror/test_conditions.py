"""Conditions and ranges as pure functions: whatever is asked, the answer lies inside the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from pacmirror.conditions import choose_answer, http_date
from pacmirror.files import parse_public
from pacstore.errors import NotFound

NAMES = st.sampled_from(["Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"])
VALUES = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}(,[0-9]*-[0-9]*)?", fullmatch=True),
    st.sampled_from(['"b3-x"', 'W/"b3-x"', "*", '"y", "b3-x"']),
    st.builds(http_date, st.integers(0, 1 << 34)),
)


@given(
    st.sampled_from(["GET", "HEAD"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1 << 34),
)
def test_every_answer_lies_inside_the_file(method, fields, size, modified):
    given = CIMultiDictProxy(CIMultiDict(fields))
    answer = choose_answer(method, given, size=size, etag='"b3-x"', modified=modified)
    assert answer.status in (200, 206, 304, 412, 416)
    assert 0 <= answer.offset <= answer.offset + answer.length <= size
    assert (answer.length > 0) or answer.status != 206
    assert (answer.offset, answer.length) == (0, size) or answer.status != 200


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 500))
def test_a_range_inside_the_file_is_answered_exactly(first, more, size):
    fields = CIMultiDictProxy(CIMultiDict({"Range": f"bytes={first}-{first + more}"}))
    answer = choose_answer("GET", fields, size=size, etag='"b3-x"')
    expected = (416, 0, 0) if first >= size else (206, first, min(more + 1, size - first))
    assert (answer.status, answer.offset, answer.length) == expected


@given(
    st.one_of(
        st.text(max_size=200),
        st.from_regex(r"(packs|holdings|catalog|placements|releases/A)/[ -~]{0,80}", fullmatch=True),
    )
)
def test_public_paths_stay_inside_the_docroot(path):
    try:
        public = parse_public(path)
    except NotFound:
        return
    assert public.path == path
    assert all(part and part not in (".", "..") and not part.startswith(".") for part in path.split("/"))
    assert path.isascii()
    assert path.isprintable()

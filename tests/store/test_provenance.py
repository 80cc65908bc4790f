from __future__ import annotations

import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.check import check
from pacstore.directory_source import DirectorySource
from pacstore.documents import fetch_signed, read_provenance
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge
from pacstore.limits import LIMITS
from pacstore.links import links_of
from pacstore.progress import Silent
from pacstore.provenance import (
    SUMMARY_CHARACTERS,
    SUMMARY_ITEMS,
    Artifact,
    Statement,
    check_subject,
    fetch_provenance,
    store_provenance,
    with_provenance,
)
from pacstore.storage import ObjectKind, object_path
from tests.store.releases import flip, overwrite
from tests.store.statements import (
    BUNDLE,
    SLSA_1,
    SOURCE,
    STATEMENT_1,
    bundle,
    dsse,
    encoded,
    slsa_0_2,
    slsa_1,
    subject_of,
)
from tests.store.trust_world import entry

ENTRY = entry()
SUBJECT = subject_of(ENTRY)
GOOD = slsa_1(SUBJECT)


def parse(value: object) -> Statement:
    return Statement.parse(value if isinstance(value, bytes) else encoded(value), place="the file")


FORMS = {
    "alone": (GOOD, "none", ()),
    "an envelope": (dsse(GOOD), "dsse", ("key-1", "a key without an id")),
    "the other alphabet": (
        dsse(slsa_1(SUBJECT, note="\u00ff\u00fe?>"), urlsafe=True),
        "dsse",
        ("key-1", "a key without an id"),
    ),
    "an unsigned envelope": (dsse(GOOD, keys=()), "dsse", ()),
    "a bundle with a certificate": (
        bundle(dsse(GOOD, keys=("",)), {"certificate": {"rawBytes": ""}}),
        "sigstore bundle",
        ("a certificate",),
    ),
    "a bundle with a key": (
        bundle(dsse(GOOD, keys=("",)), {"publicKey": {"hint": "9d2f"}}),
        "sigstore bundle",
        ("9d2f",),
    ),
    "an older bundle": (
        bundle(dsse(GOOD), {}, "application/vnd.dev.sigstore.bundle+json;version=0.2"),
        "sigstore bundle",
        ("key-1", "a key without an id"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_statement_in_any_of_its_envelopes(form):
    value, envelope, keys = FORMS[form]
    statement = parse(value)
    assert (statement.envelope, statement.key_ids) == (envelope, keys)
    assert statement.subjects == (Artifact(str(ENTRY.release), SUBJECT["digest"]),)
    found = statement.summary()
    assert (found.statement_type, found.predicate_type) == (STATEMENT_1, SLSA_1)
    assert (found.envelope, found.signed_by_unverified) == (envelope, keys)
    assert (found.subjects, found.subject_count) == (statement.subjects, 1)
    assert (found.builder, found.build_type) == ("https://example.org/builder", "https://example.org/build/v1")
    assert (found.started, found.finished) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")
    assert (found.sources, found.source_count) == ((Artifact(SOURCE["uri"], SOURCE["digest"]),), 1)


def test_slsa_0_2():
    found = parse(slsa_0_2(SUBJECT)).summary()
    assert (found.builder, found.build_type) == ("https://example.org/builder", "https://example.org/build/v0")
    assert (found.started, found.finished) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")
    assert [one.name for one in found.sources] == [SOURCE["uri"], "pkg:deb/debian/gcc@12"]


def test_other_predicates_have_shorter_summaries():
    other = slsa_1(SUBJECT, predicateType="https://example.org/test-result/v1", predicate={"passed": True})
    found = parse(other).summary()
    assert found.predicate_type == "https://example.org/test-result/v1"
    assert (found.builder, found.sources, found.source_count) == ("", (), 0)
    del other["predicate"]
    assert parse(other).predicate == {}


def test_summaries_are_short_whatever_there_is():
    long = "x" * 1_000
    sources = [{"uri": long, "digest": {f"{n}": long for n in range(30)}}] * 100
    predicate = {"buildDefinition": {"resolvedDependencies": sources}, "runDetails": {"builder": {"id": long}}}
    subjects = [SUBJECT, *({"name": long, "digest": {"sha256": long}} for _ in range(500))]
    found = parse(dsse(slsa_1(*subjects, predicate=predicate), keys=(long,) * 100)).summary()
    assert (found.subject_count, found.source_count) == (501, 100)
    assert len(found.subjects) == len(found.sources) == len(found.signed_by_unverified) == SUMMARY_ITEMS
    assert found.builder == f"{long[:SUMMARY_CHARACTERS]}..."
    assert len(json.dumps(dataclasses.asdict(found))) < SUMMARY_ITEMS * SUMMARY_ITEMS * 2 * SUMMARY_CHARACTERS


WRONG = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "another object": {"hello": 1},
    "not UTF-8": b'{"_type": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf" + encoded(GOOD),
    "UTF-16": encoded(GOOD).decode().encode("utf-16"),
    "two statements": encoded(GOOD) + b"\n" + encoded(GOOD),
    "a key twice": b'{"_type": "x", "_type": "y"}',
    "deep": b'{"_type":' * 100_000 + b"1" + b"}" * 100_000,
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "a huge number": b'{"_type": %s}' % (b"9" * 10_000),
    "another statement type": slsa_1(SUBJECT, _type="https://in-toto.io/Statement/v2"),
    "a statement type with more": slsa_1(SUBJECT, _type=f"{STATEMENT_1}\n"),
    "a statement type that is no text": slsa_1(SUBJECT, _type=["x"]),
    "no predicate type": slsa_1(SUBJECT, predicateType=""),
    "a predicate type that is no text": slsa_1(SUBJECT, predicateType={}),
    "a predicate that is no object": slsa_1(SUBJECT, predicate=[]),
    "no subjects": slsa_1(),
    "subjects that are no list": slsa_1(subject={"name": "x"}),
    "a subject that is no object": slsa_1(SUBJECT, "subject"),
    "another payload": {**dsse(GOOD), "payloadType": "text/plain"},
    "no payload": {"payloadType": "application/vnd.in-toto+json"},
    "a payload that is no text": {**dsse(GOOD), "payload": 5},
    "a payload that is not base64": {**dsse(GOOD), "payload": "***"},
    "a payload beyond ASCII": {**dsse(GOOD), "payload": "\u00e4"},
    "an envelope in an envelope": dsse(dsse(GOOD)),
    "a bundle without an envelope": {"mediaType": BUNDLE, "messageSignature": {}},
    "a bundle of a later form": bundle(dsse(GOOD), {}, "application/vnd.dev.sigstore.bundle.v1.0+json"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_statement_is_corrupt(wrong):
    with pytest.raises(Corrupt) as caught:
        parse(WRONG[wrong])
    assert caught.value.place == "the file"


def test_what_is_too_long_is_not_parsed():
    with pytest.raises(TooLarge):
        parse(b" " * (LIMITS.provenance_bytes + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def replaced(value: object, path: list[object], new: object) -> object:
    """A copy of nested JSON in which the value at `path` is another one."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return copy


def paths(value: object) -> list[list[object]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [[], *([key, *rest] for key in keys for rest in paths(value[key]))]


@pytest.mark.parametrize("form", [GOOD, slsa_0_2(SUBJECT), FORMS["a bundle with a key"][0]], ids=["1", "0.2", "bundle"])
@given(data=st.data())
def test_anything_anywhere_is_summed_up_or_corrupt(form, data):
    """Whatever stands in a statement: no other error, and nothing in the summary that is not text."""
    changed = replaced(form, data.draw(st.sampled_from(paths(form))), data.draw(JSON))
    with suppress(Corrupt):
        statement = parse(changed)
        statement.names(ENTRY)
        found = dataclasses.asdict(statement.summary())
        assert isinstance(found["builder"] + found["started"] + found["build_type"] + found["finished"], str)
        assert all(isinstance(one["name"], str) for one in found["sources"] + found["subjects"])
        json.dumps(found, allow_nan=False)


@given(st.binary())
def test_any_bytes_are_corrupt(data):
    with pytest.raises(Corrupt):
        parse(data)


@pytest.mark.parametrize(
    ("digest", "accepted"),
    [
        ({"pacballTree": ENTRY.tree_digest.hex}, True),
        ({"blake3": ENTRY.tree_digest.hex}, True),
        ({"sha256": ENTRY.manifest.sha256.hex()}, True),
        ({"sha256": "00" * 32, "blake3": ENTRY.tree_digest.hex}, True),
        ({}, False),
        ({"sha256": ENTRY.tree_digest.hex}, False),
        ({"sha512": ENTRY.manifest.sha256.hex()}, False),
        ({"blake3": ENTRY.manifest.digest.hex}, False),
        ({"pacballTree": ENTRY.manifest.sha256.hex()}, False),
        ({"pacballTree": ENTRY.tree_digest.hex.upper()}, False),
        ({"pacballTree": [ENTRY.tree_digest.hex]}, False),
    ],
)
def test_which_subjects_are_the_release(digest, accepted):
    """The name counts for nothing: it is the digest that is stated."""
    statement = parse(slsa_1({"name": "something else", "digest": {"sha256": "ab" * 32}}, {"digest": digest}))
    assert statement.names(ENTRY) is accepted
    if not accepted:
        with pytest.raises(Refused) as caught:
            check_subject(statement, ENTRY)
        for text in (
            f'"pacballTree": "{ENTRY.tree_digest}"',
            f'"blake3": "{ENTRY.tree_digest}"',
            f'"sha256": "{ENTRY.manifest.sha256.hex()}"',
        ):
            assert text in caught.value.hint


@pytest.fixture
def published(origin, trees):
    origin.publish(trees[0])
    return origin


def test_a_provenance_is_stored_linked_read_and_fetched(published):
    store, before = published.store, published.entry()
    data = encoded(dsse(slsa_1(subject_of(before))))
    document = store_provenance(store, before, data)
    after = with_provenance(before, document)
    assert after == dataclasses.replace(before, provenance=document)
    assert read_provenance(store.storage, after) == data
    assert fetch_provenance(DirectorySource(store.path), after) == data
    link = links_of(after)[-1]
    assert link.path == f"releases/Demo/{before.release}/{document.sha256.hex()}.provenance"
    assert (store.public / link.path).read_bytes() == data
    assert store_provenance(store, before, data) == document
    assert check(store, [after], progress=Silent()).damage == []


def test_what_is_refused_is_not_stored(published):
    store, before = published.store, published.entry()
    for data in (b"{}", encoded(GOOD), encoded(slsa_1()), b" " * (LIMITS.provenance_bytes + 1)):
        with pytest.raises(PacballError):
            store_provenance(store, before, data)
    assert list(store.storage.digests(ObjectKind.PROVENANCE)) == []


def test_a_provenance_that_the_source_changed_is_corrupt(published):
    store, before = published.store, published.entry()
    after = with_provenance(before, store_provenance(store, before, encoded(slsa_1(subject_of(before)))))
    path = store.public / object_path(ObjectKind.PROVENANCE, after.provenance.digest)
    flip(path, 30)
    source = DirectorySource(store.path)
    with pytest.raises(Corrupt, match="not what the catalog signs"):
        fetch_provenance(source, after)
    with pytest.raises(Corrupt):
        read_provenance(store.storage, after)
    report = check(store, [after], progress=Silent())
    assert {damage.place for damage in report.damage} == {object_path(ObjectKind.PROVENANCE, after.provenance.digest)}
    assert report.releases == [str(before.release)]
    overwrite(path, path.read_bytes() + b" ")
    with pytest.raises(TooLarge):
        fetch_provenance(source, after)
    path.unlink()
    with pytest.raises(NotFound):
        fetch_provenance(source, after)
    assert check(store, [after], progress=Silent()).releases == [str(before.release)]


def test_a_release_without_provenance_says_so(published):
    with pytest.raises(NotFound, match="no provenance in the catalog"):
        fetch_provenance(DirectorySource(published.store.path), published.entry())
    assert read_provenance(published.store.storage, published.entry()) is None


class OneBadAnswer:
    """A source whose first answer is damaged."""

    name = "one"

    def __init__(self, data: bytes) -> None:
        self._answers = [data[:-1] + b"?", data]

    def read(self, path: str, *, limit: int) -> bytes:
        return self._answers.pop(0)


def test_what_arrives_damaged_is_asked_for_again(published):
    data = encoded(slsa_1(subject_of(published.entry())))
    document = store_provenance(published.store, published.entry(), data)
    assert fetch_signed(OneBadAnswer(data), "provenance", document) == data

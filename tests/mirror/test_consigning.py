"""Consigning over HTTP: who registers a release elsewhere asks its origin for what there is, and to keep it."""

import json
from dataclasses import replace

import pytest

from pacmirror.delivery.rucio.material import OriginSupply
from pacmirror.delivery.rucio.naming import FileKind, file_name
from pacmirror.source import HttpSource
from pacmirror.uploads.client import HttpOrigin
from pacstore.consignment import OWNER
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.ledger import pins
from pacstore.release import Release
from pacstore.storage import ObjectKind
from tests.mirror.scripted import answer, playing
from tests.mirror.test_upload_client import reaching
from tests.mirror.uploading import begun_origin, taking
from tests.store.releases import NAME, NOW, make_tree

RELEASE = Release.parse(NAME)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    top = tmp_path_factory.mktemp("consigning")
    origin = begun_origin(top / "origin")
    origin.publish(make_tree(top / "tree", kib=100))
    with taking(top, origin=origin) as running:
        yield running


@pytest.fixture
def entry(made):
    found = made.origin.catalog.release(RELEASE)
    assert found is not None
    return found


def pinned(made):
    with made.origin.store.ledger.reading() as connection:
        return [(one.name, one.owner) for one in pins.listed(connection, now=NOW)]


def test_a_release_is_kept_and_told_and_taken_back(made, entry, tmp_path):
    with reaching(made, tmp_path) as origin, HttpSource(made.daemon.url) as source:
        supply = OriginSupply(origin, source, entry)
        first = supply.consign(None, with_pacball=True)
        assert pinned(made) == [(NAME, OWNER)]
        names = [one.name for one in first.files]
        assert names[:2] == [
            file_name(FileKind.BUNDLE, first.bundle),
            file_name(FileKind.MANIFEST, entry.manifest.digest),
        ]
        bundle = source.read(f"bundles/{first.bundle.hex[:2]}/{first.bundle}", limit=1 << 20)
        assert (Digest.of(bundle), len(bundle)) == (first.bundle, first.files[0].length)
        assert first.pacball is not None
        again = supply.consign(first.bundle, with_pacball=True)
        assert again == replace(first, is_new=False)
        assert first.is_new
        supply.take_back()
        assert pinned(made) == []
        assert origin.take_back(RELEASE) is False


def test_what_is_not_there_or_not_allowed_is_said(made, entry, tmp_path):
    with reaching(made, tmp_path) as origin:
        with pytest.raises(NotFound, match="is not in the catalog"):
            origin.consign(Release.parse("Demo-9-x"), None, with_pacball=False)
        with pytest.raises(NotFound):
            origin.consign(RELEASE, Digest.of(b"no bundle"), with_pacball=False)
    with reaching(made, tmp_path, role="read") as reader, pytest.raises(Refused):
        reader.consign(RELEASE, None, with_pacball=False)
    assert pinned(made) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}x", b'{"bundle":7}', b'{"pacball":1}', b'{"other":null}', b"[" * 4000]
)
def test_a_body_that_is_none_is_refused(made, body):
    client = made.client()
    client.release = NAME
    assert client.publication("POST", "/consignment", body).status in (400, 422)
    assert pinned(made) == []


def honest(entry):
    """An answer as an honest origin gives it, but for the checksums."""
    sums = {"length": 7, "adler32": "0" * 8, "md5": "0" * 32}
    manifest = {**sums, "kind": "manifests", "digest": entry.manifest.digest.hex, "length": entry.manifest.length}
    bundle = {**sums, "kind": "bundles", "digest": "1" * 64}
    return {"number": 1, "bundle": "1" * 64, "objects": [bundle, manifest], "pacball": None, "is_new": True}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, Corrupt),  # it lacks the packs that the catalog names
        ({"number": 2}, Unavailable),
        ({"number": "1"}, Corrupt),
        ({"bundle": "2" * 64}, Corrupt),
        ({"bundle": 1}, Corrupt),
        ({"objects": None}, Corrupt),
        ({"objects": [1]}, Corrupt),
        ({"objects": [{"kind": "odd"}]}, Corrupt),
        ({"pacball": {"length": -1, "adler32": "0" * 8, "md5": "0" * 32}}, Corrupt),
        ({"pacball": {"length": 1, "adler32": "x" * 8, "md5": "0" * 32}}, Corrupt),
        ({"is_new": None}, Corrupt),
    ],
)
def test_an_origin_that_lies_is_not_believed(made, entry, tmp_path, change, kind):
    said = answer("200 OK", json.dumps({**honest(entry), **change}).encode(), "Content-Type: application/json")
    with (
        playing([said]) as script,
        HttpOrigin(script.url) as origin,
        HttpSource(made.daemon.url) as source,
        pytest.raises(kind),
    ):
        OriginSupply(origin, source, entry).consign(None, with_pacball=False)


def test_the_kinds_are_those_of_the_store():
    assert {one.object_kind for one in FileKind} == {ObjectKind.PACK, ObjectKind.MANIFEST, ObjectKind.BUNDLE}

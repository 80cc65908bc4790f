"""A docroot is a complete TUF repository for a client that is not ours, over a web server that knows nothing of either."""

from __future__ import annotations

import shutil

import pytest
from tuf.api.exceptions import DownloadError, RepositoryError

from tests.cli.test_docroot import serving
from tests.independent_reader import Store, Wrong
from tests.store.releases import flip, write
from tests.store.statements import encoded, slsa_1
from tests.tuf_client import DOCUMENTS, download

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"


@pytest.fixture
def root(store):
    return (store / "public/catalog/1.root.json").read_bytes()


def stored(pacball, store, release):
    """The documents of a release where our own clients find them."""
    shown = pacball.json("show", release, "--from", store)
    names = {"manifest": "manifests", "attributes": "attributes", "provenance": "provenance"}
    digests = {name: shown[f"{name}_digest"] for name in names}
    found = {name: (store / f"public/{names[name]}/{d[:2]}/{d}").read_bytes() for name, d in digests.items() if d}
    return {**found, "placement": (store / f"public/placements/{release}.{shown['placement_number']}").read_bytes()}


def test_python_tuf_follows_the_repository_and_gets_every_document(pacball, store, root, tmp_path):
    tree = pacball.json("show", OLD, "--from", store)["tree_digest"]
    statement = write(tmp_path / "statement", encoded(slsa_1({"name": "x", "digest": {"pacballTree": tree}})))
    pacball.json("attach", OLD, "--store", store, "--provenance", statement)
    with serving(store / "public") as port:
        url = f"http://127.0.0.1:{port}"
        old = download(url, root, tmp_path / "old", OLD, DOCUMENTS)
        new = download(url, root, tmp_path / "new", NEW, DOCUMENTS[:3])
    assert old == stored(pacball, store, OLD)
    assert new == stored(pacball, store, NEW)
    assert old["provenance"] == statement.read_bytes()


def test_the_independent_reader_compares_links_with_their_documents(store, tmp_path):
    shutil.copytree(store / "public", tmp_path / "copy")
    links = sorted((tmp_path / "copy/releases/Demo" / OLD).iterdir())
    assert [link.suffix for link in sorted(links, key=lambda link: link.suffix)] == [
        ".attributes",
        ".manifest",
        ".placement",
    ]
    for link in links:
        flip(link, 100)
        with pytest.raises(Wrong, match="a link to something else"):
            Store(tmp_path / "copy", OLD)
        link.unlink()
    Store(tmp_path / "copy", OLD)


def test_python_tuf_notices_a_damaged_link_and_a_missing_one(store, root, tmp_path):
    (link,) = (store / f"public/releases/Demo/{OLD}").glob("*.manifest")
    flip(link, 100)
    with serving(store / "public") as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(RepositoryError):
            download(url, root, tmp_path / "damaged", OLD, ("manifest",))
        link.unlink()
        with pytest.raises(DownloadError):
            download(url, root, tmp_path / "missing", OLD, ("manifest",))
        assert download(url, root, tmp_path / "other", OLD, ("placement",))

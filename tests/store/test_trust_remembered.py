"""Where only an older catalog is at hand, the newest that was seen goes on being believed, as far as it is kept."""

from __future__ import annotations

import shutil

import pytest

from pacstore.directory_source import DirectorySource
from pacstore.errors import NotFound, PacballError, Untrusted
from pacstore.release import Release
from pacstore.trust.client import metadata_dir, open_catalog
from pacstore.trust.remembered import remembered
from tests.store.releases import NAME, NEXT, NOW, Origin

DAY = 86_400.0


@pytest.fixture(scope="module")
def places(tmp_path_factory, trees):
    """A store as it was, the same store as it is, and its root."""
    tmp_path = tmp_path_factory.mktemp("places")
    origin = Origin.make(tmp_path / "origin")
    origin.publish(trees[0], NAME)
    shutil.copytree(origin.store.path, tmp_path / "old")
    origin.publish(trees[1], NEXT)
    origin.store.close()
    root = (origin.store.public / "catalog/1.root.json").read_bytes()
    return DirectorySource(tmp_path / "old"), DirectorySource(origin.store.path), root


def test_a_step_backward_is_not_needed_where_the_newest_state_is_kept(places, tmp_path):
    old, new, root = places
    more = {"root": root, "state_dir": tmp_path / "state", "now": NOW}
    assert remembered(old, root=root, state_dir=tmp_path / "state") is None
    seen = open_catalog(new, **more)
    seen.release(Release.parse(NEXT))
    with pytest.raises(Untrusted, match="rolled back"):
        open_catalog(old, **more)
    kept = remembered(old, root=root, state_dir=tmp_path / "state")
    catalog = open_catalog(kept, **more)
    assert catalog.version == seen.version
    assert catalog.release(Release.parse(NAME)).release == Release.parse(NAME)
    assert catalog.release(Release.parse(NEXT)).release == Release.parse(NEXT)
    assert kept.name == old.name
    later = open_catalog(kept, **{**more, "now": NOW + 400 * DAY})
    assert later.stale


def test_what_of_it_is_not_kept_is_not_made_up(places, tmp_path):
    """The line has changed, and its newest metadata were never looked at here."""
    old, new, root = places
    more = {"root": root, "state_dir": tmp_path / "state", "now": NOW}
    open_catalog(new, **more)
    catalog = open_catalog(remembered(old, root=root, state_dir=tmp_path / "state"), **more)
    with pytest.raises(PacballError) as error:
        catalog.release(Release.parse(NAME))
    assert not isinstance(error.value, NotFound)


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * 100_000])
def test_a_damaged_copy_is_not_believed(places, tmp_path, damage):
    old, new, root = places
    more = {"root": root, "state_dir": tmp_path / "state", "now": NOW}
    open_catalog(new, **more)
    (metadata_dir(root, tmp_path / "state") / "timestamp.json").write_bytes(damage)
    kept = remembered(old, root=root, state_dir=tmp_path / "state")
    with pytest.raises(PacballError):
        open_catalog(kept or old, **more)

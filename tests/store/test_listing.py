"""All releases of a copied catalog, and which public path belongs to which signed document."""

from __future__ import annotations

import pytest
from tuf.api.metadata import TargetFile

from pacstore.backends.memory import MemoryStorage
from pacstore.links import links_of
from pacstore.release import Release
from pacstore.trust import entries
from pacstore.trust.listing import Listing, list_releases
from pacstore.trust.served import Verifier
from tests.store.signed_catalog import SignedCatalog
from tests.store.trust_world import NOW, entry

NAMES = [f"Alpha-{version}-any" for version in ("1", "2", "3")]


class Counting(MemoryStorage):
    def __init__(self, files):
        super().__init__()
        self.files = files
        self.names_read = []

    def get(self, kind, name, *, limit):
        self.names_read.append(name)
        return super().get(kind, name, limit=limit)


def add(catalog, one):
    project = one.release.project
    for target in entries.encode_line(one):
        catalog.signed[f"line-{project}"].targets[target.path] = target
    target = entries.encode_placement(one)
    catalog.signed[f"placement-{project}"].targets[target.path] = target


@pytest.fixture
def catalog():
    made = SignedCatalog("Alpha", "Beta", now=NOW)
    for name in [*NAMES, "Beta-1-any"]:
        add(made, entry(name))
    made.commit("line-Alpha", "placement-Alpha", "line-Beta", "placement-Beta")
    return made


def listed(catalog, before=None):
    storage = Counting(catalog.files)
    state = Verifier(storage).verify(catalog.stamp)
    storage.names_read.clear()
    return list_releases(storage, state, before or Listing()), storage


def test_all_releases_are_listed_and_only_changed_lines_are_read(catalog):
    listing, storage = listed(catalog)
    assert {str(name): one for name, one in listing.releases.items()} == {n: entry(n) for n in [*NAMES, "Beta-1-any"]}
    assert listing.faults == ()
    add(catalog, entry(NAMES[0], number=2))
    catalog.commit("placement-Alpha")
    listing, storage = listed(catalog, listing)
    assert storage.names_read == ["2.line-Alpha.json", "3.placement-Alpha.json"]
    assert listing.releases[Release.parse(NAMES[0])] == entry(NAMES[0], number=2)
    with pytest.raises(TypeError):
        listing.releases[Release.parse("Gamma-1-any")] = entry()


def test_documents_are_found_by_their_paths(catalog):
    listing, _ = listed(catalog)
    one = entry(NAMES[1])
    for link in links_of(one):
        found = listing.named(link.path)
        assert found == listing.named(link.file)
        assert found.path == link.file
        assert found.signed in one.documents()
        other = link.path.replace(NAMES[1], NAMES[0])
        assert listing.named(other) is None
    digest = one.manifest.digest.hex
    for path in (
        f"placements/{NAMES[1]}.2",
        "placements/Gamma-1-any.1",
        "placements/nonsense.1",
        f"attributes/{digest[:2]}/{digest}",
        f"packs/{digest[:2]}/{digest}",
        f"manifests/ab/{'ab' * 32}",
        f"releases/Alpha/Alpha-9-any/{'ab' * 32}.manifest",
        f"releases/Alpha/{NAMES[1]}/{'ab' * 32}.provenance",
    ):
        assert listing.named(path) is None
    assert listing.newest_placement(f"placements/{NAMES[1]}.7") == 1
    assert listing.newest_placement("placements/Gamma-1-any.7") is None


def test_a_release_that_is_described_wrongly_hides_no_other_one_bandersnatch_1434(catalog):
    line = catalog.signed["line-Alpha"].targets
    line[f"releases/Alpha/{NAMES[0]}/manifest"].unrecognized_fields["custom"]["bytes"] = "many"
    del catalog.signed["placement-Alpha"].targets[f"releases/Alpha/{NAMES[1]}/placement"]
    for path in ("releases/Alpha/Beta-2-any/manifest", "releases/Alpha/x\x1b/manifest"):
        line[path] = TargetFile(1, {"sha256": "ab" * 32}, path, {"custom": {}})
    catalog.commit("line-Alpha", "placement-Alpha")
    listing, _ = listed(catalog)
    assert sorted(map(str, listing.releases)) == [NAMES[2], "Beta-1-any"]
    said = " ".join(listing.faults)
    assert NAMES[0] in said
    assert NAMES[1] in said
    assert "\x1b" not in said


def test_a_line_that_cannot_be_read_hides_no_other_one_and_is_read_again(catalog):
    storage = Counting(dict(catalog.files))
    state = Verifier(storage).verify(catalog.stamp)
    good = storage.files.pop("catalog/2.line-Alpha.json")
    listing = list_releases(storage, state, Listing())
    assert [str(name) for name in listing.releases] == ["Beta-1-any"]
    assert "line-Alpha" in listing.faults[0]
    storage.files["catalog/2.line-Alpha.json"] = good[:-1]
    listing = list_releases(storage, state, listing)
    assert "is not what the catalog says" in listing.faults[0]
    storage.files["catalog/2.line-Alpha.json"] = good
    assert len(list_releases(storage, state, listing).releases) == 4

"""Names in Rucio: what a stranger reads from them, and that both schemas take every one of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacmirror.delivery.rucio.naming import (
    Did,
    FileKind,
    MetadataKey,
    check_names,
    check_rse,
    container_name,
    dataset_name,
    file_name,
    metadata_of,
    pacball_dataset_name,
    parse_dataset_name,
    parse_file_name,
    parse_pacball_dataset_name,
    parse_pacball_name,
    public_path,
)
from pacstore.digest import Digest
from pacstore.errors import Refused
from pacstore.limits import LIMITS
from pacstore.pacball.stub import file_name as pacball_name
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.trust.targets import CatalogRelease, SignedDocument

# As the schemas of Rucio 41 and of ATLAS' policy package have them; they are checked by the server alone.
GENERIC_NAME = re.compile(r"^[/A-Za-z0-9][/A-Za-z0-9\.\-_]*$")
GENERIC_SCOPE = re.compile(r"^[a-zA-Z_\-.0-9]+$")
GENERIC_RSE = re.compile(r"^([A-Z0-9]+([_-][A-Z0-9]+)*)$")
NAME_LENGTH, SCOPE_LENGTH = 250, 25
ATLAS_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9\.\-\_]{1,250}$")
ATLAS_SCOPE = re.compile(r"^[a-zA-Z_\-.0-9]{1,30}$")
DOCUMENT = SignedDocument.of_all([b"a document"])
TREE = Digest.of(b"a tree")


def entry_of(name: str, number: int = 3) -> CatalogRelease:
    return CatalogRelease(Release.parse(name), TREE, DOCUMENT, DOCUMENT, DOCUMENT, number, 1, 1, 1)


RELEASE = "AtlasOffline-17.2.0-x86_64-slc6-gcc46-opt"


def test_the_dataset_of_a_release_says_its_tree_and_placement() -> None:
    name = dataset_name(entry_of(RELEASE))
    assert name == f"sw.{RELEASE}.b3-{TREE.hex[:16]}.p3"
    found = parse_dataset_name(name)
    assert found is not None
    assert (str(found.release), found.tree, found.placement_number) == (RELEASE, TREE.hex[:16], 3)


def test_a_superseded_placement_has_a_dataset_of_its_own() -> None:
    assert dataset_name(entry_of(RELEASE), 2).endswith(".p2")


def test_the_dataset_of_a_pacball_is_another() -> None:
    name = pacball_dataset_name(entry_of(RELEASE))
    assert name == f"sw.{RELEASE}.b3-{TREE.hex[:16]}.pacball"
    assert parse_dataset_name(name) is None
    assert parse_pacball_dataset_name(name) == (Release.parse(RELEASE), TREE.hex[:16])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sw.AtlasOffline",
        f"sw.{RELEASE}.b3-{'A' * 16}.p1",
        f"sw.{RELEASE}.b3-{'a' * 15}.p1",
        f"sw.{RELEASE}.b3-{'a' * 16}.p01",
        f"sw.{RELEASE}.b3-{'a' * 16}.p1\n",
        f"sw.{RELEASE}.b3-{'a' * 16}.p{'9' * 19}",
        f"sw.../../etc.b3-{'a' * 16}.p1",
        f"SW.{RELEASE}.b3-{'a' * 16}.p1",
    ],
)
def test_what_is_no_dataset_of_ours_is_passed_over(name: str) -> None:
    assert parse_dataset_name(name) is None
    assert parse_pacball_dataset_name(name) is None


@pytest.mark.parametrize("kind", list(FileKind))
def test_files_are_found_below_the_base_url(kind: FileKind) -> None:
    digest = Digest.of(b"an object")
    name = file_name(kind, digest)
    assert parse_file_name(name) == (kind, digest)
    assert public_path(name) == f"{kind}s/{digest.hex[:2]}/{digest}"


def test_the_paths_are_those_of_the_store() -> None:
    digest = Digest.of(b"an object")
    assert public_path(file_name(FileKind.PACK, digest)) == object_path(ObjectKind.PACK, digest)
    assert public_path(file_name(FileKind.MANIFEST, digest)) == object_path(ObjectKind.MANIFEST, digest)
    assert FileKind.MANIFEST.object_kind is ObjectKind.MANIFEST


def test_a_pacball_is_found_below_the_base_url() -> None:
    name = pacball_name(Release.parse(RELEASE), TREE)
    assert parse_pacball_name(name) == (Release.parse(RELEASE), TREE)
    assert public_path(name) == f"pacballs/{name}"


@pytest.mark.parametrize(
    "name",
    ["x.pack", f"{'a' * 64}.chunk", f"{'a' * 64}.pack\n", f"../{'a' * 64}.pack", f"{RELEASE}.b3-{'a' * 63}.sh", ".sh"],
)
def test_other_files_have_no_path(name: str) -> None:
    assert parse_file_name(name) is None
    with pytest.raises(Refused):
        public_path(name)


def test_the_longest_release_fits_both_schemas() -> None:
    name = "P-1-" + "x" * (LIMITS.release_name_bytes - 4)
    entry = entry_of(name, 10**18 - 1)
    check_names(entry, "a" * 25)
    longest = max(map(len, (dataset_name(entry), pacball_dataset_name(entry), pacball_name(entry.release, TREE))))
    assert longest < NAME_LENGTH


_PARTS = st.tuples(
    st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,40}\Z"),
    st.from_regex(r"\A[0-9A-Za-z][0-9A-Za-z_]{0,40}\Z"),
    st.from_regex(r"\A[A-Za-z0-9_-]{1,40}\Z"),
)


@given(_PARTS, st.integers(0, 10**18 - 1))
def test_every_release_fits_both_schemas(parts: tuple[str, str, str], number: int) -> None:
    entry = entry_of("-".join(parts), number)
    check_names(entry, "sw")
    for name in (
        dataset_name(entry),
        pacball_dataset_name(entry),
        container_name(entry.release.project),
        pacball_name(entry.release, TREE),
        file_name(FileKind.BUNDLE, TREE),
    ):
        assert GENERIC_NAME.match(name)
        assert ATLAS_NAME.match(name)
        assert str(Did.parse(f"sw:{name}")) == f"sw:{name}"
    assert parse_dataset_name(dataset_name(entry)) is not None


@pytest.mark.parametrize("scope", ["", "a" * 26, "sw:x", "a b", "sw\n", "sẃ"])
def test_a_scope_that_one_schema_refuses_is_refused(scope: str) -> None:
    with pytest.raises(Refused, match="is no scope of Rucio"):
        check_names(entry_of(RELEASE), scope)


@pytest.mark.parametrize("text", ["sw", "sw:", "sw:a", "sw:/a", "sw:a/b", "sw:a b", f"sw:{'a' * 251}", "sw:a\n", ":aa"])
def test_a_did_that_one_schema_refuses_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Did.parse(text)


def test_scopes_are_as_the_schemas_say() -> None:
    scope = "a_Z-0." * 4 + "a"
    Did(scope, "name")
    assert GENERIC_SCOPE.match(scope)
    assert ATLAS_SCOPE.match(scope)
    assert len(scope) == SCOPE_LENGTH


@pytest.mark.parametrize("rse", ["", "origin", "CERN--X", "CERN_", "CERN ", "A\n"])
def test_the_name_of_an_rse_is_checked(rse: str) -> None:
    with pytest.raises(Refused, match="is no name of an RSE"):
        check_rse(rse)
    assert not GENERIC_RSE.fullmatch(rse)


def test_the_metadata_is_for_one_filter() -> None:
    bundle = Digest.of(b"a bundle")
    found = metadata_of(entry_of(RELEASE), bundle)
    assert found == {
        "sw_release": RELEASE,
        "sw_project": "AtlasOffline",
        "sw_version": "17.2.0",
        "sw_platform": "x86_64-slc6-gcc46-opt",
        "sw_tree": TREE.hex,
        "sw_manifest": DOCUMENT.digest.hex,
        "sw_pacball": pacball_name(Release.parse(RELEASE), TREE),
        "sw_bundle": bundle.hex,
    }
    assert MetadataKey.BUNDLE not in metadata_of(entry_of(RELEASE), None)
    assert not any("." in key for key in found)

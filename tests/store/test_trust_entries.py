import contextlib

from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile

from pacstore.errors import Corrupt
from pacstore.trust import entries
from pacstore.trust.targets import CatalogRelease
from tests.store.trust_world import entry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["digest", "tree_digest", "bytes", "files", "published", "number", "other"])


def targets_of(release: CatalogRelease) -> dict[str, TargetFile]:
    return {target.path: target for target in [*entries.encode_line(release), entries.encode_placement(release)]}


def test_what_is_encoded_is_decoded():
    targets = targets_of(entry())
    assert entries.decode(entry().release, targets, targets) == entry()
    assert list(entries.decode_all("AtlasOffline", targets, targets)) == [entry()]


@given(path=st.sampled_from(sorted(targets_of(entry()))), key=FIELDS, value=JSON)
def test_any_custom_field_is_read_rightly_or_refused(path, key, value):
    targets = targets_of(entry())
    targets[path].custom[key] = value
    with contextlib.suppress(Corrupt):
        found = entries.decode(entry().release, targets, targets)
        assert targets_of(found).keys() == targets.keys()


@given(path=st.sampled_from(sorted(targets_of(entry()))), value=JSON)
def test_any_custom_value_is_read_rightly_or_refused(path, value):
    targets = targets_of(entry())
    targets[path].unrecognized_fields["custom"] = value
    with contextlib.suppress(Corrupt):
        assert entries.decode(entry().release, targets, targets) is None


@given(path=st.text() | st.text().map(lambda text: f"releases/AtlasOffline/{text}/manifest"))
def test_any_path_is_a_release_of_the_line_or_refused(path):
    targets = targets_of(entry())
    targets[path] = next(iter(targets.values()))
    with contextlib.suppress(Corrupt):
        assert [found.release.project for found in entries.decode_all("AtlasOffline", targets, targets)] == [
            "AtlasOffline"
        ]

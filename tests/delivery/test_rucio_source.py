"""A release comes whole and verified from storage that Rucio names, of any layout, whatever is wrong with some of it."""

from __future__ import annotations

import filecmp
import threading
from typing import TYPE_CHECKING

import pytest

from pacmirror.delivery.rucio.source import RucioSource
from pacmirror.limits import MirrorLimits
from pacmirror.surroundings import Surroundings
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, TooLarge, Unavailable, Untrusted
from pacstore.source import Answerable, Condition, Pace, PackRange, Source, Surveyed, Tailed
from pacstore.trust.client import open_catalog
from tests.delivery.replicas import packs_of
from tests.mirror.mischief import die, flip, saying, serving, truncate
from tests.store.releases import NAME, NOW

if TYPE_CHECKING:
    CONFORMS: type[Source] = RucioSource

pytestmark = pytest.mark.slow

OURS = "rucio/sw/{name}"
DCACHE = "pnfs/example.org/data/{hex}/x-{name}"
EOS = "eos/sw(1)/{name};v=1,%7E"
LIMITS = MirrorLimits(pause_seconds=0.1, attempts=2, patience_seconds=0)


def same(left, right):
    compared = filecmp.dircmp(left, right)
    assert not compared.left_only + compared.right_only + compared.funny_files + compared.diff_files
    return all(same(left / name, right / name) for name in compared.common_dirs)


def states(source):
    return {state.name.partition(" ")[0]: state for state in source.states()}


def test_a_release_comes_from_storage_of_any_layout(dataset, tree, tmp_path):
    with serving(dataset.laid_out(DCACHE)) as one, serving(dataset.laid_out(EOS)) as other:
        rows = dataset.rows({"SITE-A": (one.url, DCACHE), "SITE-B": (other.url, EOS)})
        with dataset.source(rows) as source:
            assert isinstance(source, Surveyed)
            assert isinstance(source, Pace)
            assert isinstance(source, Answerable)
            assert isinstance(source, Tailed)
            done = dataset.install(source, tmp_path)
            assert source.name == f"sw:sw.{NAME}.b3-{dataset.bundle.entry.tree_digest.hex[:16]}.p1"
            assert sorted(states(source)) == ["SITE-A", "SITE-B"]
            assert source.traffic.bytes_downloaded == sum(state.bytes_downloaded for state in source.states())
        assert one.requests
        assert other.requests
    assert same(tree, done.path)


def test_an_rse_that_has_only_a_part_is_not_asked_for_the_rest(dataset, tree, tmp_path):
    first, *others = packs_of(dataset)
    with serving(dataset.laid_out(OURS)) as one, serving(dataset.laid_out(DCACHE)) as other:
        but = [f"SITE-A:{pack}.pack" for pack in others] + [f"SITE-B:{first}.pack"]
        rows = dataset.rows({"SITE-A": (one.url, OURS), "SITE-B": (other.url, DCACHE)}, but=but)
        with dataset.source(rows) as source:
            done = dataset.install(source, tmp_path)
            assert not any(state.is_bad for state in source.states())
        assert {request.path for request in one.requests if ".pack" in request.path} == {f"rucio/sw/{first}.pack"}
        assert not any(str(first) in request.path for request in other.requests)
    assert same(tree, done.path)


def test_stale_replicas_come_from_another_rse(dataset, tree, tmp_path):
    """Rucio says that they are there, and they are not any more."""
    stale = {path: data for path, data in dataset.laid_out(OURS).items() if ".pack" not in path}
    with (
        serving(stale) as one,
        serving(dataset.laid_out(OURS)) as other,
        dataset.source(dataset.rows({"SITE-A": (one.url, OURS), "SITE-B": (other.url, OURS)})) as source,
    ):
        done = dataset.install(source, tmp_path)
        assert not states(source)["SITE-A"].is_bad
    assert same(tree, done.path)


def test_an_rse_with_damaged_bytes_is_named_and_left_alone(dataset, tree, tmp_path):
    with (
        serving(dataset.laid_out(OURS), lambda _: flip) as bad,
        serving(dataset.laid_out(OURS)) as good,
        dataset.source(dataset.rows({"SITE-A": (bad.url, OURS), "SITE-B": (good.url, OURS)})) as source,
    ):
        done = dataset.install(source, tmp_path)
        assert states(source)["SITE-A"].state is Condition.WRONG
        assert states(source)["SITE-B"].state is Condition.GOOD
    assert same(tree, done.path)


def test_where_all_are_down_the_error_names_each_of_them(dataset, tmp_path):
    with serving({}, lambda _: saying(500)) as one:
        rows = dataset.rows({"SITE-A": (one.url, OURS), "SITE-B": ("http://127.0.0.1:9", OURS)})
        with dataset.source(rows, limits=LIMITS) as source:
            with pytest.raises(Unavailable) as error:
                dataset.install(source, tmp_path)
            assert "SITE-A" in str(error.value)
            assert "SITE-B" in str(error.value)
            assert str(dataset.did) in str(error.value)
            with pytest.raises(Unavailable) as error:
                list(source.ranges([PackRange(packs_of(dataset)[0], 0, 10)]))
            assert "SITE-A" in str(error.value)
            assert "SITE-B" in str(error.value)


def test_that_a_bundle_is_nowhere_any_more_says_nothing_of_what_is_in_it(dataset, tmp_path):
    with serving({}) as one, serving({}) as other:
        rows = dataset.rows({"SITE-A": (one.url, OURS), "SITE-B": (other.url, OURS)})
        with dataset.source(rows) as source, pytest.raises(Unavailable, match=r"SITE-A.*SITE-B"):
            dataset.install(source, tmp_path)


def test_a_damaged_bundle_comes_from_another_rse(dataset, tree, tmp_path):
    def fault(request):
        return flip if request.path.endswith(".bundle") else None

    with (
        serving(dataset.laid_out(OURS), fault) as bad,
        serving(dataset.laid_out(OURS)) as good,
        dataset.source(dataset.rows({"SITE-A": (bad.url, OURS), "SITE-B": (good.url, OURS)})) as source,
    ):
        done = dataset.install(source, tmp_path)
        assert states(source)["SITE-A"].state is Condition.WRONG
    assert same(tree, done.path)


def test_a_bundle_that_is_damaged_everywhere_is_asked_for_once(dataset):
    with (
        serving(dataset.laid_out(OURS), lambda _: flip) as one,
        serving(dataset.laid_out(OURS), lambda _: flip) as other,
    ):
        with dataset.source(dataset.rows({"SITE-A": (one.url, OURS), "SITE-B": (other.url, OURS)})) as source:
            for _ in range(2):
                with pytest.raises(Corrupt, match=r"SITE-A.*SITE-B") as error:
                    source.volume()
                assert str(dataset.did) in str(error.value)
        assert len(one.requests) == len(other.requests) == 1


def test_a_bundle_continues_after_a_line_that_broke(dataset, tree, tmp_path):
    def fault(request):
        return truncate if request.number == 0 else die if request.number == 1 else None

    with (
        serving(dataset.laid_out(OURS), fault) as flaky,
        dataset.source(dataset.rows({"SITE-A": (flaky.url, OURS)}), limits=LIMITS) as source,
    ):
        done = dataset.install(source, tmp_path)
    assert same(tree, done.path)


def test_what_calls_itself_a_bundle_and_is_none_is_refused(dataset, tmp_path):
    """Somebody may register anything in the scope, under the name that its bytes have."""
    digest = Digest.of(b"anything")
    with serving({f"x/{digest}.bundle": b"anything"}) as one:
        rows = [{"name": f"{digest}.bundle", "bytes": 8, "pfns": {f"{one.url}/x/{digest}.bundle": {"rse": "SITE-A"}}}]
        with dataset.source(rows) as source, pytest.raises(Exception, match="is not a volume") as error:
            source.volume()
        assert error.type.__name__ == "Refused"


@pytest.mark.parametrize("length", [0, -1, 1 << 40, True, "many"])
def test_an_impossible_length_is_never_asked_for(dataset, length):
    with serving(dataset.laid_out(OURS)) as one:
        rows = dataset.rows({"SITE-A": (one.url, OURS)})
        for row in rows:
            row["bytes"] = length
        with dataset.source(rows) as source, pytest.raises((TooLarge, Corrupt)):
            source.volume()
        assert len(one.requests) <= 1


def test_a_catalog_of_somebody_else_is_not_believed(dataset, foreign, tmp_path):
    with (
        serving(foreign.laid_out(OURS)) as one,
        foreign.source(foreign.rows({"EVIL": (one.url, OURS)})) as source,
        pytest.raises(Untrusted),
    ):
        open_catalog(source, root=dataset.root, state_dir=tmp_path, now=NOW)


def test_without_a_bundle_or_a_replica_it_says_so(dataset):
    rows = dataset.rows({"SITE-A": ("http://127.0.0.1:9", OURS)})
    with pytest.raises(NotFound, match="no bundle"):
        dataset.source([row for row in rows if not row["name"].endswith(".bundle")])
    with pytest.raises(Unavailable, match="no replica of it can be had over HTTP"):
        dataset.source(dataset.rows({}))
    rows = dataset.rows({"SITE-A": ("file:///etc", OURS)})
    with pytest.raises(Unavailable, match="at SITE-A are at file:") as error:
        dataset.source(rows)
    assert str(dataset.did) in str(error.value)


def test_a_token_goes_to_the_storage_that_it_is_for_and_never_in_the_open(dataset, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    seen = []

    def look(handler, request):
        seen.append(handler.headers.get("Authorization"))
        handler.answer(request)

    with (
        serving(dataset.laid_out(OURS), lambda _: look) as one,
        serving(dataset.laid_out(OURS), lambda _: look) as other,
    ):
        surroundings = Surroundings(tokens={f"{one.url}/rucio": token, "http://192.0.2.1/rucio/sw": token})
        places = {"SITE-A": (one.url, OURS), "SITE-B": ("http://192.0.2.1", OURS)}
        with dataset.source(dataset.rows(places), surroundings=surroundings) as source:
            source.volume()
            assert sorted(states(source)) == ["SITE-A"]
        assert set(seen) == {"Bearer secret"}
        seen.clear()
        with dataset.source(dataset.rows({"SITE-A": (other.url, OURS)}), surroundings=surroundings) as source:
            source.volume()
        assert set(seen) == {None}
        with pytest.raises(Unavailable, match=r"SITE-B.*token would be sent over plain http"):
            dataset.source(dataset.rows({"SITE-B": ("http://192.0.2.1", OURS)}), surroundings=surroundings)


def test_closing_it_ends_what_is_under_way(dataset):
    asked = threading.Event()

    def hold(handler, _request):
        asked.set()
        handler.hold()

    with serving(dataset.laid_out(OURS), lambda _: hold) as one:
        source = dataset.source(dataset.rows({"SITE-A": (one.url, OURS)}))
        errors = []

        def fetch():
            try:
                source.volume()
            except Unavailable as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert asked.wait(60)
        source.close()
        thread.join(60)
        assert not thread.is_alive()
        assert errors
        with pytest.raises(Unavailable, match="closed"):
            source.volume()
        source.close()


def test_a_bundle_can_be_read_as_a_file_while_it_is_open(dataset):
    with serving(dataset.laid_out(OURS)) as one, dataset.source(dataset.rows({"SITE-A": (one.url, OURS)})) as source:
        volume = source.volume()
        assert volume.path.read_bytes() == dataset.files[dataset.bundle_name]
        assert volume is source.volume()
        assert source.tail(packs_of(dataset)[0], length=100).pack_length == dataset.bundle.packs[packs_of(dataset)[0]]

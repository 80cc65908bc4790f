"""What an install root remembers of why a release was believed, and that withdrawn releases are refused."""

import json
from dataclasses import replace

import pytest

from pacstore.errors import Refused
from pacstore.install.installation import install, plan
from pacstore.install.trust import Mode, Trust
from pacstore.install.upkeep.verify import verify
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.targets import Withdrawal
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, World
from tests.store.trust_world import NOW

TRUST = Trust(Mode.PINNED, "ab" * 32, 17)
WHY = Withdrawal(int(NOW), "wrong \u00e9lectron scale", Release.parse(NEXT))


@pytest.fixture
def world():
    return World(frame_bytes=200_000)


@pytest.fixture
def entry(world, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"bytes" * 1000)
    return world.publish(tree)


@pytest.fixture
def source(world):
    return FakeSource(world)


def put(entry, source, root, progress=None, **options):
    return install(entry, source=source, root=root, progress=progress or Notes(), now=lambda: NOW, **options)


def history(root) -> list[dict]:
    lines = [json.loads(line) for line in (root / ".pacball/history.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "switch"]


@pytest.mark.parametrize(
    ("trust", "expected"),
    [
        (
            TRUST,
            {
                "mode": "pinned",
                "root": "ab" * 32,
                "catalog_version": 17,
                "as_of": None,
                "stale": False,
                "withdrawn": False,
            },
        ),
        (
            Trust(Mode.FIRST_USE, "cd" * 32, 1, as_of=NOW - 0.5, stale=True),
            {
                "mode": "first-use",
                "root": "cd" * 32,
                "catalog_version": 1,
                "as_of": NOW - 0.5,
                "stale": True,
                "withdrawn": False,
            },
        ),
    ],
)
def test_the_history_says_why_a_release_was_believed(entry, source, tmp_path, trust, expected):
    put(entry, source, tmp_path / "root", trust=trust)
    (line,) = history(tmp_path / "root")
    assert line["trust"] == expected
    assert line["release"] == NAME


def test_who_gives_no_reason_leaves_none(entry, source, tmp_path):
    put(entry, source, tmp_path / "root")
    (line,) = history(tmp_path / "root")
    assert "trust" not in line


def test_modes_have_the_names_of_the_history():
    assert [str(mode) for mode in Mode] == ["pinned", "first-use", "local", "insecure"]


def test_a_withdrawn_release_is_refused_before_anything_is_fetched(entry, source, tmp_path):
    withdrawn = replace(entry, withdrawal=WHY)
    for work in (
        lambda: put(withdrawn, source, tmp_path / "root"),
        lambda: plan(withdrawn, source=source, root=tmp_path / "root", progress=Silent()),
    ):
        with pytest.raises(Refused) as caught:
            work()
        assert caught.value.place == NAME
        assert "was withdrawn at 2023-11-14T22:13:20Z: wrong \u00e9lectron scale" in caught.value.message
        assert f"install {NEXT} in its place" in caught.value.hint
        assert "--allow-withdrawn" in caught.value.hint
    assert source.traffic.requests == 0
    assert not (tmp_path / "root").exists()
    with pytest.raises(Refused) as caught:
        put(replace(entry, withdrawal=replace(WHY, replaced_by=None)), source, tmp_path / "root")
    assert "in its place" not in caught.value.hint


def test_it_can_be_allowed_with_a_warning_and_is_recorded(entry, source, tmp_path):
    notes = Notes()
    withdrawn = replace(entry, withdrawal=WHY)
    assert plan(
        withdrawn, source=source, root=tmp_path / "root", progress=Silent(), allow_withdrawn=True
    ).bytes_to_download
    done = put(withdrawn, source, tmp_path / "root", notes, trust=TRUST, allow_withdrawn=True)
    assert (done.path / "file").exists()
    (warning,) = notes.warnings
    assert f"{NAME} was withdrawn" in warning
    (line,) = history(tmp_path / "root")
    assert line["trust"]["withdrawn"] is True


def test_one_that_is_installed_already_is_refused_and_can_be_verified(entry, source, tmp_path):
    put(entry, source, tmp_path / "root")
    with pytest.raises(Refused, match="was withdrawn"):
        put(replace(entry, withdrawal=WHY), source, tmp_path / "root")
    (found,) = verify(tmp_path / "root", [Release.parse(NAME)], Silent())
    assert found.findings == ()


def test_a_reason_cannot_write_on_the_terminal(entry, source, tmp_path):
    with pytest.raises(Refused) as caught:
        put(replace(entry, withdrawal=replace(WHY, reason="a\x1b[2Jb")), source, tmp_path / "root")
    assert r"a\x1b[2Jb" in caught.value.message


def test_one_that_is_withdrawn_meanwhile_is_refused_too(world, entry, source, tmp_path):
    moved = replace(world.repack(tmp_path / "tree"), withdrawal=WHY)
    world.public.pop(document_path(DocumentKind.PLACEMENT, f"{NAME}.1"))
    with pytest.raises(Refused, match="was withdrawn"):
        put(entry, source, tmp_path / "root", refresh=lambda: moved)
    assert put(entry, source, tmp_path / "root", refresh=lambda: moved, allow_withdrawn=True).switched

import os

from tuf.api.metadata import MetaFile, TargetFile, Targets

from pacstore.trust import entries
from pacstore.trust.seen import SeenReleases
from tests.store.trust_world import RELEASE, entry

PROJECT = "AtlasOffline"
OTHER = "AtlasOffline-17.2.1-x86_64-slc6-gcc46-opt"


def line(*names: str) -> Targets:
    targets = [target for name in names for target in entries.encode_line(entry(name))]
    return Targets(targets={target.path: target for target in targets})


def learn(directory, version, *names, stamp="") -> None:
    meta = MetaFile(version, hashes={"sha256": f"{version}{stamp}"})
    SeenReleases(directory).learn(PROJECT, meta, line(*names))


def has(directory, name) -> bool:
    return SeenReleases(directory).has(entry(name))


def test_what_was_learnt_is_known_and_nothing_else(tmp_path):
    assert not has(tmp_path / "new", RELEASE)
    learn(tmp_path, 1, RELEASE)
    assert has(tmp_path, RELEASE)
    assert not has(tmp_path, OTHER)
    assert not SeenReleases(tmp_path).has(entry(RELEASE, tree="another"))
    assert not has(tmp_path, "Zebra-1-any")


def test_there_is_one_file_a_line(tmp_path):
    learn(tmp_path, 1, RELEASE)
    learn(tmp_path, 2, RELEASE, OTHER)
    SeenReleases(tmp_path).learn("Zebra", MetaFile(1), line("Zebra-1-any"))
    names = sorted(os.listdir(tmp_path))
    assert [name.rpartition(".")[0] for name in names] == ["AtlasOffline.2", "Zebra.1"]
    assert has(tmp_path, RELEASE)
    assert has(tmp_path, OTHER)
    assert os.stat(tmp_path / names[0]).st_size == 3 * 32


def test_a_client_that_is_behind_takes_nothing_away(tmp_path):
    learn(tmp_path, 2, RELEASE, OTHER)
    learn(tmp_path, 1, RELEASE)
    assert has(tmp_path, OTHER)
    # What two clients have seen under one version is what the later one has: this can only be an operator's mistake.
    learn(tmp_path, 2, RELEASE, stamp="x")
    assert not has(tmp_path, OTHER)


def test_what_is_known_is_asked_for_anew_after_learning(tmp_path):
    seen = SeenReleases(tmp_path)
    assert not seen.has(entry())
    seen.learn(PROJECT, MetaFile(1), line(RELEASE))
    assert seen.has(entry())


def test_names_of_projects_and_versions_make_no_trouble(tmp_path):
    for project in ("tmp_", "tmpabcdefgh", "P" * 146):
        name = f"{project}-1-a"
        SeenReleases(tmp_path).learn(project, MetaFile(10**400), line(name))
        assert has(tmp_path, name)


def test_what_a_line_may_not_say_is_not_learnt(tmp_path):
    nonsense = line(RELEASE, "Zebra-1-any")
    nonsense.targets["releases/AtlasOffline/odd\ud800/manifest"] = TargetFile(1, {"sha256": "ab"}, "x", {"custom": []})
    nonsense.targets["releases/AtlasOffline/odd\ud800/manifest "] = TargetFile(1, {"sha256": "ab"}, "x")
    SeenReleases(tmp_path).learn(PROJECT, MetaFile(1), nonsense)
    assert has(tmp_path, RELEASE)
    assert not has(tmp_path, "Zebra-1-any")


def test_a_line_of_ten_thousand_releases_takes_a_third_of_a_megabyte(tmp_path):
    learn(tmp_path, 1, *(f"AtlasOffline-{n}-any" for n in range(10_000)))
    (name,) = os.listdir(tmp_path)
    assert os.stat(tmp_path / name).st_size == 10_001 * 32
    assert has(tmp_path, "AtlasOffline-9999-any")
    assert not has(tmp_path, "AtlasOffline-10000-any")

"""Where releases are in a real Rucio: whole, in part, on the way, stuck, bad, lost; and what of it needs a person."""

import itertools

import pytest

from pacmirror.delivery.rucio.naming import Did
from tests.cli.command import Command
from tests.e2e.site import Site
from tests.peers.rucio.datasets import TREE, add_dataset, add_rses, asking, files_of

pytestmark = pytest.mark.peers

ORIGIN, SITE, OTHER = "STATUS-ORIGIN", "STATUS-SITE", "STATUS-OTHER"
RELEASE = "Status-1.0-x86_64-linux"
PACBALL = Command()
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def catalogue(rucio):
    with asking(rucio) as made:
        add_rses(made, ORIGIN, SITE, OTHER)
        yield made


@pytest.fixture
def scope(catalogue):
    name = f"status{next(_numbers)}"
    catalogue.add_scope(name)
    return name


def name_of(release=RELEASE, end="p1"):
    return f"sw.{release}.b3-{TREE}.{end}"


def status(scope, *words, code):
    return PACBALL.json("rucio", "status", *words, "--scope", scope, code=code)


def shown(dataset):
    return {share["rse"]: (share["files"], share["is_complete"], share["others"]) for share in dataset["shares"]}


def add_rule(catalogue, did, rse, **more):
    (rule,) = catalogue.client.add_replication_rule([did.fields()], 1, rse, **more)
    return rule


def test_a_release_on_its_way_needs_nobody(catalogue, scope):
    files = files_of("way", 5)
    did = add_dataset(catalogue, scope, name_of(), files, ORIGIN)
    rule = add_rule(catalogue, did, SITE)
    catalogue.set_available(SITE, scope, [file.name for file in files[:2]])
    found = status(scope, RELEASE, code=0)
    (dataset,) = found["datasets"]
    assert found["attention"] == []
    assert (dataset["did"], dataset["placement_number"], dataset["is_open"], dataset["lost"]) == (str(did), 1, False, 0)
    assert (dataset["files"], dataset["bytes"]) == (5, 5010)
    assert shown(dataset) == {ORIGIN: (5, True, {}), SITE: (2, False, {"COPYING": 3})}
    (one,) = dataset["rules"]
    assert (one["id"], one["rses"], one["state"], one["ok"], one["replicating"]) == (rule, SITE, "REPLICATING", 2, 3)
    assert [share["lock"] for share in dataset["shares"]] == ["", "REPLICATING"]
    catalogue.set_available(SITE, scope, [file.name for file in files])
    (dataset,) = status(scope, code=0)["datasets"]
    assert dataset["rules"][0]["state"] == "OK"
    assert shown(dataset) == {ORIGIN: (5, True, {}), SITE: (5, True, {})}


def test_what_rucio_says_is_said_in_words(catalogue, scope):
    did = add_dataset(catalogue, scope, name_of(), files_of("words", 3), ORIGIN)
    rule = add_rule(catalogue, did, SITE)
    text = PACBALL.text("rucio", "status", RELEASE, "--scope", scope)
    assert text.splitlines() == [
        f"{did}: placement 1, closed, 3 files, 3.0 kB",
        f"  complete at {ORIGIN}",
        f"  {SITE}: 0 of 3 files, 0 B of 3.0 kB, 3 copying",
        f"  rule {rule} at {SITE}, root: REPLICATING, 0 of 3 files there",
    ]


def test_files_that_are_bad_or_nowhere_need_a_person(catalogue, scope):
    files = files_of("bad", 4)
    did = add_dataset(catalogue, scope, name_of(), files, ORIGIN)
    catalogue.client.declare_bad_file_replicas([{"scope": scope, "name": files[0].name, "rse": ORIGIN}], "damaged")
    found = status(scope, code=1)
    (dataset,) = found["datasets"]
    assert shown(dataset) == {ORIGIN: (3, False, {"BAD": 1})}
    assert dataset["lost"] == 1
    bad, lost = found["attention"]
    assert bad.startswith(f"{did}: 1 of its 4 files are bad at {ORIGIN}; there: pacball store check --repair")
    assert lost.startswith(f"{did}: no RSE has 1 of its 4 files; register it again")
    catalogue.set_available(ORIGIN, scope, [files[0].name])
    assert status(scope, code=0)["datasets"][0]["lost"] == 0


def test_a_bad_pacball_is_seen_though_another_rse_has_it(catalogue, scope):
    files = files_of("pacball", 1)
    did = add_dataset(catalogue, scope, name_of(end="pacball"), files, ORIGIN)
    catalogue.add_replicas(OTHER, scope, files)
    catalogue.client.declare_bad_file_replicas([{"scope": scope, "name": files[0].name, "rse": ORIGIN}], "damaged")
    for words in ([RELEASE], ["--every-file"]):
        found = status(scope, *words, code=1)
        assert found["datasets"][0]["placement_number"] is None
        assert found["datasets"][0]["lost"] == 0
        assert [trouble.partition(":")[2].partition(":")[0] for trouble in found["attention"]] == [did.name]


def test_a_stuck_rule_needs_a_person_until_its_files_are_there(catalogue, scope):
    files = files_of("stuck", 3)
    did = add_dataset(catalogue, scope, name_of(), files, ORIGIN)
    rule = add_rule(catalogue, did, SITE)
    catalogue.set_available(SITE, scope, [file.name for file in files])
    catalogue.set_unavailable(SITE, scope, [file.name for file in files[:2]])
    catalogue.client.update_replication_rule(rule, {"comment": "the disk is full"})
    (trouble,) = status(scope, code=1)["attention"]
    assert f"{did}: the rule {rule} at {SITE} is STUCK" in trouble
    assert "the disk is full; 2 of its files wait" in trouble
    catalogue.set_available(SITE, scope, [file.name for file in files])
    found = status(scope, code=0)
    assert found["attention"] == []
    assert [one["state"] for one in found["datasets"][0]["rules"]] == ["STUCK"]
    assert f"at {SITE}, root: OK, though Rucio has it as STUCK, 3 of 3 files there" in PACBALL.text(
        "rucio", "status", RELEASE, "--scope", scope
    )


def test_a_rule_that_was_set_to_stuck_needs_a_person_until_its_files_are_there(catalogue, scope):
    files = files_of("set", 3)
    rule = add_rule(catalogue, add_dataset(catalogue, scope, name_of(), files, ORIGIN), SITE)
    catalogue.client.update_replication_rule(rule, {"state": "STUCK"})
    (trouble,) = status(scope, code=1)["attention"]
    assert "3 of its files wait" in trouble
    catalogue.set_available(SITE, scope, [file.name for file in files])
    assert status(scope, code=0)["attention"] == []


def test_a_dataset_left_open_needs_a_person(catalogue, scope):
    did = add_dataset(catalogue, scope, name_of(), files_of("open", 2), ORIGIN, close=False)
    (trouble,) = status(scope, RELEASE, code=1)["attention"]
    assert trouble.startswith(f"{did} is open: its registration runs, or was interrupted")
    assert f"pacball rucio register {RELEASE}" in trouble


def test_a_rule_on_the_line_counts_for_each_of_its_releases(catalogue, scope):
    container = Did(scope, "sw.Status")
    catalogue.add_collection(container, "CONTAINER", metadata={})
    names = ["Status-1.0-x86_64-linux", "Status-1.1-x86_64-linux"]
    for name in names:
        did = add_dataset(catalogue, scope, name_of(name), files_of(name, 2), ORIGIN)
        catalogue.attach(container, [did.name])
    rule = add_rule(catalogue, container, SITE)
    for words in ([names[1]], []):
        for dataset in status(scope, *words, code=0)["datasets"]:
            assert [(one["id"], one["did"]) for one in dataset["rules"]] == [(rule, str(container))]
            assert [share["lock"] for share in dataset["shares"]] == ["", "REPLICATING"]
    catalogue.client.update_replication_rule(rule, {"state": "STUCK"})
    assert len(status(scope, code=1)["attention"]) == 1


def test_placements_come_in_their_order_and_other_datasets_are_passed_over(catalogue, scope):
    shared = files_of("shared", 3)
    for end in ("p10", "p2", "pacball"):
        add_dataset(catalogue, scope, name_of(end=end), shared, ORIGIN)
    add_dataset(catalogue, scope, f"sw.Status-1x0-x86_64-linux.b3-{TREE}.p1", shared, ORIGIN)
    add_dataset(catalogue, scope, "sw.other.b3-things", shared, ORIGIN)
    found = status(scope, RELEASE, code=0)["datasets"]
    assert [dataset["placement_number"] for dataset in found] == [2, 10, None]
    assert len(status(scope, code=0)["datasets"]) == 4


def test_a_retired_release_needs_nobody(catalogue, scope):
    files = files_of("retired", 2)
    did = add_dataset(catalogue, scope, name_of(), files, ORIGIN)
    catalogue.set_unavailable(ORIGIN, scope, [file.name for file in files])
    catalogue.expire(did, 0)
    (dataset,) = status(scope, RELEASE, code=0)["datasets"]
    assert dataset["is_retired"]
    assert dataset["lost"] == 0


def test_what_is_not_there_is_told(rucio, site: Site, scope):
    site.environment["RUCIO_HOME"] = str(rucio.client_home())
    done = site.fails(3, "rucio", "status", RELEASE, "--scope", scope)
    assert (
        f"{scope}:sw.{RELEASE}.b3-*: no such dataset in Rucio (register it: pacball rucio register {RELEASE}"
        in done.err
    )
    assert "there is no such scope in Rucio" in status("nosuch", code=3)["message"]
    assert "has no datasets of releases" in status(scope, code=3)["message"]
    status(scope, "../../x", code=7)
    status("a b", code=7)

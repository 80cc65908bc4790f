"""Scripts that speak DQ2 register, close, subscribe, list and delete in a real Rucio; what it no longer has is told."""

import pytest

from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue
from pacmirror.delivery.rucio.dq2 import (
    DQ2,
    DQClosedDatasetException,
    DQDatasetExistsException,
    DQFileExistsInDatasetException,
    DQFileMetaDataMismatchException,
    DQFrozenDatasetException,
    DQSubscriptionExistsException,
    DQUnknownDatasetException,
)
from pacmirror.delivery.rucio.naming import Did
from pacstore.errors import NotFound, Refused, Unavailable
from tests.peers.rucio.datasets import add_rses, asking, files_of

pytestmark = pytest.mark.peers

ORIGIN, SITE = "DQ2-ORIGIN", "DQ2-SITE"
SCOPE = "ddo"
GUIDS = ["A1B2C3D4-0000-1111-2222-33334444AAAA", "A1B2C3D4-0000-1111-2222-33334444AAAB"]


@pytest.fixture(scope="module")
def dq2(rucio):
    with asking(rucio) as catalogue:
        catalogue.add_scope(SCOPE)
        add_rses(catalogue, ORIGIN, SITE)
        yield DQ2(catalogue, scope=SCOPE)


def lists_of(files, guids=None):
    """The lists that DQ2 takes, with adler32 for one file and md5 for the next."""
    checksums = [f"ad:{file.adler32}" if place % 2 == 0 else f"md5:{file.md5}" for place, file in enumerate(files)]
    return {
        "lfns": [file.name for file in files],
        "guids": guids or [None] * len(files),
        "sizes": [file.length for file in files],
        "checksums": checksums,
    }


def test_a_script_registers_closes_and_subscribes_a_dataset(rucio, dq2):
    name, files = "ddo.000001.Atlas.Ideal.DBRelease.v070101", files_of("life", 2)
    made = dq2.registerNewDataset(name, **lists_of(files, GUIDS), rse=ORIGIN)
    assert made["version"] == 1
    assert made["duid"] == made["vuid"]
    assert dq2.closeDataset(name) is True
    dq2.registerDatasetSubscription(
        name, SITE, acl_alias="secondary", sources={ORIGIN: {}}, activity="User Subscriptions"
    )
    assert dq2.listDatasetReplicas(name) == {made["vuid"]: {0: [SITE], 1: [ORIGIN]}}
    assert dq2.listDatasetReplicas(name, complete=1) == {made["vuid"]: {0: [], 1: [ORIGIN]}}
    assert dq2.listDatasetReplicas(name, complete=0) == {made["vuid"]: {0: [SITE], 1: []}}
    site, origin = (dq2.listDatasetReplicas(name, old=False)[rse][0] for rse in (SITE, ORIGIN))
    assert (origin["found"], origin["total"], origin["transferState"], origin["immutable"]) == (2, 2, 1, 1)
    assert (site["found"], site["total"], site["transferState"], site["archived"]) == (0, 2, 0, "secondary")
    assert origin["archived"] == "primary"
    listed, changed = dq2.listFilesInDataset(name, long=True)
    assert changed
    assert set(listed) == set(GUIDS)
    assert listed[GUIDS[0]] == {
        "checksum": f"ad:{files[0].adler32}", "filesize": 1000, "scope": SCOPE, "lfn": files[0].name, "events": "None",
        "lumiblocknr": "None",
    }  # fmt: skip
    assert listed[GUIDS[1]]["checksum"] == f"md5:{files[1].md5}"
    # Rucio's own client sees the same.
    assert "2" in rucio.run("rucio", "did", "content", "list", f"{SCOPE}:{name}").stdout
    rules = dq2.catalogue.rules(Did(SCOPE, name))
    assert {rule["rse_expression"]: rule["state"] for rule in rules} == {ORIGIN: "OK", SITE: "REPLICATING"}
    assert [rule["source_replica_expression"] for rule in rules if rule["rse_expression"] == SITE] == [ORIGIN]


def test_files_without_guids_are_listed_by_their_names(dq2):
    files = files_of("packs", 3)
    dq2.registerNewDataset("packs", **lists_of(files), rse=ORIGIN)
    assert set(dq2.listFilesInDataset(f"{SCOPE}:packs")[0]) == {file.name for file in files}


def test_files_with_one_guid_are_all_listed(dq2):
    files = files_of("one guid", 2)
    dq2.registerNewDataset("twins", **lists_of(files, [GUIDS[0]] * 2), rse=ORIGIN)
    assert {shown["lfn"] for shown in dq2.listFilesInDataset("twins")[0].values()} == {file.name for file in files}


def test_files_are_added_to_an_open_dataset_and_each_says_what_became_of_it(dq2):
    old, new, other = files_of("old", 2), files_of("new", 1), files_of("other", 1)
    dq2.registerNewDataset("adding.first", **lists_of(other), rse=ORIGIN)
    dq2.registerNewDataset("adding", **lists_of(old), rse=ORIGIN)
    lists = lists_of([*old, *new, *other])
    lists["sizes"][-1] = 7
    done = dq2.registerFilesInDataset("adding", **lists, rse=ORIGIN)
    assert done[new[0].name] == {"status": True}
    assert [type(done[file.name].get("error")) for file in (*old, *other)] == [
        *[DQFileExistsInDatasetException] * 2, DQFileMetaDataMismatchException,
    ]  # fmt: skip
    assert f"{SCOPE}:{other[0].name}: has 1000 bytes in Rucio, not 7" in str(done[other[0].name]["error"])
    assert {shown["lfn"] for shown in dq2.listFilesInDataset("adding")[0].values()} == {f.name for f in (*old, *new)}


def test_files_that_rucio_knows_need_no_place(dq2):
    files = files_of("known", 2)
    dq2.registerNewDataset("known.first", **lists_of(files), rse=ORIGIN)
    dq2.registerNewDataset("known.again", **lists_of(files))
    assert dq2.listDatasetReplicas("known.again") == {dq2_uid(dq2, "known.again"): {0: [], 1: [ORIGIN]}}


def dq2_uid(dq2, name):
    (uid,) = dq2.listDatasetReplicas(name)
    return uid


def test_more_files_than_one_call_takes_are_registered(dq2):
    files = files_of("many", 1001)
    dq2.registerNewDataset("many")
    assert all(done["status"] for done in dq2.registerFilesInDataset("many", **lists_of(files), rse=ORIGIN).values())
    assert len(dq2.listFilesInDataset("many")[0]) == 1001


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"sizes": [5]}, DQFileMetaDataMismatchException, "bytes in Rucio, not 5"),
        ({"checksums": ["ad:00000000"]}, DQFileMetaDataMismatchException, "has the adler32"),
        ({"lfns": ["nobody.knows.me"], "rse": None}, NotFound, "is not known to Rucio"),
        ({"lfns": ["no.checksum"], "checksums": [None]}, Refused, "has no checksum"),
        ({"rse": "DQ2-NOWHERE"}, NotFound, "DQ2-NOWHERE"),
        ({"cooldown": "1 days"}, Refused, "instead: freezeDataset"),
        ({"hidden": True}, Refused, "means nothing in Rucio"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_registered(dq2, change, kind, says):
    (file,) = files_of("wrong", 1)
    if dq2.catalogue.collection(Did(SCOPE, "wrong.known")) is None:
        dq2.registerNewDataset("wrong.known", **lists_of([file]), rse=ORIGIN)
    with pytest.raises(kind, match=says):
        dq2.registerNewDataset("wrong", **{**lists_of([file]), "rse": ORIGIN, **change})
    assert dq2.catalogue.collection(Did(SCOPE, "wrong")) is None


def test_a_name_is_never_free_again(dq2):
    dq2.registerNewDataset("twice")
    with pytest.raises(DQDatasetExistsException, match=f"{SCOPE}:twice: is there already"):
        dq2.registerNewDataset("twice")


def test_what_is_closed_stays_as_it_is(dq2):
    dq2.registerNewDataset("closing")
    assert dq2.closeDataset("closing")
    with pytest.raises(DQClosedDatasetException, match="is closed already"):
        dq2.closeDataset("closing")
    assert dq2.freezeDataset("closing")
    with pytest.raises(DQFrozenDatasetException, match=f"{SCOPE}:closing: is closed"):
        dq2.registerFilesInDataset("closing", **lists_of(files_of("late", 1)), rse=ORIGIN)


def test_a_location_is_a_rule_and_its_replicas_can_be_deleted(dq2):
    dq2.registerNewDataset("placed", **lists_of(files_of("placed", 1)), rse=ORIGIN)
    assert dq2.registerDatasetLocation("placed", SITE, complete=1, lifetime="2 days, 00:00:01")
    assert dq2.registerDatasetLocation("placed", SITE)
    (rule,) = [rule for rule in dq2.catalogue.rules(Did(SCOPE, "placed")) if rule["rse_expression"] == SITE]
    assert (rule["expires_at"] - rule["created_at"]).days == 2
    with pytest.raises(DQSubscriptionExistsException, match=f"has a rule at {SITE} already"):
        dq2.registerDatasetSubscription("placed", SITE)
    with pytest.raises(Refused, match=f"{SCOPE}:placed at DQ2-NOWHERE"):
        dq2.registerDatasetLocation("placed", "DQ2-NOWHERE")
    done = dq2.deleteDatasetReplicas("placed", [SITE, "DQ2-NOWHERE"])
    assert done[SITE] == {"status": True}
    assert isinstance(done["DQ2-NOWHERE"]["error"], NotFound)


def test_a_custodial_rule_is_not_deleted(dq2):
    dq2.registerNewDataset("custodial", **lists_of(files_of("custodial", 1)), rse=ORIGIN)
    dq2.registerDatasetSubscription("custodial", SITE, acl_alias="custodial")
    assert dq2.listDatasetReplicas("custodial", old=False)[SITE][0]["archived"] == "custodial"
    (done,) = dq2.deleteDatasetReplicas("custodial", [SITE]).values()
    assert done["status"] is False
    assert "locked" in str(done["error"])


def test_unknown_datasets_are_told(dq2):
    for verb in (dq2.closeDataset, dq2.freezeDataset, dq2.listDatasetReplicas, dq2.listFilesInDataset):
        with pytest.raises(DQUnknownDatasetException, match=f"{SCOPE}:no.such"):
            verb("no.such")
    for verb in (dq2.registerDatasetLocation, dq2.registerDatasetSubscription, dq2.deleteDatasetReplicas):
        with pytest.raises(DQUnknownDatasetException, match=f"{SCOPE}:no.such"):
            verb("no.such", SITE)


def test_what_rucio_no_longer_has_says_what_to_use_instead(dq2):
    with pytest.raises(
        Refused, match=r"DQ2\.registerNewVersion: is not there over Rucio \(instead: a dataset has one version"
    ):
        dq2.registerNewVersion("x", [], [], [], [])
    with pytest.raises(Refused, match="there is no version 3 in Rucio"):
        dq2.listDatasetReplicas("x", 3)
    with pytest.raises(AttributeError, match="DQ2 has no registerNothing"):
        dq2.registerNothing  # noqa: B018


def test_rucio_that_does_not_answer_is_told(rucio, dq2):
    hasty = RucioCatalogue(dq2.catalogue.client, Patience(attempts=2), pause=lambda _: None)
    rucio.stop()
    try:
        with pytest.raises(Unavailable, match=f"{SCOPE}:away"):
            DQ2(hasty, scope=SCOPE).closeDataset("away")
    finally:
        rucio.start()

"""Root and targets of another form than pacball's: nobody could be shown what they mean, so nobody signs or commits them."""

import copy

import pytest
from tuf.api.metadata import TargetFile

from pacstore.errors import Refused
from pacstore.trust.proposals import check_context
from tests.store.trust_world import SIGNERS, Office, proposal, refused

LINE = "line-Atlas"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin("Atlas-1-x86")


@pytest.fixture
def office(base):
    return base.twin()


def rotate_paths(targets) -> None:
    roles = targets.delegations.roles
    roles[LINE].paths = ["releases/*/*/*"]


def reorder(targets) -> None:
    roles = targets.delegations.roles
    roles["placement-Atlas"] = roles.pop("placement-Atlas")


def forget_line(targets) -> None:
    for role in ("line-Atlas", "placement-Atlas"):
        for keyid in list(targets.delegations.roles[role].keyids):
            targets.revoke_key(keyid, role)
        del targets.delegations.roles[role]


def call(name: str):
    def edit(targets) -> None:
        roles = targets.delegations.roles
        for kind in ("placement", "line"):
            role = copy.deepcopy(roles[f"{kind}-Atlas"])
            role.name = f"{kind}-{name}"
            role.paths = [path.replace("Atlas", name) for path in role.paths]
            roles[role.name] = role

    return edit


UNKNOWN = "has parts that this pacball would not write"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rotate_paths, UNKNOWN),
        (reorder, UNKNOWN),
        (forget_line, "no longer has placement-Atlas"),
        (call("ATLAS"), "differs only in case from the project Atlas"),
        (call("no-project"), "is not the name of a project"),
        (lambda targets: targets.delegations.roles.pop("placement-Atlas"), UNKNOWN),
        (lambda targets: setattr(targets, "delegations", None), UNKNOWN),
        (lambda targets: setattr(targets.delegations.roles[LINE], "terminating", False), UNKNOWN),
        (lambda targets: setattr(targets.delegations.roles[LINE], "threshold", 4), "4 of 3 keys cannot be asked for"),
        (lambda targets: targets.delegations.roles[LINE].unrecognized_fields.update(x=1), UNKNOWN),
        (lambda targets: targets.delegations.unrecognized_fields.update(x=1), UNKNOWN),
        (lambda targets: targets.unrecognized_fields.update(x=1), UNKNOWN),
        (lambda targets: targets.targets.update(x=TargetFile(1, {"sha256": "00"}, "x")), UNKNOWN),
        (lambda targets: targets.delegations.keys.pop(targets.delegations.roles[LINE].keyids[0]), UNKNOWN),
        (lambda targets: targets.delegations.roles[LINE].keyids.pop(), UNKNOWN),
    ],
)
def test_targets_of_another_form_are_refused_by_store_and_signers(office, edit, message):
    change = proposal(office, "targets", edit)
    refused(office, change, message)
    with pytest.raises(Refused, match=message):
        check_context(change, None)


def lie_about_a_key(office, delegator, role: str) -> None:
    """The id that people know, and another key under it."""
    keyid = office.keyid(SIGNERS[role][0])
    keys = delegator.keys if role != LINE else delegator.delegations.keys
    keys[keyid].keyval["public"] = office.keys("zoe").keys[0].keyval["public"]


@pytest.mark.parametrize("role", ["root", "targets", LINE])
def test_a_key_id_cannot_be_given_to_another_key(office, role):
    delegator = "targets" if role == LINE else "root"
    change = proposal(
        office, delegator, lambda signed: lie_about_a_key(office, signed, role), "ann", "bob", "dan", "eve"
    )
    with pytest.raises(Refused, match="a key id that does not follow from its key"):
        check_context(change, None)
    refused(office, change, "a key id that does not follow from its key")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda root: setattr(root, "consistent_snapshot", False), UNKNOWN),
        (lambda root: setattr(root, "consistent_snapshot", None), UNKNOWN),
        (lambda root: root.unrecognized_fields.update(x=1), UNKNOWN),
        (lambda root: setattr(root.roles["targets"], "threshold", 4), "4 of 2 keys cannot be asked for"),
        (lambda root: root.roles["timestamp"].keyids.append(root.roles["root"].keyids[0]), UNKNOWN),
        (lambda root: root.roles["snapshot"].unrecognized_fields.update(x=1), UNKNOWN),
        (lambda root: root.keys.pop(root.roles["timestamp"].keyids[0]), UNKNOWN),
    ],
)
def test_a_root_of_another_form_is_refused_by_store_and_signers(office, edit, message):
    change = proposal(office, "root", edit)
    refused(office, change, message)
    with pytest.raises(Refused, match=message):
        check_context(change, None)

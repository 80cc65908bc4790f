"""What DQ2 had: the exceptions that its scripts catch, as ours, and what Rucio has no more, with what there is instead."""

from __future__ import annotations

from collections.abc import Mapping

from pacstore.errors import NotFound, Refused

_CLIENT = "rucio.client.Client"
GONE: Mapping[str, str] = {
    "registerNewVersion": "a dataset has one version for ever: register another one, as pacball does for a new placement",
    "registerNewVersion2": "a dataset has one version for ever: register another one, as pacball does for a new placement",
    "registerNewDataset2": "registerNewDataset, and registerFilesInDataset for what became of each file",
    "registerFilesInDatasets": "registerFilesInDataset, for each dataset",
    "registerContainer": f"{_CLIENT}.add_container; pacball rucio register makes that of a line",
    "registerDatasetsInContainer": f"{_CLIENT}.add_datasets_to_container",
    "deleteDatasetsFromContainer": f"{_CLIENT}.detach_dids",
    "deleteFilesFromDataset": f"{_CLIENT}.detach_dids; a closed dataset should stay as it is",
    "deleteDatasetSubscription": "deleteDatasetReplicas, which deletes the rules",
    "deleteDatasetSubscriptions": "deleteDatasetReplicas, which deletes the rules",
    "deleteDatasetVersionSubscriptions": "deleteDatasetReplicas, which deletes the rules",
    "cancelReplicaDeletions": f'{_CLIENT}.update_replication_rule(id, {{"lifetime": None}}), within the hour',
    "eraseDataset": "pacball rucio retire RELEASE, or rucio did remove",
    "resetSubscription": "nothing: rules try again by themselves; or rucio rule update --boost-rule",
    "resetSubscriptionsInSite": "nothing: rules try again by themselves; or rucio rule update --boost-rule",
    "checkDatasetConsistency": "pacball rucio declare, at the site",
    "listDatasets": f"{_CLIENT}.list_dids",
    "listDatasets2": f"{_CLIENT}.list_dids",
    "listDatasetsInContainer": f"{_CLIENT}.list_content",
    "listDatasetsInSite": f"{_CLIENT}.get_dataset_locks_by_rse",
    "listFileReplicas": f"{_CLIENT}.list_replicas",
    "listSubscriptions": f"{_CLIENT}.list_did_rules, or pacball rucio status",
    "listSubscriptionInfo": f"{_CLIENT}.list_did_rules, or pacball rucio status",
    "listSubscriptionsInSite": f"{_CLIENT}.get_dataset_locks_by_rse",
    "queryReplicaHistory": f"{_CLIENT}.list_replication_rule_full_history",
    "queryStorageUsage": f"{_CLIENT}.get_rse_usage",
    "getMetaDataAttribute": f"{_CLIENT}.get_metadata",
    "setMetaDataAttribute": f"{_CLIENT}.set_metadata",
}
"""The verbs that are gone, each with what to use instead."""


class DQUnknownDatasetException(NotFound):
    """There is no dataset of that name."""


class DQDatasetExistsException(Refused):
    """There is a dataset of that name already."""


class DQClosedDatasetException(Refused):
    """The dataset is closed. Rucio has no other state after that, so this is DQ2's frozen too."""


DQFrozenDatasetException = DQClosedDatasetException


class DQFileExistsInDatasetException(Refused):
    """The file is in the dataset already."""


class DQFileMetaDataMismatchException(Refused):
    """Rucio knows a file of that name that has another size or checksum."""


class DQSubscriptionExistsException(Refused):
    """There is a rule of that account at that place already."""


def refuse(**given: tuple[object, str]) -> None:
    """Raise Refused for an argument that is given though it means nothing in Rucio; each has what to use instead."""
    for name, (value, instead) in given.items():
        if value is not None:
            raise Refused("means nothing in Rucio", place=f"DQ2's argument {name}", hint=f"instead: {instead}")

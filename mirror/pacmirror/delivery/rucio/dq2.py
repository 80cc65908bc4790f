"""DQ2's verbs over Rucio, for scripts that still speak them.

    from pacmirror.delivery.rucio.dq2 import DQ2, DQDatasetExistsException
    dq2 = DQ2()
    dq2.registerNewDataset(dsn, lfns, guids, sizes, checksums, rse="ORIGIN")
    dq2.closeDataset(dsn)
    dq2.registerDatasetSubscription(dsn, "SITE-A")

Names of methods and arguments, their order and what they return are those of DQ2's client, as the compatibility client has them
that Rucio itself once shipped (lib/rucio/client/dq2client.py); where this differs, the method says so. `dsn` may be
SCOPE:NAME; without a scope it is in that of the argument, or of the client. What Rucio has no more is refused, with what to use
instead; arguments that told DQ2 how to look for sources mean nothing and are passed over. Errors are those of
pacstore.errors, the exceptions of DQ2 among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from rucio.common import exception as rucio

from pacmirror.delivery.rucio.catalogue import CollectionRecord, RucioCatalogue, batches
from pacmirror.delivery.rucio.dq2_arguments import ListedFile, format_guid, listed_files, parse_lifetime
from pacmirror.delivery.rucio.dq2_gone import (
    GONE,
    DQClosedDatasetException,
    DQDatasetExistsException,
    DQFileExistsInDatasetException,
    DQFileMetaDataMismatchException,
    DQFrozenDatasetException,
    DQSubscriptionExistsException,
    DQUnknownDatasetException,
    refuse,
)
from pacmirror.delivery.rucio.naming import SCOPE, Did, check_rse, check_scope
from pacstore.errors import NotFound, PacballError, Refused

__all__ = [
    "DQ2",
    "DQClosedDatasetException",
    "DQDatasetExistsException",
    "DQFileExistsInDatasetException",
    "DQFileMetaDataMismatchException",
    "DQFrozenDatasetException",
    "DQSubscriptionExistsException",
    "DQUnknownDatasetException",
]

_SECONDARY_SECONDS = 14 * 86_400


class DQ2:
    """DQ2's client. `catalogue`: the Rucio to use, by default the one that rucio.cfg names; `scope`: of names without one.

    For one thread at a time. Raises Refused where Rucio's client is not configured, Unavailable where Rucio does not answer; so
    does every method.
    """

    def __init__(self, catalogue: RucioCatalogue | None = None, *, scope: str = SCOPE) -> None:
        check_scope(scope)
        self.catalogue = catalogue if catalogue is not None else RucioCatalogue.connect()
        self.scope = scope

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """The verbs of DQ2 that are gone: to call one raises Refused."""
        if name not in GONE:
            raise AttributeError(f"DQ2 has no {name}")

        def gone(*_: object, **__: object) -> NoReturn:
            raise Refused("is not there over Rucio", place=f"DQ2.{name}", hint=f"instead: {GONE[name]}")

        return gone

    # Datasets and what is in them

    def registerNewDataset(
        self,
        dsn: str,
        lfns: Sequence[str] = (),
        guids: Sequence[str | None] = (),
        sizes: Sequence[int] = (),
        checksums: Sequence[str | None] = (),
        cooldown: str | None = None,
        provenance: str | None = None,
        group: str | None = None,
        hidden: bool = False,
        scope: str | None = None,
        rse: str | None = None,
        pfns: Sequence[str] = (),
        events: Sequence[int] = (),
        lumiblocknrs: Sequence[int] = (),
        activity: str | None = None,
    ) -> dict[str, str | int]:
        """Make a dataset of these files: {"duid": text, "vuid": the same, "version": 1}; it stays open.

        `guids` are passed along as they are, None where there is none; `checksums` are "ad:<8 hex>" or "md5:<32 hex>"; `rse` is
        where the files are, and gets a rule that keeps them there; without it they must be known to Rucio. Everything is checked
        before anything is registered. Raises DQDatasetExistsException, DQFileMetaDataMismatchException; NotFound for a file that
        Rucio does not know where `rse` is not given.
        """
        refuse(cooldown=(cooldown, "freezeDataset, when it is time"), group=(group, "the account that registers"))
        refuse(provenance=(provenance, "rucio.client.Client.set_metadata"))
        refuse(hidden=(hidden or None, "nothing: Rucio hides no dataset from who may list the scope"))
        did = self._did(dsn, scope)
        files = listed_files(
            did.scope, lfns, guids, sizes, checksums, pfns=pfns, events=events, lumiblocknrs=lumiblocknrs
        )
        if rse is not None:
            check_rse(rse)
            self.catalogue.rse(rse)
        for error in self._problems(files, rse).values():
            raise error
        if not self.catalogue.add_collection(did, "DATASET", metadata={}):
            hint = "add to it: registerFilesInDataset; a name is never free again"
            raise DQDatasetExistsException("is there already", place=str(did), hint=hint)
        self._attach(did, files, rse)
        if rse is not None:
            self._add_rule(did, rse, activity=activity)
        return {"duid": _uid(did), "version": 1, "vuid": _uid(did)}

    def registerFilesInDataset(
        self,
        dsn: str,
        lfns: Sequence[str] = (),
        guids: Sequence[str | None] = (),
        sizes: Sequence[int] = (),
        checksums: Sequence[str | None] = (),
        ignore: bool = False,
        scope: str | None = None,
        rse: str | None = None,
        pfns: Sequence[str] = (),
        events: Sequence[int] = (),
        lumiblocknrs: Sequence[int] = (),
    ) -> dict[str, dict[str, object]]:
        """Put files into an open dataset: {lfn: {"status": True}}, or {"status": False, "error": an exception} for a file that is
        in it already, is another in Rucio, or is not known there and `rse`, where it is, is not given. All others are put in.

        Arguments as registerNewDataset has them. `ignore` did nothing there either. Raises DQUnknownDatasetException,
        DQClosedDatasetException.
        """
        did = self._did(dsn, scope)
        record = self._record(did)
        if not record.is_open:
            hint = "a closed dataset stays as it is; register another one"
            raise DQClosedDatasetException("is closed", place=str(did), hint=hint)
        files = listed_files(
            did.scope, lfns, guids, sizes, checksums, pfns=pfns, events=events, lumiblocknrs=lumiblocknrs
        )
        if rse is not None:
            check_rse(rse)
            self.catalogue.rse(rse)
        problems = self._problems(files, rse)
        there = self.catalogue.content(did)
        for file in files:
            if file.did.scope == did.scope and file.did.name in there and file.did not in problems:
                problems[file.did] = DQFileExistsInDatasetException(f"is in {did} already", place=str(file.did))
        self._attach(did, [file for file in files if file.did not in problems], rse)
        return {file.lfn: _status(problems.get(file.did)) for file in files}

    def listFilesInDataset(
        self,
        dsn: str,
        version: int | None = None,
        scope: str | None = None,
        long: bool = False,
    ) -> tuple[dict[str, dict[str, object]], str]:
        """The files of a dataset, by GUID, and when it changed last: ({guid: {"checksum", "filesize", "scope", "lfn", "events",
        with `long` "lumiblocknr"}}, date).

        A file without GUID, as pacball's own are, is there by its LFN, and so is one that has the GUID of another; DQ2 had none
        such. A file without adler32 has its md5 as checksum. GUIDs come in upper case. Raises DQUnknownDatasetException.
        """
        did = self._did(dsn, scope, version)
        self._record(did)
        client = self.catalogue.client
        changed = self.catalogue.ask(did, lambda: client.get_metadata(did.scope, did.name).get("updated_at"))
        sums = self.catalogue.content(did)
        rows = self.catalogue.ask(did, lambda: list(client.list_files(did.scope, did.name, long=long)))
        found: dict[str, dict[str, object]] = {}
        for row in rows:
            lfn, guid = str(row["name"]), format_guid(str(row.get("guid") or ""))
            record = sums.get(lfn)
            shown: dict[str, object] = {
                "checksum": _checksum(str(row.get("adler32") or ""), record.md5 if record is not None else ""),
                "filesize": row["bytes"],
                "scope": str(row["scope"]),
                "lfn": lfn,
                "events": str(row.get("events")),
            }
            if long:
                shown["lumiblocknr"] = str(row.get("lumiblocknr"))
            found[guid if guid and guid not in found else lfn] = shown
        return found, str(changed)

    def closeDataset(self, dsn: str, scope: str | None = None) -> bool:
        """Close a dataset: True. Raises DQUnknownDatasetException, and DQClosedDatasetException where it is closed."""
        did = self._did(dsn, scope)
        if not self._record(did).is_open:
            raise DQClosedDatasetException("is closed already", place=str(did))
        self.catalogue.close(did)
        return True

    def freezeDataset(self, dsn: str, scope: str | None = None) -> bool:
        """Close a dataset, or leave it closed, since DQ2 froze what was closed: True. Raises DQUnknownDatasetException."""
        did = self._did(dsn, scope)
        if self._record(did).is_open:
            self.catalogue.close(did)
        return True

    # Where they are, and are to be

    def registerDatasetLocation(
        self,
        dsn: str,
        location: str,
        version: int = 0,
        complete: int | None = 0,
        group: str | None = None,
        archived: str | None = None,
        acl_alias: str | None = None,
        lifetime: str | None = None,
        pin_lifetime: str | None = None,
        activity: str | None = None,
        scope: str | None = None,
    ) -> bool:
        """Let a dataset be kept at an RSE or RSE expression, by a rule: True, also where this account has that rule already.

        Rucio knows by itself whether it is `complete` there, and has what is missing fetched. `acl_alias` and `lifetime` as
        registerDatasetSubscription has `acl_alias` and `replica_lifetime`. Raises DQUnknownDatasetException.
        """
        refuse(group=(group, "the account that asks"), pin_lifetime=(pin_lifetime, "lifetime"))
        did = self._did(dsn, scope, version)
        self._record(did)
        self._add_rule(did, location, acl_alias=acl_alias, lifetime=lifetime, activity=activity)
        return True

    def registerDatasetSubscription(
        self,
        dsn: str,
        location: str,
        version: int = 0,
        archived: str | None = None,
        callbacks: Mapping[str, object] | None = None,
        sources: Mapping[str, object] | None = None,
        sources_policy: object = None,
        wait_for_sources: object = 0,
        destination: str | None = None,
        query_more_sources: object = 0,
        sshare: object = None,
        group: str | None = None,
        owner: str | None = None,
        activity: str | None = None,
        acl_alias: str | None = None,
        replica_lifetime: str | None = None,
        check_destination: bool = False,
        parentId: object = None,
        pin_lifetime: str | None = None,
        scope: str | None = None,
    ) -> None:
        """Subscribe an RSE or RSE expression to a dataset, by a rule.

        `acl_alias` "custodial" locks the rule, "secondary" ends it after 14 days unless `replica_lifetime` says when: "X days",
        "X days, HH:MM:SS" or "HH:MM:SS". `sources`: the RSEs to fetch from. `owner`: the account whose rule it is, not a
        distinguished name. With `callbacks` Rucio notifies when it is done. Raises DQUnknownDatasetException, and
        DQSubscriptionExistsException where that account has that rule already.
        """
        refuse(destination=(destination, "location"), group=(group, "owner"))
        refuse(pin_lifetime=(pin_lifetime, "replica_lifetime"))
        did = self._did(dsn, scope, version)
        self._record(did)
        made = self._add_rule(
            did, location, acl_alias=acl_alias, lifetime=replica_lifetime, activity=activity, owner=owner,
            sources=tuple(sources or ()), notify="C" if callbacks else "N",
        )  # fmt: skip
        if not made:
            raise DQSubscriptionExistsException(f"has a rule at {location} already", place=str(did))

    def listDatasetReplicas(
        self,
        dsn: str,
        version: int = 0,
        complete: int | None = None,
        old: bool = True,
        scope: str | None = None,
    ) -> dict[str, Any]:
        """Where a dataset is: {vuid: {0: [RSEs with a part of it], 1: [RSEs with all of it]}}, or, with `old` False,
        {rse: [{"archived", "found", "total", "transferState", "immutable", "version", "checkstate", "pdn"}]}.

        `complete` 0 or 1 leaves out the others. It is what Rucio counts now: Rucio's own client asked for rules, and did not see
        where a dataset was registered. An RSE that has packs of another release is one that has a part. "transferState" is 1 if
        all is there; "archived" is "custodial", "primary" or "secondary", as the rule is. Raises DQUnknownDatasetException.
        """
        did = self._did(dsn, scope, version)
        record = self._record(did)
        total = len(self.catalogue.content(did))
        found = self.catalogue.available(did)
        locks = self.catalogue.ask(did, lambda: list(self.catalogue.client.get_dataset_locks(did.scope, did.name)))
        for lock in locks:
            found.setdefault(str(lock["rse"]), 0)
        shown = {rse: count for rse, count in sorted(found.items()) if complete in (None, int(count >= total))}
        if old:
            return {_uid(did): {one: [rse for rse, n in shown.items() if (n >= total) == bool(one)] for one in (0, 1)}}
        kept = self._kept(did, locks)
        return {
            rse: [{"archived": kept.get(rse, "secondary"), "checkstate": 6, "found": count, "immutable": int(not record.is_open),
                   "pdn": "", "total": total, "transferState": int(count >= total), "version": 1}]
            for rse, count in shown.items()
        }  # fmt: skip

    def deleteDatasetReplicas(
        self,
        dsn: str,
        locations: Iterable[str],
        version: int = 0,
        force: bool = False,
        deep: bool = False,
        logical: bool = False,
        ignore_lifetime: bool = False,
        all: bool = False,
        grace_period: str | None = None,
        ignore_pin: bool = False,
        scope: str | None = None,
    ) -> dict[str, dict[str, object]]:
        """Delete the rules that have one of the locations as RSE expression: {location: {"status": True}}, or {"status": False,
        "error": an exception} where there is none or it may not be deleted.

        Rucio does it after an hour; files that another rule or dataset keeps there stay. Raises DQUnknownDatasetException.
        """
        refuse(all=(all or None, "locations, by name"), grace_period=(grace_period, "nothing: it is an hour"))
        did = self._did(dsn, scope, version)
        rules = self._rules(did)
        return {location: _status(self._delete_rules(did, location, rules)) for location in dict.fromkeys(locations)}

    # What they are made of

    def _did(self, dsn: str, scope: str | None, version: int | None = None) -> Did:
        if version not in (None, 0, 1):
            hint = "a dataset has one version for ever; leave it out"
            raise Refused(f"there is no version {version} in Rucio", place=dsn, hint=hint)
        return Did.parse(dsn) if ":" in dsn else Did(scope or self.scope, dsn)

    def _record(self, did: Did) -> CollectionRecord:
        record = self.catalogue.collection(did)
        if record is None or record.kind != "DATASET":
            what = "there is no such dataset" if record is None else f"is a {record.kind.lower()}, no dataset"
            raise DQUnknownDatasetException(what, place=str(did), hint="registerNewDataset makes one")
        return record

    def _problems(self, files: Sequence[ListedFile], rse: str | None) -> dict[Did, PacballError]:
        """What keeps files from being registered."""
        found: dict[Did, PacballError] = {}
        for scope in {file.did.scope for file in files}:
            mine = [file for file in files if file.did.scope == scope]
            known = self.catalogue.files(scope, [file.did.name for file in mine])
            for file in mine:
                record = known.get(file.did.name)
                if record is not None and (why := file.differs(record)):
                    hint = "a name in Rucio stands for one content for ever; use another"
                    found[file.did] = DQFileMetaDataMismatchException(why, place=str(file.did), hint=hint)
                elif record is None and rse is None:
                    found[file.did] = NotFound(
                        "is not known to Rucio", place=str(file.did), hint="say where it is: rse="
                    )
                elif record is None and not (file.adler32 or file.md5):
                    hint = "without one rucio download refuses it"
                    found[file.did] = Refused("has no checksum", place=str(file.did), hint=hint)
        return found

    def _attach(self, did: Did, files: Iterable[ListedFile], rse: str | None) -> None:
        """Register the files at the RSE, if there is one, and put them into the dataset."""
        for batch in batches(files):
            attachment = {**did.fields(), "dids": [file.fields() for file in batch], **({"rse": rse} if rse else {})}
            self.catalogue.ask(
                did,
                lambda attachment=attachment: self.catalogue.client.attach_dids_to_dids(  # type: ignore[misc]
                    [attachment], ignore_duplicate=True
                ),
            )

    def _rules(self, did: Did) -> list[dict[str, Any]]:
        self._record(did)
        return self.catalogue.rules(did)

    def _add_rule(
        self,
        did: Did,
        location: str,
        *,
        acl_alias: str | None = None,
        lifetime: str | None = None,
        activity: str | None = None,
        owner: str | None = None,
        sources: Sequence[str] = (),
        notify: str = "N",
    ) -> bool:
        """Whether there was no such rule before."""
        seconds = parse_lifetime(lifetime, place=str(did)) if lifetime else None
        if acl_alias == "secondary" and seconds is None:
            seconds = _SECONDARY_SECONDS
        account = owner or self.catalogue.client.account

        def add() -> bool:
            try:
                self.catalogue.client.add_replication_rule(
                    [did.fields()], 1, location, lifetime=seconds, grouping="DATASET", account=account, notify=notify,
                    locked=acl_alias == "custodial", activity=activity, source_replica_expression="|".join(sources) or None,
                )  # fmt: skip
            except rucio.DuplicateRule:
                return False
            return True

        for rule in self.catalogue.rules(did):
            if rule["rse_expression"] == location and rule["account"] == account:
                return False
        return self.catalogue.ask(f"{did} at {location}", add, hint="see: rucio rse list")

    def _delete_rules(self, did: Did, location: str, rules: Iterable[Mapping[str, Any]]) -> PacballError | None:
        """What keeps them from being deleted."""
        mine = [rule for rule in rules if rule["rse_expression"] == location]
        if not mine:
            return NotFound(f"has no rule at {location}", place=str(did), hint=f"see: rucio rule list {did}")
        try:
            for rule in mine:
                self.catalogue.ask(did, lambda rule=rule: self.catalogue.client.delete_replication_rule(rule["id"]))  # type: ignore[misc]
        except (NotFound, Refused) as error:
            return error
        return None

    def _kept(self, did: Did, locks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """How firmly each RSE is to keep the dataset, in DQ2's words."""
        rules = {str(rule["id"]): rule for rule in self.catalogue.rules(did)}
        order = ("secondary", "primary", "custodial")
        found: dict[str, str] = {}
        for lock in locks:
            rule, rse = rules.get(str(lock["rule_id"])), str(lock["rse"])
            ends = rule is None or rule.get("expires_at") is not None
            how = "secondary" if ends else "custodial" if rule is not None and rule.get("locked") else "primary"
            found[rse] = max(how, found.get(rse, how), key=order.index)
        return found


def _status(problem: PacballError | None) -> dict[str, object]:
    return {"status": True} if problem is None else {"status": False, "error": problem}


def _checksum(adler32: str, md5: str) -> str:
    if adler32:
        return f"ad:{adler32}"
    return f"md5:{md5}" if md5 else ""


def _uid(did: Did) -> str:
    """DQ2's identifier of a dataset or its version, as Rucio's own client made it: the MD5 of SCOPE:NAME as a GUID."""
    return format_guid(hashlib.md5(str(did).encode(), usedforsecurity=False).hexdigest()).lower()

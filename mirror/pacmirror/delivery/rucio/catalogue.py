"""The catalogue: Rucio's client, as this bridge uses it.

Every call ends in bounded time: what may pass is tried again a few times, and is Unavailable then; everything else that Rucio
says is one of our errors, which names the DID and what to do. At most 1,000 DIDs go into a call, as Rucio wants it.
A catalogue is for one thread at a time; whoever needs several makes several.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from rucio.client import Client
from rucio.common import exception as rucio

from pacmirror.delivery.rucio import failures
from pacmirror.delivery.rucio.naming import Did
from pacstore.errors import NotFound, Refused, printable

BATCH = 1_000
"""The most DIDs that Rucio takes in one call."""
_RECORDS = 1_000_000
_T = TypeVar("_T")
_Item = TypeVar("_Item")

# What Rucio's client would write there is said again by our errors.
_client_log = logging.getLogger(f"{__name__}.client")
_client_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one waits for Rucio. `answer_seconds`: for the next bytes of an answer. A call that fails for a reason that may
    pass is made `attempts` times, with pauses of `pause_seconds`, doubled each time, and not again after `total_seconds`.
    """

    answer_seconds: float = 120.0
    attempts: int = 4
    pause_seconds: float = 1.0
    total_seconds: float = 180.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What Rucio says of a DID that should be a file. The checksums are in hexadecimal, "" where it has none."""

    name: str
    is_file: bool
    length: int
    adler32: str
    md5: str

    def fields(self, scope: str) -> dict[str, Any]:
        """As the client takes it for a new replica."""
        return {"scope": scope, "name": self.name, "bytes": self.length, "adler32": self.adler32, "md5": self.md5}


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """What Rucio says of a dataset or container. `kind` is "DATASET", "CONTAINER", or "FILE" where it is none.

    `length` and `bytes_total` count what is in it once it is closed. `metadata`: the JSON metadata, as text.
    """

    did: Did
    kind: str
    is_open: bool
    length: int
    bytes_total: int
    expires: bool
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class RseRecord:
    """What matters here of an RSE. `algorithm` turns names into paths there."""

    name: str
    is_deterministic: bool
    algorithm: str
    protocols: int


class RucioCatalogue:
    """Rucio, through its client. `pause` waits for so many seconds."""

    def __init__(self, client: Client, patience: Patience = PATIENCE, *, pause: Callable[[float], None]) -> None:
        self.client = client
        self.patience = patience
        self._pause = pause
        self.calls = 0
        """How many calls were made, those that failed with them."""

    @classmethod
    def connect(
        cls,
        *,
        account: str | None = None,
        patience: Patience = PATIENCE,
        pause: Callable[[float], None] = time.sleep,
    ) -> Self:
        """The Rucio that the client's own configuration (rucio.cfg, RUCIO_HOME, RUCIO_ACCOUNT) names.

        Raises Refused where there is no configuration, or Rucio does not know us; Unavailable where it does not answer.
        """
        made = cls.__new__(cls)
        RucioCatalogue.__init__(made, None, patience, pause=pause)
        made.client = made.ask(
            "Rucio",
            lambda: Client(account=account, timeout=patience.answer_seconds, user_agent="pacball", logger=_client_log),
        )
        return made

    @property
    def host(self) -> str:
        """Rucio's URL."""
        return printable(str(self.client.host)) if self.client is not None else "the server that rucio.cfg names"

    @property
    def account(self) -> str:
        """As whom it is asked."""
        return printable(str(self.client.account)) if self.client is not None else ""

    def ask(self, place: str | Did, call: Callable[[], _T], *, hint: str = "") -> _T:
        """What `call` returns, which calls the client, reads all of its answer, and may be repeated.

        `place`: the DID or RSE that it is about; `hint`: what to do where that is absent or not allowed. Raises NotFound,
        Refused, or Unavailable once it has failed too often for reasons that may pass.
        """
        began, pause = time.monotonic(), self.patience.pause_seconds
        for attempt in range(1, self.patience.attempts + 1):
            self.calls += 1
            try:
                return call()
            except failures.KNOWN as error:
                late = time.monotonic() - began + pause > self.patience.total_seconds
                if not failures.may_pass(error) or attempt == self.patience.attempts or late:
                    raise failures.convert(
                        error, place=str(place), host=self.host, account=self.account, hint=hint
                    ) from error
            self._pause(pause)
            pause *= 2
        raise AssertionError("a patience has at least one attempt")

    # Places

    def rse(self, name: str) -> RseRecord:
        """The RSE of that name. Raises NotFound."""
        hint = f"make it: rucio rse add {name}; docs/rucio.md tells how it is set up"
        found = self.ask(name, lambda: self.client.get_rse(name), hint=hint)
        attributes = self.ask(name, lambda: self.client.list_rse_attributes(name))
        algorithm = str(attributes.get("lfn2pfn_algorithm") or found.get("lfn2pfn_algorithm") or "")
        return RseRecord(name, bool(found.get("deterministic")), algorithm, len(found.get("protocols") or ()))

    def has_scope(self, scope: str) -> bool:
        """Whether there is that scope."""
        return scope in self.ask(scope, lambda: list(self.client.list_scopes()))

    def add_scope(self, scope: str) -> None:
        """Make a scope of this account; one that is there already stays as it is."""

        def add() -> None:
            try:
                self.client.add_scope(self.client.account, scope)
            except rucio.Duplicate:
                return

        self.ask(scope, add)

    # Data identifiers

    def collection(self, did: Did) -> CollectionRecord | None:
        """The dataset or container of that name, or None."""

        def get() -> dict[str, Any] | None:
            try:
                return dict(self.client.get_metadata(did.scope, did.name, plugin="ALL"))
            except rucio.DataIdentifierNotFound:
                return None

        found = self.ask(did, get)
        if found is None:
            return None
        texts = {key: value for key, value in found.items() if isinstance(value, str)}
        return CollectionRecord(
            did,
            str(found.get("did_type")),
            bool(found.get("is_open")),
            int(found.get("length") or 0),
            int(found.get("bytes") or 0),
            found.get("expired_at") is not None,
            texts,
        )

    def files(self, scope: str, names: Iterable[str]) -> dict[str, FileRecord]:
        """Those of the files that Rucio knows, by name, with what it says of them."""
        found = {}
        for batch in batches(names):
            dids = [{"scope": scope, "name": name} for name in batch]
            rows = self.ask(f"{scope}:{batch[0]}", lambda dids=dids: list(self.client.get_metadata_bulk(dids)))  # type: ignore[misc]
            for row in rows:
                found[str(row["name"])] = _file_record(row, "did_type")
        return found

    def scopes_that_keep(self, names: Iterable[str]) -> set[str]:
        """The scopes that have a DID of one of these names which is not to be removed."""
        every = self.ask("the scopes", lambda: list(self.client.list_scopes()))
        found = set()
        for batch in batches({"scope": scope, "name": name} for name in names for scope in every):
            rows = self.ask("the scopes", lambda dids=batch: list(self.client.get_metadata_bulk(list(dids))))  # type: ignore[misc]
            found |= {str(row["scope"]) for row in rows if row.get("expired_at") is None}
        return found

    def content(self, did: Did) -> dict[str, FileRecord]:
        """What is in a dataset, by name; of a container the names alone mean something. Raises NotFound."""
        rows = self.ask(did, lambda: _bounded(self.client.list_content(did.scope, did.name), did))
        return {str(row["name"]): _file_record(row, "type") for row in rows if row.get("scope") == did.scope}

    def parents(self, did: Did) -> set[str]:
        """The collections that a DID is in, each as SCOPE:NAME: they need not have names that we would give."""
        rows = self.ask(did, lambda: _bounded(self.client.list_parent_dids(did.scope, did.name), did))
        return {f"{row['scope']}:{row['name']}" for row in rows}

    def datasets(self, scope: str, pattern: str) -> list[str]:
        """The names of the datasets in a scope that match, `*` standing for anything."""
        filters = [{"name": pattern}]
        return sorted(self.ask(scope, lambda: list(self.client.list_dids(scope, filters, did_type="dataset"))))

    def add_collection(self, did: Did, kind: str, *, metadata: dict[str, str], hint: str = "") -> bool:
        """Make an open dataset ("DATASET") or "CONTAINER", with its metadata in the same step; False if it is there already."""
        new: dict[str, Any] = {**did.fields(), "type": kind}
        if metadata:
            new["meta"] = metadata

        def add() -> bool:
            try:
                self.client.add_dids([new])
            except rucio.DataIdentifierAlreadyExists:
                return False
            return True

        return self.ask(did, add, hint=hint)

    def attach(self, parent: Did, names: Iterable[str]) -> None:
        """Put files into an open dataset, or datasets into a container; those that are in it already are passed over."""
        for batch in batches(names):
            children = [{"scope": parent.scope, "name": name} for name in batch]
            new = [{**parent.fields(), "dids": children}]
            self.ask(parent, lambda new=new: self.client.attach_dids_to_dids(new, ignore_duplicate=True))  # type: ignore[misc]

    def detach(self, parent: Did, children: Iterable[Did]) -> None:
        """Take files out of a dataset, or datasets out of a container; those that are not in it are passed over."""
        for one in children:
            child = [one.fields()]
            try:
                self.ask(parent, lambda child=child: self.client.detach_dids(parent.scope, parent.name, child))  # type: ignore[misc]
            except NotFound:
                continue

    def close(self, did: Did) -> None:
        """Close a dataset; one that is closed stays so."""

        def close() -> None:
            try:
                self.client.close(did.scope, did.name)
            except rucio.UnsupportedOperation:
                if self.client.get_did(did.scope, did.name).get("open"):
                    raise

        self.ask(did, close)

    def set_metadata(self, did: Did, metadata: dict[str, Any]) -> None:
        """Set these keys; others stay."""
        self.ask(did, lambda: self.client.set_metadata_bulk(did.scope, did.name, metadata))

    def expire(self, did: Did, seconds: float) -> None:
        """Let Rucio remove a DID after so many seconds."""
        self.ask(did, lambda: self.client.set_metadata(did.scope, did.name, "lifetime", seconds))

    def keep(self, did: Did) -> None:
        """Take back that a DID is to be removed."""
        self.ask(did, lambda: self.client.set_metadata(did.scope, did.name, "lifetime", None))

    # Replicas

    def add_replicas(self, rse: str, scope: str, files: Iterable[FileRecord]) -> None:
        """Say that the files are at an RSE, and what they are. Those that are known there stay as they are."""
        for batch in batches(files):
            new = [record.fields(scope) for record in batch]
            self.ask(f"{scope}:{batch[0].name} at {rse}", lambda new=new: self.client.add_replicas(rse, new))  # type: ignore[misc]

    def replica_states(self, rse: str, scope: str, names: Iterable[str]) -> dict[str, str]:
        """The states of those of the files that have a replica at an RSE: AVAILABLE, COPYING, BAD, UNAVAILABLE ..."""
        found = {}
        for batch in batches(names):
            dids = [{"scope": scope, "name": name} for name in batch]
            rows = self.ask(f"{scope}:{batch[0]} at {rse}", lambda dids=dids: self._replicas(dids, rse))  # type: ignore[misc]
            for row in rows:
                state = (row.get("states") or {}).get(rse)
                if state is not None:
                    found[str(row["name"])] = str(state)
        return found

    def _replicas(self, dids: list[dict[str, str]], rse: str) -> list[dict[str, Any]]:
        # In the order of nothing: looking for the nearest takes ten times as long.
        return list(self.client.list_replicas(dids, all_states=True, rse_expression=rse, sort="random"))

    def set_available(self, rse: str, scope: str, names: Iterable[str]) -> None:
        """Say that replicas which an RSE has are whole there and verified. Raises NotFound if one has no replica there."""
        self._set_states(rse, scope, names, "A")

    def set_unavailable(self, rse: str, scope: str, names: Iterable[str]) -> None:
        """Say that replicas are not to be fetched from an RSE any more. A rule that locks one there would be stuck."""
        self._set_states(rse, scope, names, "U")

    def _set_states(self, rse: str, scope: str, names: Iterable[str], state: str) -> None:
        for batch in batches(names):
            states = [{"scope": scope, "name": name, "state": state} for name in batch]
            self.ask(
                f"{scope}:{batch[0]} at {rse}",
                lambda states=states: self.client.update_replicas_states(rse, states),  # type: ignore[misc]
            )

    def available(self, did: Did) -> dict[str, int]:
        """How many files of a dataset are available, by RSE."""
        rows = self.ask(did, lambda: list(self.client.list_dataset_replicas(did.scope, did.name, deep=True)))
        return {str(row["rse"]): int(row.get("available_length") or 0) for row in rows}

    # Rules

    def rules(self, did: Did) -> list[dict[str, Any]]:
        """The rules on a DID, as Rucio gives them."""
        return self.ask(did, lambda: list(self.client.list_did_rules(did.scope, did.name)))

    def delete_rule(self, rule: str) -> None:
        """Delete a rule; Rucio takes up to an hour for it. One that is gone is no error."""

        def delete() -> None:
            try:
                self.client.delete_replication_rule(rule)
            except rucio.RuleNotFound:
                return

        self.ask(f"the rule {rule}", delete)


def batches(items: Iterable[_Item], size: int = BATCH) -> Iterator[Sequence[_Item]]:
    """The items in runs of at most `size`."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _bounded(rows: Iterable[dict[str, Any]], did: Did) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        found.append(row)
        if len(found) > _RECORDS:
            raise Refused(f"has more than {_RECORDS:,} entries", place=str(did))
    return found


def _file_record(row: dict[str, Any], kind: str) -> FileRecord:
    return FileRecord(
        str(row["name"]),
        row.get(kind) == "FILE",
        int(row.get("bytes") or 0),
        str(row.get("adler32") or "").lower(),
        str(row.get("md5") or "").lower(),
    )

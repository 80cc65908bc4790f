"""Rse: what Rucio wants at one RSE and says of it, and what it is told, as the agent of that RSE needs it.

Rucio's answers are of three kinds. What is there is there; what is absent is only that where Rucio said so of the thing
itself; everything else, an answer that breaks off or makes no sense, is unknown, and is RucioAway.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rucio.common import exception as rucio
from rucio.common.constants import HTTPMethod

from pacmirror.delivery.rucio.catalogue import batches
from pacmirror.delivery.rucio.naming import Did, parse_file_name
from pacstore.errors import Refused, Unavailable, printable

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.catalogue import FileRecord, RucioCatalogue
    from pacmirror.delivery.rucio.naming import FileKind
    from pacstore.digest import Digest

AVAILABLE = "AVAILABLE"
BAD = "BAD"
EXECUTABLE = "pacball-rucio-agent"
"""What the agents' heartbeats are called in Rucio."""
_REPORTED_AT_ONCE = 500
_WITHDRAWN_AT_ONCE = 50
_LOCKS = 1_000_000
_COMMENT_CHARACTERS = 240
_COMMENT = "pacball: "
_NOT_FREE = (rucio.ReplicaIsLocked, rucio.ReplicaNotFound)
T = TypeVar("T")


class RucioAway(Unavailable):
    """Rucio itself could not be asked, or did not answer as it should: nothing is known of what it wants."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A dataset that rules want at the RSE. `is_ok`: Rucio believes that all of it is there for each of them."""

    did: Did
    rules: tuple[str, ...]
    is_ok: bool


@dataclass(frozen=True, slots=True)
class RseFile:
    """A file of a dataset. `state` of its replica at the RSE; empty if it has none there."""

    name: str
    length: int
    adler32: str
    md5: str
    state: str

    @property
    def object(self) -> tuple[FileKind, Digest] | None:
        """The object that it is, by its name; None if it is another file."""
        return parse_file_name(self.name)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Files that Rucio does not offer at the RSE any more; those that somebody wants there; those that it never had there."""

    gone: tuple[str, ...]
    wanted: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat of an agent: the RSE, the store that it fills, every how many seconds it beats, and where it runs.

    `begun` and `last` are moments of Rucio's clock, as text that sorts by time.
    """

    rse: str
    store: str
    seconds: float
    host: str
    pid: int


class Rse:
    """The RSE `name` of a Rucio, for datasets of one scope."""

    def __init__(self, catalogue: RucioCatalogue, name: str, scope: str) -> None:
        self.catalogue = catalogue
        self.name = name
        self.scope = scope

    def wanted(self) -> dict[Did, Wanted]:
        """The datasets of the scope that rules want here. Raises NotFound where there is no such RSE, RucioAway."""
        hint = "name the RSE as Rucio does: rucio rse list"
        rows = self._ask(self.name, lambda: self._rows(self._client().get_dataset_locks_by_rse(self.name)), hint=hint)
        found: dict[Did, Wanted] = {}
        for row in rows:
            scope, name, rule, state = (row.get(key) for key in ("scope", "name", "rule_id", "state"))
            if not (row.get("rse") == self.name and all(isinstance(text, str) for text in (scope, name, rule, state))):
                raise RucioAway("Rucio's answer is no list of locks", place=self.name, hint="see the log of its server")
            if scope != self.scope:
                continue
            try:
                did = Did(str(scope), str(name))
            except Refused:
                continue  # with a '/' in its name, which none of ours has
            before = found.get(did, Wanted(did, (), is_ok=True))
            found[did] = Wanted(did, (*before.rules, str(rule)), is_ok=before.is_ok and state == "OK")
        return found

    def files(self, did: Did) -> dict[str, RseFile]:
        """The files of a dataset, by name. Raises NotFound where Rucio has no such dataset."""
        with _away():
            content = self.catalogue.content(did)
            states = self.catalogue.replica_states(self.name, did.scope, content)
        return {
            name: RseFile(name, record.length, record.adler32, record.md5, states.get(name, ""))
            for name, record in content.items()
            if record.is_file
        }

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """The states of those of the files that have a replica here, by name."""
        with _away():
            return self.catalogue.replica_states(self.name, self.scope, names)

    def add(self, files: Iterable[FileRecord]) -> None:
        """Say that files that Rucio knows from elsewhere are here as well, which no rule has asked for; otherwise as `report`."""
        for batch in batches(files, _REPORTED_AT_ONCE):
            with _away():
                self.catalogue.add_replicas(self.name, self.scope, batch)

    def report(self, names: Iterable[str]) -> None:
        """Say that these files are here: only for who has verified them, durable and served. May be repeated.

        Raises NotFound if Rucio does not expect one of them here.
        """
        for batch in batches(names, _REPORTED_AT_ONCE):
            with _away():
                self.catalogue.set_available(self.name, self.scope, batch)

    def withdraw(self, names: Iterable[str]) -> Withdrawn:
        """Let Rucio send nobody here any more for those of the files that no rule wants here. May be repeated."""
        gone: list[str] = []
        wanted: list[str] = []
        unknown: list[str] = []
        for batch in batches(names, _WITHDRAWN_AT_ONCE):
            free = self._free(batch, wanted, unknown)
            if free:
                self._set_state(free, "U")
            gone += free
        return Withdrawn(tuple(gone), tuple(wanted), tuple(unknown))

    def declare_bad(self, names: Iterable[str], reason: str) -> None:
        """Say that these files are here, and damaged. Those of which that is known stay so."""
        for batch in batches(names, _REPORTED_AT_ONCE):
            self._declare_bad([{"scope": self.scope, "name": name, "rse": self.name} for name in batch], reason)

    def comment(self, rules: Iterable[str], text: str) -> None:
        """Write into the rules' comments why they are not fulfilled, or take that back for an empty `text`; people's own stay.

        A rule's own `error` cannot be written by any client. Raises nothing: it is a courtesy.
        """
        line = f"{_COMMENT}{printable(text)}"[:_COMMENT_CHARACTERS] if text else ""
        for rule in rules:
            try:
                before = str(self._client().get_replication_rule(rule).get("comments") or "")
                if before != line and (not before or before.startswith(_COMMENT)):
                    self._client().update_replication_rule(rule, {"comment": line})
            except Exception:  # noqa: BLE001, S112 - whatever it is, the work does not depend on it
                continue

    def beat(self, beat: Beat, *, forget_seconds: float) -> None:
        """Let Rucio know that this agent lives; agents that have not said so for `forget_seconds` are forgotten."""
        payload = json.dumps({"rse": beat.rse, "seconds": beat.seconds, "store": beat.store}, sort_keys=True)
        values = {"executable": EXECUTABLE, "hostname": beat.host, "pid": beat.pid, "payload": payload}
        data = json.dumps({**values, "older_than": int(forget_seconds)})
        self._ask(self.name, lambda: self._send(HTTPMethod.POST, data))

    def beats(self) -> list[dict[str, Any]]:
        """The heartbeats of all agents, as Rucio gives them. Raises Refused where only its administrators may see them."""
        found = self._ask(self.name, lambda: json.loads(self._send(HTTPMethod.GET, None)))
        rows = found if isinstance(found, list) else []
        return [row for row in rows if isinstance(row, dict) and row.get("readable") == EXECUTABLE]

    def _free(self, batch: Sequence[str], wanted: list[str], unknown: list[str]) -> list[str]:
        """Those of the files that nobody locks here: Rucio marks them in the step in which it looks."""
        try:
            self._mark(batch)
        except rucio.ReplicaIsLocked:
            if len(batch) == 1:
                wanted += batch
                return []
        except rucio.ReplicaNotFound:
            if len(batch) == 1:
                unknown += batch
                return []
        else:
            return list(batch)
        # One of them is; which, it does not say for programs.
        return [name for one in batch for name in self._free([one], wanted, unknown)]

    def _mark(self, batch: Sequence[str]) -> None:
        replicas = [{"scope": self.scope, "name": name, "rse": self.name} for name in batch]

        def mark() -> rucio.RucioException | None:
            try:
                self._client().set_tombstone(replicas)
            except _NOT_FREE as error:
                return cast("rucio.RucioException", error)
            return None

        answer = self._ask(self._place(batch), mark)
        if answer is not None:
            raise answer

    def _declare_bad(self, replicas: list[dict[str, str]], reason: str) -> None:
        # It answers with those that were declared before: no error.
        place = self._place([replicas[0]["name"]])
        self._ask(place, lambda: self._client().declare_bad_file_replicas(replicas, reason))

    def _set_state(self, names: Sequence[str], state: str) -> None:
        states = [{"scope": self.scope, "name": name, "state": state} for name in names]
        self._ask(self._place(names), lambda: self._client().update_replicas_states(self.name, states))

    def _send(self, method: HTTPMethod, data: str | None) -> str:
        client = self._client()
        answer = client._send_request(f"{client.host}/heartbeats", method=method, data=data)  # noqa: SLF001 - it has no method for it
        if answer.status_code != 200:
            kind, message = client._get_exception(answer.headers, answer.status_code, answer.content)  # noqa: SLF001
            raise kind(message)
        return str(answer.text)

    def _rows(self, answer: Iterable[Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for row in answer:
            if not isinstance(row, dict) or len(rows) >= _LOCKS:
                raise RucioAway("Rucio's answer is no list of locks", place=self.name, hint="see the log of its server")
            rows.append(row)
        return rows

    def _client(self) -> Any:
        return self.catalogue.client

    def _ask(self, place: str, call: Callable[[], T], *, hint: str = "") -> T:
        with _away():
            return self.catalogue.ask(place, call, hint=hint)

    def _place(self, names: Sequence[str]) -> str:
        return f"{self.scope}:{names[0]} at {self.name}"


@contextmanager
def _away() -> Iterator[None]:
    """What could not be found out inside is Rucio's: nothing else is asked there."""
    try:
        yield
    except Unavailable as error:
        raise RucioAway(error.message, place=error.place, hint=error.hint) from error

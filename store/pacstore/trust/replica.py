"""Replica: a verified copy of another server's catalog, byte for byte, in a store of ours.

Only a whole state that verifies as `pacstore.trust.served` verifies it, and that is not older than what was here or was served
before, takes the place of the one before. It becomes visible by its timestamp, which is written last; killed anywhere before,
what was there is still served, and what was fetched is not fetched again. A source that is broken, hostile or behind changes
nothing.

Written in this order, each file durably: delegated roles, as they are verified; targets; snapshot; roots; timestamp. Roots come
late, since a new root is in force for readers as soon as it is there.
"""

from __future__ import annotations

import enum
import hashlib
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root, Timestamp

from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable, Untrusted
from pacstore.limits import GIB
from pacstore.storage import Clock, DocumentKind, DocumentStorage, document_path
from pacstore.trust.incoming import Incoming, StoreFailed, storing
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME, file_name, verify_root
from pacstore.trust.pins import check_root, fingerprint
from pacstore.trust.served import ServedState, VerifiedRoles, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from pacstore.source import Source

_CATALOG = DocumentKind.CATALOG
_TIMESTAMP_PATH = document_path(_CATALOG, TIMESTAMP_NAME)
_ATTEMPTS = 3
_OTHER = "use another source, and tell the operator of this one"


@dataclass(frozen=True)
class ReplicaLimits:
    """Bounds of one attempt to copy a catalog.

    `catalog_bytes`: fetched in it, at most. `attempt_seconds`: after which no further file is asked for; what was fetched
    counts for the next attempt. `version`: the highest that a role may have.
    """

    catalog_bytes: int = 4 * GIB
    attempt_seconds: float = 900.0
    version: int = (1 << 63) - 1


class Outcome(enum.StrEnum):
    """What one look at a source came to: the same state as ours, a newer one that is ours now, or an older one."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a source: what it came to, and the version of its catalog, signed by the keys of the root in force."""

    outcome: Outcome
    version: int


class Replica:
    """The copy in `documents`. Several threads may refresh it at once, each from a source of its own; so may other processes.

    `pinned` is the root that the catalog must have; without it, the first root that is seen is believed, and kept. `floors`
    gives states that were served before. `lock` is held while a new state becomes visible. `known` may be shared with others
    who verify the same catalog. `held` is the state that is here; `load` finds it.
    """

    def __init__(
        self,
        documents: DocumentStorage,
        *,
        pinned: bytes | None,
        clock: Clock,
        floors: Callable[[], Iterable[ServedState]] = tuple,
        lock: Callable[[], AbstractContextManager[object]] = nullcontext,
        known: VerifiedRoles | None = None,
        limits: ReplicaLimits | None = None,
    ) -> None:
        """Nothing is read yet. Raises Refused if `pinned` is no root."""
        self.held: ServedState | None = None
        self._documents = documents
        self._pinned = check_root(pinned, place="the pinned root") if pinned is not None else None
        self._clock = clock
        self._floors = floors
        self._lock = lock
        self._known = known or VerifiedRoles()
        self._limits = limits or ReplicaLimits()
        self._showing = Lock()

    def refuse_other_root(self) -> None:
        """Raise Refused if another root is here than the pinned one."""
        if self._pinned is None:
            return
        version = verify_root(self._pinned).version
        here = self._root_here(version)
        if here is not None and here != self._pinned:
            hint = "give the root of this catalog, or another directory for the store of the other one"
            place = document_path(_CATALOG, file_name(Root.type, version))
            raise Refused("the catalog here has another root than the trusted one", place=place, hint=hint)

    def load(self) -> ServedState | None:
        """What is here already, verified; None if there is no catalog, or none that verifies: that is fetched anew.

        Raises Refused if it has another root than the pinned one, Unavailable if it cannot be read.
        """
        self.refuse_other_root()
        with suppress(NotFound, Corrupt, TooLarge, Untrusted):
            stamp = self._documents.get(_CATALOG, TIMESTAMP_NAME, limit=METADATA_LIMITS.timestamp_bytes)
            self.held = Verifier(self._documents, known=self._known).verify(stamp, floors=self._floors())
        return self.held

    def root_fingerprint(self) -> str:
        """That of the first root that is here, by which people compare it; empty if there is none."""
        first = self._root_here(1)
        return fingerprint(first) if first is not None else ""

    def named(self) -> set[str]:
        """The names of the files of what is held, roots and timestamp apart."""
        roles = self.held.roles if self.held is not None else {}
        return {file_name(role, state.version) for role, state in roles.items() if role != Timestamp.type}

    def refresh(self, source: Source, *, whole: bool = False, progress: Callable[[int], None] = lambda _: None) -> Look:
        """Take over what `source` has if it is newer; `whole`: and what of the same is missing or damaged here.

        `progress` is told the version of its catalog as soon as that is known to be signed. Raises Corrupt, Untrusted,
        TooLarge or Refused for a catalog that must not be taken over, NotFound if there is none, Unavailable, with places that
        name the source; StoreFailed if our own disk fails. What was held before then still is.
        """
        for _ in range(_ATTEMPTS):
            look = self._attempt(source, progress, whole=whole)
            if look is not None:
                return look
        raise StoreFailed(
            "others change the catalog here all the time", place=_TIMESTAMP_PATH, hint="it is tried again"
        )

    def _attempt(self, source: Source, progress: Callable[[int], None], *, whole: bool) -> Look | None:
        """A look; None if another thread or process changed what is here before it was over."""
        shown = self._shown()
        self._catch_up(shown)
        held = self.held
        floors = [state for state in (held, *self._floors()) if state is not None]
        incoming = self._incoming(source, floors)
        with _judged(source):
            stamp = source.read(_TIMESTAMP_PATH, limit=METADATA_LIMITS.timestamp_bytes)
            verifier = Verifier(incoming, known=None if whole else self._known)
            signed = verifier.read_stamp(stamp)
            self._check_version(signed.version)
            progress(signed.version)
            if held is not None and not incoming.has_new_roots() and signed.online_keys == held.online_keys:
                if signed.version < held.version:
                    return Look(Outcome.OLDER, signed.version)
                if stamp == held.timestamp == shown and not whole:
                    return Look(Outcome.SAME, signed.version)
            state = verifier.verify(stamp, floors=floors)
            self._check(state)
        if not self._show(incoming, state, shown):
            return None
        return Look(Outcome.SAME if held == state else Outcome.NEWER, state.version)

    def _catch_up(self, shown: bytes) -> None:
        """Hold what another process has put here, if it is right and newer."""
        held = self.held
        if not shown or (held is not None and shown == held.timestamp):
            return
        floors = (held,) if held is not None else ()
        with suppress(PacballError):
            self.held = Verifier(self._documents, known=self._known).verify(shown, floors=floors)

    def _show(self, incoming: Incoming, state: ServedState, before: bytes) -> bool:
        with storing(), self._showing, self._lock():
            if self._shown() != before:
                return False
            incoming.show(state.timestamp)
            self.held = state
            return True

    def _shown(self) -> bytes:
        """The timestamp that readers see here now; empty if there is none that can be read."""
        with suppress(PacballError):
            return self._documents.get(_CATALOG, TIMESTAMP_NAME, limit=METADATA_LIMITS.timestamp_bytes)
        return b""

    def _incoming(self, source: Source, floors: Iterable[ServedState]) -> Incoming:
        limits = self._limits
        return Incoming(
            self._documents,
            source,
            self._trusted_roots(floors),
            clock=self._clock,
            deadline=self._clock() + limits.attempt_seconds,
            limit_bytes=limits.catalog_bytes,
        )

    def _trusted_roots(self, floors: Iterable[ServedState]) -> dict[int, str]:
        """The sha256 of each root that is known, by its version."""
        known: dict[int, str] = {}
        first = self._root_here(1)
        if first is not None:
            known[1] = _sha256(first)
        for floor in floors:
            known |= dict(enumerate(floor.roots, 1))
        if self._pinned is not None:
            known[verify_root(self._pinned).version] = _sha256(self._pinned)
        return known

    def _root_here(self, version: int) -> bytes | None:
        """A root that is here, if it is one: it was believed when it came."""
        with suppress(PacballError, RepositoryError, ValueError):
            data = self._documents.get(_CATALOG, file_name(Root.type, version), limit=METADATA_LIMITS.root_bytes)
            verify_root(data)
            return data
        return None

    def _check(self, state: ServedState) -> None:
        if self._pinned is not None and verify_root(self._pinned).version > state.root_version:
            message = (
                f"it has {state.root_version} roots, and the trusted one is version {verify_root(self._pinned).version}"
            )
            raise Untrusted(message, place=FIRST_ROOT_NAME)
        self._check_version(max(one.version for one in state.roles.values()))

    def _check_version(self, version: int) -> None:
        if version > self._limits.version:
            raise Corrupt("a version is higher than any that can be followed", place=_TIMESTAMP_PATH)


@contextmanager
def _judged(source: Source) -> Iterator[None]:
    """What does not verify inside came from `source`, and says so."""
    try:
        yield
    except Unavailable:
        raise
    except NotFound as error:
        hint = "is this the address of a pacball store?"
        raise NotFound("has no catalog", place=source.name, hint=hint) from error
    except PacballError as error:
        if source.name in error.place:
            raise
        kind = next(kind for kind in (Untrusted, TooLarge, Corrupt, PacballError) if isinstance(error, kind))
        kind = Corrupt if kind is PacballError else kind
        raise kind(error.message, place=f"{source.name}/{error.place}", hint=_OTHER) from error
    except Exception as error:
        # Whatever a hostile file makes of the libraries.
        message = f"its catalog could not be verified: {error!r}"
        raise Corrupt(message, place=source.name, hint=_OTHER) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

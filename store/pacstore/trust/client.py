"""Verified reading of a catalog from a source that nobody trusts.

What a `VerifiedCatalog` says is signed by the keys that the pinned root leads to, and is never older than what this client
has seen before. When it has expired, only what this client saw in a fresh one is still believed, with a warning. python-tuf
checks signatures, hashes and versions; the rest is ours: `floor` (versions), `clock` (time), `seen` and `judge` (expiry).

A client's state, `STATE/FINGERPRINT/` for each pinned root, may be shared by several clients, on network disks too:

    lock            saves work, and nothing depends on it
    metadata/       python-tuf's cache; not durable, and dropped when it is of no use
    floor/          the highest versions seen (floor.py)
    clock/          the latest time at which a fresh catalog was verified (clock.py)
    seen/           the releases seen in fresh catalogs (seen.py)
    lineage.json    the roots that followed the pinned one (lineage.py)
"""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Signed, TargetFile, Targets

from pacstore.errors import NotFound, Unavailable
from pacstore.trust import entries, internals, lineage, private
from pacstore.trust.clock import Clock, Moment, signed_at
from pacstore.trust.fetcher import SourceFetcher, pacball_errors
from pacstore.trust.floor import Floor, Seen
from pacstore.trust.judge import Judge, Warn
from pacstore.trust.metadata import LINE_PREFIX, METADATA_LIMITS, PLACEMENT_PREFIX, verify_root
from pacstore.trust.pins import check_root, fingerprint
from pacstore.trust.seen import SeenReleases
from pacstore.trust.updating import locking, updated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tuf.ngclient import Updater

    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.trust.targets import CatalogRelease

LOCK_SECONDS = 5.0
_SUGGESTIONS = 5
_LISTED = 20
_TOP = ("root", "timestamp", "snapshot", "targets")
_BEGINNING = -62_135_596_800.0
"""The first moment that a calendar knows: nothing has expired then."""


def _silent(_: str) -> None:
    pass


class VerifiedCatalog:
    """A catalog as one verified state; lines are fetched and verified when they are first asked for.

    Every method may raise what `open_catalog` does: Untrusted, Unavailable, Corrupt, TooLarge. Not for use by several
    threads at once.
    """

    def __init__(self, updater: Updater, fetcher: SourceFetcher, source_name: str, judge: Judge) -> None:
        self._updater = updater
        self._fetcher = fetcher
        self._source_name = source_name
        self._judge = judge

    @property
    def version(self) -> int:
        """The version of the timestamp: it grows with every change of the catalog."""
        return int(internals.trusted(self._updater).timestamp.version)

    @property
    def root_version(self) -> int:
        """The version of the root in force."""
        return int(internals.trusted(self._updater).root.version)

    @property
    def signed_at(self) -> float | None:
        """When the timestamp was signed, in seconds since 1970, or None if it does not say so."""
        return signed_at(internals.trusted(self._updater).timestamp)

    @property
    def expires(self) -> float:
        """Until when this state is valid, lines apart, in seconds since 1970."""
        return min(signed.expires.timestamp() for signed in self._top().values())

    @property
    def stale(self) -> str:
        """Empty while everything that was read so far is fresh; otherwise what has expired, and how old it is."""
        self._judge.is_fresh(self._top())
        return self._judge.stale

    def check_fresh(self) -> None:
        """Raise Untrusted, which says what must be signed anew, if something that was read so far has expired."""
        self._judge.is_fresh(self._top())
        self._judge.check()

    def projects(self) -> list[str]:
        """The projects that have a line, sorted."""
        return entries.projects_of(self._roles())

    def expiries(self) -> dict[str, float]:
        """When each role's metadata expires, in seconds since 1970; that of all lines is fetched for it."""
        with _reading(self._fetcher):
            lines = {role: internals.load_delegated(self._updater, role) for role in self._roles()}
        return {role: signed.expires.timestamp() for role, signed in {**self._top(), **lines}.items()}

    def retain(self, project: str) -> dict[str, Any] | None:
        """What the line of `project` says about keeping its releases, expired or not, as signed; None if it says nothing."""
        if project not in self.projects():
            return None
        with _reading(self._fetcher):
            line = internals.load_delegated(self._updater, entries.line_role(project))
        rule = line.unrecognized_fields.get("retain")
        return dict(rule) if isinstance(rule, dict) else None

    def release(self, name: Release) -> CatalogRelease:
        """The release of that name. Raises NotFound, which says what there is instead.

        When what speaks for it has expired, Untrusted unless it was seen before; also if it is not there, since a newer
        catalog may have it.
        """
        with _reading(self._fetcher):
            targets = ((path, self._target(path)) for path in entries.paths_of(name))
            found = {path: target for path, target in targets if target is not None}
        entry = entries.decode(name, found, found)
        roles = self._loaded(name.project)
        if self._judge.is_fresh(roles):
            self._learn(name.project, roles)
            if entry is None:
                raise NotFound("is not in the catalog", place=str(name), hint=self._suggest(name))
            return entry
        if entry is None:
            raise self._judge.refusal(f"{name} is not in it, and a newer one may have it", roles)
        if not self._judge.believed([entry]):
            raise self._judge.refusal(f"{name} was not seen here while it was fresh", roles)
        self._judge.warn(roles)
        return entry

    def releases(self, project: str | None = None) -> list[CatalogRelease]:
        """The releases of one project, none if it has no line, or all; sorted by name.

        One line that does not verify makes the listing of all fail: who wants the others asks for project by project. Of
        what has expired, only releases that were seen before are given; Untrusted if none of several was.
        """
        believed: list[CatalogRelease] = []
        expired: dict[str, Signed] = {}
        hidden = 0
        for known in self.projects():
            if project in (None, known):
                roles, found = self._line(known)
                if self._judge.is_fresh(roles):
                    self._learn(known, roles)
                    believed += found
                else:
                    seen = self._judge.believed(found)
                    believed, hidden, expired = believed + seen, hidden + len(found) - len(seen), expired | roles
        if expired:
            if hidden and not believed:
                raise self._judge.refusal("none of its releases was seen here while it was fresh", expired)
            self._judge.warn(expired, hidden)
        return believed

    def _target(self, path: str) -> TargetFile | None:
        """The target of that path, from the role that `targets` lets speak for it.

        Not python-tuf's own walk: that follows whatever a line or its placements delegate in turn, and then has their
        metadata in the place of those of a line, if they took its name.
        """
        delegations = internals.trusted(self._updater).targets.delegations
        for role, terminating in delegations.get_roles_for_target(path) if delegations is not None else ():
            target = internals.load_delegated(self._updater, role).targets.get(path)
            if target is not None or terminating:
                return target
        return None

    def _line(self, project: str) -> tuple[dict[str, Signed], list[CatalogRelease]]:
        """What speaks for a line, and all of its releases."""
        names = entries.line_role(project), entries.placement_role(project)
        with _reading(self._fetcher):
            line, placements = (internals.load_delegated(self._updater, name) for name in names)
        roles = {**self._top(), names[0]: line, names[1]: placements}
        return roles, list(entries.decode_all(project, line.targets, placements.targets))

    def _top(self) -> dict[str, Signed]:
        state = internals.trusted(self._updater)
        return {role: state[role] for role in _TOP}

    def _loaded(self, project: str) -> dict[str, Signed]:
        """All metadata that was read, except that of other lines: python-tuf does not say what it found a target in."""
        mine = entries.line_role(project), entries.placement_role(project)
        return {
            role: signed
            for role, signed in internals.loaded(self._updater).items()
            if role in mine or not role.startswith((LINE_PREFIX, PLACEMENT_PREFIX))
        }

    def _learn(self, project: str, roles: Mapping[str, Signed]) -> None:
        role = entries.line_role(project)
        line = roles.get(role)
        if isinstance(line, Targets):
            self._judge.learn(project, internals.listed(self._updater, role), line)

    def _roles(self) -> list[str]:
        delegations = internals.trusted(self._updater).targets.delegations
        return list(delegations.roles) if delegations is not None and delegations.roles is not None else []

    def _suggest(self, name: Release) -> str:
        if name.project not in self.projects():
            near = difflib.get_close_matches(name.project, self.projects(), _SUGGESTIONS, 0.5)
            return f"{self._source_name} has the projects {_shorten(near or self.projects())}"
        names = [str(entry.release) for entry in self._line(name.project)[1]]
        near = difflib.get_close_matches(str(name), names, _SUGGESTIONS, 0.5)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        return f"{nearest}{self._source_name} has of {name.project}: {_shorten(names)}"


def open_catalog(
    source: Source,
    *,
    root: bytes,
    state_dir: Path,
    now: float,
    as_of: float | None = None,
    warn: Warn = _silent,
    lock_seconds: float = LOCK_SECONDS,
) -> VerifiedCatalog:
    """Fetch and verify the newest state that `source` has, starting from the pinned `root`.

    Whether something has expired is judged by `now`, or a later time at which a fresh catalog was verified; or as of
    `as_of`, which is remembered nowhere; all in seconds since 1970. An expired catalog is opened too: see
    `VerifiedCatalog.stale`; `warn` is told when something of it is believed. `state_dir` is this client's own; clients may
    share it, and wait at most `lock_seconds` for one another.

    Raises Untrusted for what does not verify, is older than seen before, or was signed long after that time; NotFound if
    there is no catalog at all; Unavailable, TooLarge, Corrupt as the source or the local disk has it; Refused if `root` is
    not a TUF root.
    """
    check_root(root, place="the pinned root")
    place = f"{source.name}/catalog"
    metadata = metadata_dir(root, state_dir)
    state = metadata.parent
    private.make_directory(state)
    floor_dir, clock_dir, seen_dir = (state / name for name in ("floor", "clock", "seen"))
    fetcher = SourceFetcher(source, last_root=_last_root(root))
    with locking(state / "lock", lock_seconds, sweeping=(state, metadata, floor_dir, clock_dir, seen_dir)) as locked:
        lineage.inherit(state, root, records=(floor_dir.name, clock_dir.name), files=(seen_dir.name,))
        floor, clock = Floor(floor_dir), Clock(clock_dir)
        updater, directory = updated(fetcher, root, metadata if locked else None)
        keys = internals.online_keys(updater)
        moment = clock.moment(now, keys, as_of=as_of)
        signed = signed_at(internals.trusted(updater).timestamp)
        moment.check_signed_at(signed, place)
        judge = Judge(moment, SeenReleases(seen_dir), signed_at=signed, where=source.name, warn=warn)
        catalog = VerifiedCatalog(updater, fetcher, source.name, judge)
        floor.raise_to(Seen(internals.versions(updater), keys), place)
        if not catalog.stale:
            clock.advance(moment, keys, expires=catalog.expires)
        lineage.record(state, updater, directory, pinned_version=verify_root(root).version)
    return catalog


def metadata_dir(root: bytes, state_dir: Path) -> Path:
    """Where the client with this pinned root keeps the metadata that it has verified: a cache, which may not be there."""
    return state_dir / fingerprint(root)[:32] / "metadata"


def open_insecurely(source: Source, *, root: bytes, now: float) -> VerifiedCatalog:
    """The catalog that `source` has, starting from `root`, which may be the one that it shows itself.

    Expiry, the time of signing and what was seen before are not looked at, and nothing is remembered. Raises as
    `open_catalog` does.
    """
    check_root(root, place=source.name)
    fetcher = SourceFetcher(source, last_root=_last_root(root))
    updater, _ = updated(fetcher, root, None)
    judge = Judge(Moment(_BEGINNING, now), None, signed_at=None, where=source.name, warn=_silent)
    return VerifiedCatalog(updater, fetcher, source.name, judge)


def _last_root(pinned: bytes) -> int:
    """The last version of the root that can be followed from the pinned one."""
    return verify_root(pinned).version + METADATA_LIMITS.root_rotations


@contextmanager
def _reading(fetcher: SourceFetcher) -> Iterator[None]:
    try:
        with pacball_errors(fetcher):
            yield
    except OSError as error:
        # Never NotFound: that a local file is gone says nothing about the catalog.
        place = str(error.filename2 or error.filename or fetcher.place)
        message = f"this local copy of a catalog's file cannot be used: {error.strerror}"
        raise Unavailable(message, place=place, hint="remove it, or check its disk, and try again") from error


def _shorten(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

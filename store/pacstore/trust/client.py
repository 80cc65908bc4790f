"""Verified reading of a catalog from a source that nobody trusts.

What a `VerifiedCatalog` says is signed by the keys that the pinned root leads to, is not expired at `now`, and is never
older than what this client has seen before; python-tuf checks the first two, `pacstore.trust.floor` the last one too.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import shutil
import tempfile
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.ngclient import Updater, UpdaterConfig

from pacstore.durable import unavailable
from pacstore.errors import NotFound, Unavailable
from pacstore.trust import entries, internals, private
from pacstore.trust.fetcher import BASE_URL, SourceFetcher, pacball_errors
from pacstore.trust.floor import Floor, Seen
from pacstore.trust.metadata import METADATA_LIMITS
from pacstore.trust.pins import check_root, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.trust.targets import CatalogRelease

LOCK_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.05
_SUGGESTIONS = 5
_LISTED = 20


class VerifiedCatalog:
    """A catalog as one verified state; lines are fetched and verified when they are first asked for.

    Every method may raise what `open_catalog` does: Untrusted, Unavailable, Corrupt, TooLarge. Not for use by several
    threads at once.
    """

    def __init__(self, updater: Updater, fetcher: SourceFetcher, source_name: str) -> None:
        self._updater = updater
        self._fetcher = fetcher
        self._source_name = source_name

    @property
    def version(self) -> int:
        """The version of the timestamp: it grows with every change of the catalog."""
        return int(internals.trusted(self._updater).timestamp.version)

    @property
    def root_version(self) -> int:
        """The version of the root in force."""
        return int(internals.trusted(self._updater).root.version)

    @property
    def expires(self) -> float:
        """Until when this state is valid, lines apart, in seconds since 1970."""
        state = internals.trusted(self._updater)
        return min(
            signed.expires.timestamp() for signed in (state.root, state.timestamp, state.snapshot, state.targets)
        )

    def projects(self) -> list[str]:
        """The projects that have a line, sorted."""
        return entries.projects_of(self._roles())

    def release(self, name: Release) -> CatalogRelease:
        """The release of that name. Raises NotFound, which says what there is instead."""
        paths = entries.paths_of(name)
        with _reading(self._fetcher):
            # python-tuf's own walk, so that it decides which role may speak for which path.
            found = {path: target for path in paths if (target := self._updater.get_targetinfo(path)) is not None}
        entry = entries.decode(name, found, found)
        if entry is None:
            raise NotFound("is not in the catalog", place=str(name), hint=self._suggest(name))
        return entry

    def releases(self, project: str | None = None) -> list[CatalogRelease]:
        """The releases of one project, none if it has no line, or all; sorted by name.

        One line that does not verify makes the listing of all fail: who wants the others asks for project by project.
        """
        wanted = [known for known in self.projects() if project in (None, known)]
        return [entry for known in wanted for entry in self._line(known)]

    def _line(self, project: str) -> Iterator[CatalogRelease]:
        with _reading(self._fetcher):
            line = internals.load_delegated(self._updater, entries.line_role(project)).targets
            placements = internals.load_delegated(self._updater, entries.placement_role(project)).targets
        return entries.decode_all(project, line, placements)

    def _roles(self) -> list[str]:
        delegations = internals.trusted(self._updater).targets.delegations
        return list(delegations.roles) if delegations is not None and delegations.roles is not None else []

    def _suggest(self, name: Release) -> str:
        if name.project not in self.projects():
            near = difflib.get_close_matches(name.project, self.projects(), _SUGGESTIONS, 0.5)
            return f"{self._source_name} has the projects {_shorten(near or self.projects())}"
        names = [str(entry.release) for entry in self.releases(name.project)]
        near = difflib.get_close_matches(str(name), names, _SUGGESTIONS, 0.5)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        return f"{nearest}{self._source_name} has of {name.project}: {_shorten(names)}"


def open_catalog(
    source: Source, *, root: bytes, state_dir: Path, now: float, lock_seconds: float = LOCK_SECONDS
) -> VerifiedCatalog:
    """Fetch and verify the newest state that `source` has, starting from the pinned `root`, as of `now`.

    `state_dir` is this client's own; clients may share it, and wait at most `lock_seconds` for one another. Raises
    Untrusted for what does not verify, is expired or older than seen before; NotFound if there is no catalog at all;
    Unavailable, TooLarge, Corrupt as the source or the local disk has it; Refused if `root` is not a TUF root.
    """
    check_root(root, place="the pinned root")
    state = state_dir / fingerprint(root)[:32]
    private.make_directory(state)
    fetcher = SourceFetcher(source)
    with _lock(state / "lock", lock_seconds) as locked:
        floor = Floor(state / "floor")
        updater = _update(fetcher, root, state / "metadata" if locked else None, now)
        seen = Seen(internals.versions(updater), _online_keys(updater))
        floor.raise_to(seen, f"{source.name}/catalog")
    return VerifiedCatalog(updater, fetcher, source.name)


def _update(fetcher: SourceFetcher, root: bytes, directory: Path | None, now: float) -> Updater:
    if directory is not None:
        try:
            return _refresh(fetcher, root, directory, now)
        except OSError:
            # python-tuf's files are a cache: what cannot be used is dropped. The floor is kept elsewhere.
            shutil.rmtree(directory, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix="pacball-catalog-"))
    try:
        updater = _refresh(fetcher, root, temporary, now)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise unavailable(error, temporary) from error
        raise
    # Lines are cached in it for as long as the updater lives.
    weakref.finalize(updater, shutil.rmtree, temporary, ignore_errors=True)
    return updater


def _refresh(fetcher: SourceFetcher, root: bytes, directory: Path, now: float) -> Updater:
    config = UpdaterConfig(
        max_root_rotations=METADATA_LIMITS.root_rotations,
        root_max_length=METADATA_LIMITS.root_bytes,
        timestamp_max_length=METADATA_LIMITS.timestamp_bytes,
        snapshot_max_length=METADATA_LIMITS.snapshot_bytes,
        targets_max_length=METADATA_LIMITS.targets_bytes,
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with pacball_errors(fetcher):
        updater = Updater(str(directory), BASE_URL, fetcher=fetcher, config=config, bootstrap=root)
        internals.set_time(updater, now)
        updater.refresh()
    return updater


def _online_keys(updater: Updater) -> tuple[str, ...]:
    roles = internals.trusted(updater).root.roles
    return tuple(sorted({keyid for role in ("snapshot", "timestamp") for keyid in roles[role].keyids}))


@contextmanager
def _reading(fetcher: SourceFetcher) -> Iterator[None]:
    try:
        with pacball_errors(fetcher):
            yield
    except OSError as error:
        # Never NotFound: that a local file is gone says nothing about the catalog.
        message = f"the local copy of the catalog cannot be used: {error.strerror}"
        raise Unavailable(
            message, place=fetcher.place, hint="check the disk of the state directory, and try again"
        ) from error


@contextmanager
def _lock(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock on `path`: True; False if that fails for `seconds` or locks do not work there. It only saves work."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unavailable(error, path) from error
    try:
        yield _try_lock(descriptor, seconds)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, seconds: float) -> bool:
    for attempt in range(int(seconds / _LOCK_POLL_SECONDS) + 1):
        if attempt:
            time.sleep(_LOCK_POLL_SECONDS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return False
        return True
    return False


def _shorten(names: list[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

"""Examination: everything that `pacball doctor` looks at: this machine, an install root, and sources up to their catalogs.

Sources are examined at the same time, each in a thread that nobody waits for in the end, so that the whole is bounded in time
whatever hangs. Nothing is changed: the catalog is verified with a copy of what this user has seen before.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread

from paccli.anchors import Candidate, find_anchor
from paccli.network import limits_of, surroundings_of
from paccli.options import TrustOptions
from paccli.output import Output, date
from paccli.places import config_dir, roots_dirs, state_dir, system_config_dir
from paccli.scopes import examine_scope, is_scope
from paccli.settings import CONFIG_FILE, Settings
from pacmirror.base_url import parse_base_url
from pacmirror.examine import Examination, examine_source, measure_speed
from pacmirror.source import HttpSource
from pacmirror.threads import start_thread
from pacmirror.tls import make_context
from pacmirror.tokens import read_token
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge
from pacstore.finding import Finding, Level, failed
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS, MIB
from pacstore.marker import check_marker
from pacstore.mounts import file_system, mounts
from pacstore.placement import largest_pack
from pacstore.release import Release
from pacstore.source import PackRange, Source
from pacstore.storage import STORE_MARKER, DocumentKind, document_path
from pacstore.trust.client import VerifiedCatalog, open_catalog
from pacstore.trust.pins import fingerprint, read_pins
from pacstore.trust.targets import CatalogRelease

SOURCE_SECONDS = 48.0
TOTAL_SECONDS = 55.0
_SOON_SECONDS = 2 * 86_400.0
_PLACEMENT_BYTES = 8 * MIB
Tell = Callable[[Finding], None]


@dataclass(frozen=True)
class Question:
    """What is to be found out: with which settings, which trust, and for which release, if for one."""

    settings: Settings
    trust: TrustOptions
    release: Release | None
    output: Output


def examine_machine(settings: Settings) -> Iterator[Finding]:
    """Configuration, pinned roots, authorities, tokens and the user's state."""
    looked_at = [directory / CONFIG_FILE for directory in (system_config_dir(), config_dir())]
    found = [str(path) for path in settings.files]
    text = f"read from {' and '.join(found)}" if found else f"there is none: neither {looked_at[0]} nor {looked_at[1]}"
    yield Finding("configuration", Level.OK, text, values={"files": found})
    yield from _passwords(settings)
    yield _pins(settings)
    yield from _certificates(settings)
    yield from _tokens(settings.tokens)
    yield _state(state_dir())


def _passwords(settings: Settings) -> Iterator[Finding]:
    """Files with a proxy's password that others can read."""
    keys = {"proxy.http": settings.http_proxy, "proxy.https": settings.https_proxy}
    for file in {settings.origin(key) for key, value in keys.items() if value and "@" in value} & set(
        map(str, settings.files)
    ):
        with suppress(OSError):
            if os.stat(file).st_mode & 0o044:
                text = f"{file} has a proxy's password, and others can read it"
                hint = "keep it in ~/.config/pacball/config.toml of who installs, with mode 600"
                yield Finding("configuration", Level.WARN, text, hint, {"file": file})


def _pins(settings: Settings) -> Finding:
    directories = roots_dirs()
    try:
        count = len(read_pins(directories))
    except PacballError as error:
        return failed("pinned roots", error)
    where = ", ".join(map(str, directories))
    text = f"{count} in {where}" if directories else "there is no directory of pinned roots"
    if settings.root_keys:
        text = f"{settings.root_keys} is pinned for every source ({settings.origin('root_keys')}); besides, {text}"
    return Finding("pinned roots", Level.OK, text, values={"count": count, "root_keys": settings.root_keys})


def _certificates(settings: Settings) -> Iterator[Finding]:
    named = settings.ca_file
    try:
        before = make_context(None).cert_store_stats()["x509_ca"]
        count = make_context(Path(named) if named else None).cert_store_stats()["x509_ca"]
    except PacballError as error:
        yield failed("authorities", error)
        return
    values = {"system": before, "ca_file": named, "authorities": count}
    more = f", and {count - before} in {named}" if named else ""
    variable = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), "")
    whose = f"by {variable}" if variable else "by this system"
    text = f"{before} certificate authorities are trusted {whose}{more}"
    # A directory of them is read only when one is looked for.
    none = not count and not variable
    hint = "install the package ca-certificates, or name a ca_file in config.toml" if none else ""
    yield Finding("authorities", Level.WARN if none else Level.OK, text, hint, values)


def _tokens(tokens: Mapping[str, str]) -> Iterator[Finding]:
    for base_url, file in tokens.items():
        try:
            parse_base_url(base_url)
            read_token(Path(file))
        except PacballError as error:
            yield failed("tokens", error)
        else:
            yield Finding("tokens", Level.OK, f"{file} has one for {base_url}", values={"url": base_url, "file": file})


def _state(directory: Path) -> Finding:
    """Whether what is seen of catalogs can be remembered. Only looked at: that it is written to is for installations."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    kind = file_system(existing, mounts())
    values = {"directory": str(directory), "file_system": kind or None}
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        on = f", on a file system of the kind {kind}" if kind else ""
        return Finding("state", Level.OK, f"{directory} can be written to{on}", values=values)
    hint = "set XDG_STATE_HOME to a directory of this user's own"
    return Finding(
        "state", Level.FAIL, f"{directory} cannot be written to, so no catalog can be remembered", hint, values
    )


def examine_all(sources: Sequence[str], question: Question) -> Iterator[tuple[str, Finding]]:
    """What there is to say of each source, in their order. Ends within TOTAL_SECONDS."""
    began = time.monotonic()
    queues = [_start(where, question, until=began + SOURCE_SECONDS) for where in sources]
    for where, findings in zip(sources, queues, strict=True):
        while True:
            try:
                finding = findings.get(timeout=max(began + TOTAL_SECONDS - time.monotonic(), 0.01))
            except queue.Empty:
                yield where, Finding("time", Level.FAIL, "its examination did not come to an end", "try it alone")
                break
            if finding is None:
                break
            yield where, finding


def _start(where: str, question: Question, *, until: float) -> queue.SimpleQueue[Finding | None]:
    findings: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            if is_scope(where):
                examine_scope(where, question.release, findings.put)
            elif "://" in where:
                asyncio.run(_examine_url(where, question, until, findings.put))
            else:
                _examine_directory(Path(where), question, findings.put)
        except PacballError as error:
            findings.put(failed("source", error))
        except OSError as error:
            findings.put(Finding("source", Level.FAIL, f"could not be examined: {error.strerror or error}"))
        except Exception as error:  # noqa: BLE001 - what ends without a finding would look well
            text = f"a fault in pacball: {type(error).__name__}: {error}"
            findings.put(Finding("source", Level.FAIL, text, "please report it"))
        finally:
            findings.put(None)

    Thread(target=run, name="pacball-doctor", daemon=True).start()
    return findings


@dataclass
class _Noting:
    """Hands findings on, and remembers whether one of them was a failure."""

    tell: Tell
    names: list[str] = field(default_factory=list)

    def put(self, finding: Finding) -> None:
        self.tell(finding)
        if finding.level is Level.FAIL:
            self.names.append(finding.step)


async def _examine_url(where: str, question: Question, until: float, tell: Tell) -> None:
    surroundings = surroundings_of(question.settings)
    noting = _Noting(tell)
    async for finding in examine_source(where, surroundings, until=until):
        noting.put(finding)
    if set(noting.names) - {"ranges", "clock"}:
        return
    limits = replace(
        limits_of(question.settings), attempts=1, connect_seconds=5.0, stall_seconds=8.0, answer_seconds=10.0
    )

    def look() -> PackRange | None:
        with closing(HttpSource(where, limits=limits, surroundings=surroundings)) as source:
            return _examine_catalog(source, None, question, tell)

    pack = await start_thread(look, name="pacball-catalog")
    if pack is not None and "ranges" not in noting.names:
        base_url = parse_base_url(where)
        one = Examination(base_url, surroundings.access(base_url), until)
        for finding in await measure_speed(one, pack):
            tell(finding)


def _examine_directory(store: Path, question: Question, tell: Tell) -> None:
    if not store.is_dir():
        tell(Finding("store", Level.FAIL, f"{store} is no directory", "name a store directory or an http(s) URL"))
        return
    with closing(DirectorySource(store)) as source:
        check_marker(source.read(STORE_MARKER, limit=LIMITS.store_marker_bytes), f"{store}/{STORE_MARKER}")
        tell(Finding("store", Level.OK, "is a store directory"))
        _examine_catalog(source, store, question, tell)


def _examine_catalog(source: Source, store: Path | None, question: Question, tell: Tell) -> PackRange | None:
    """Verify the catalog and look for the release; a pack to measure the speed with, if there is one."""
    try:
        anchor = find_anchor([Candidate(source, store)], question.trust, question.settings, question.output)
    except PacballError as error:
        tell(failed("trust", error))
        return None
    shown = fingerprint(anchor.root)
    values = {"mode": str(anchor.mode), "root": shown}
    tell(Finding("trust", Level.OK, f"the root {shown[:16]}... is trusted ({_MODES[anchor.mode]})", values=values))
    try:
        with _remembering(shown) as state:
            notes: list[str] = []
            as_of, now = question.trust.as_of_seconds(), time.time()
            catalog = open_catalog(source, root=anchor.root, state_dir=state, now=now, as_of=as_of, warn=notes.append)
            tell(_catalog(catalog, now))
            entry = _release(catalog, question.release, source, tell)
            return _pack(source, entry) if entry is not None else None
    except PacballError as error:
        tell(failed("catalog", error))
    return None


_MODES = {
    "pinned": "pinned",
    "first-use": "since it was first used",
    "local": "as this user's own store",
    "insecure": "--insecure",
}


@contextmanager
def _remembering(root: str) -> Iterator[Path]:
    """A directory with a copy of what this user remembers of the catalog of that root."""
    with tempfile.TemporaryDirectory(prefix="pacball-doctor-") as name:
        with suppress(OSError, shutil.Error):
            shutil.copytree(state_dir() / "trust" / root[:32], Path(name) / root[:32])
        yield Path(name)


def _catalog(catalog: VerifiedCatalog, now: float) -> Finding:
    signed = f", signed {_ago(now - catalog.signed_at)}" if catalog.signed_at is not None else ""
    values = {
        "version": catalog.version,
        "signed": catalog.signed_at,
        "expires": catalog.expires,
        "stale": bool(catalog.stale),
    }
    if catalog.stale:
        hint = (
            "tell its operator to run pacball trust refresh, or use another source; and check the clock of this machine"
        )
        return Finding("catalog", Level.FAIL, f"version {catalog.version}{signed}: {catalog.stale}", hint, values)
    text = f"verified: version {catalog.version}{signed}, valid until {date(catalog.expires)}"
    if catalog.expires - now < _SOON_SECONDS:
        return Finding("catalog", Level.WARN, text, "tell its operator to run pacball trust refresh", values)
    return Finding("catalog", Level.OK, text, values=values)


def _ago(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days ago" if seconds >= 86_400 else f"{max(seconds, 0) / 3600:.1f} h ago"


def _release(catalog: VerifiedCatalog, name: Release | None, source: Source, tell: Tell) -> CatalogRelease | None:
    """The release that was asked for, or any, the last that was published."""
    if name is None:
        try:
            entries = [one for one in catalog.releases() if one.withdrawal is None]
        except PacballError as error:
            tell(failed("releases", error))
            return None
        tell(Finding("releases", Level.OK, f"{len(entries):,} releases", values={"count": len(entries)}))
        return max(entries, key=lambda one: one.published, default=None)
    entry = catalog.release(name)
    tell(_held(entry, source))
    return entry


def _held(entry: CatalogRelease, source: Source) -> Finding:
    path = document_path(DocumentKind.HOLDINGS, str(entry.release))
    if entry.withdrawal is not None:
        return Finding(
            "release", Level.FAIL, f"{entry.release} was withdrawn: {entry.withdrawal.reason}", "install another one"
        )
    try:
        data = source.read(path, limit=LIMITS.holdings_bytes)
        held = Holdings.parse(data, place=f"{source.name}/{path}")
    except NotFound:
        text = f"{entry.release} is in the catalog, but not whole at this source"
        return Finding(
            "release", Level.FAIL, text, "use another source, or wait until it has been copied here", {"held": False}
        )
    except (Corrupt, TooLarge) as error:
        return failed("release", error, held=None)
    values = {"held": True, "placement": held.placement_number, "placement_in_catalog": entry.placement_number}
    if held.placement_number != entry.placement_number:
        text = (
            f"{entry.release} is here with placement {held.placement_number}; the catalog has {entry.placement_number}"
        )
        return Finding("release", Level.WARN, text, "this source is being updated, or is behind", values)
    return Finding("release", Level.OK, f"{entry.release} is here, whole", values=values)


def _pack(source: Source, entry: CatalogRelease) -> PackRange | None:
    """Some large pack, to measure the speed with."""
    if entry.placement.length > _PLACEMENT_BYTES:
        return None
    path = document_path(DocumentKind.PLACEMENT, f"{entry.release}.{entry.placement_number}")
    try:
        data = source.read(path, limit=entry.placement.length)
        return largest_pack(data, place=path) if entry.placement.matches(data) else None
    except PacballError:
        return None

"""Opening what `--from` names: a store directory or a URL, and its catalog, verified.

The root that is trusted is, in this order: --root-keys; `root_keys` of config.toml; the one in a directory of pinned roots
that is this source's; for a store directory which only this user and root can change, its own; the one that was trusted on
first use. --insecure goes before all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from paccli.options import TrustOptions
from paccli.output import Output
from paccli.places import roots_dirs, state_dir
from paccli.settings import Settings, load_settings
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, Refused, Untrusted
from pacstore.install.trust import Mode, Trust
from pacstore.limits import LIMITS
from pacstore.marker import check_marker
from pacstore.release import Release
from pacstore.source import Source
from pacstore.storage import STORE_MARKER
from pacstore.trust import private
from pacstore.trust.client import VerifiedCatalog, open_catalog, open_insecurely
from pacstore.trust.metadata import METADATA_LIMITS
from pacstore.trust.ownership import stranger
from pacstore.trust.pins import Pins, check_root, fetch_root, find_pin, fingerprint, read_pins
from pacstore.trust.targets import CatalogRelease


@dataclass(frozen=True)
class Anchor:
    """The root that is trusted for a source, and why."""

    root: bytes
    mode: Mode


@dataclass(frozen=True)
class Opened:
    """A source and what verifies it. `open` fetches and verifies its catalog once more."""

    source: Source
    anchor: Anchor
    as_of: float | None
    catalog: VerifiedCatalog
    open: Callable[[], VerifiedCatalog]

    @property
    def root(self) -> bytes:
        """The root that is trusted."""
        return self.anchor.root

    @property
    def trust(self) -> Trust:
        """Why what was read from the catalog so far is believed."""
        return Trust(
            mode=self.anchor.mode,
            root=fingerprint(self.anchor.root),
            catalog_version=self.catalog.version,
            as_of=self.as_of,
            stale=bool(self.catalog.stale),
        )

    def refresh(self, release: Release) -> CatalogRelease:
        """Ask the catalog again."""
        return self.open().release(release)


@contextmanager
def opening(where: str | None, trust: TrustOptions, output: Output) -> Iterator[Opened]:
    """The source named `where`, or the configured one, with its catalog; closed with the context.

    What the user must know of an expired catalog is told as it is read, and each thing once. Raises Untrusted when no root
    is pinned for the source, and Refused, NotFound, Corrupt or Unavailable for what cannot be opened.
    """
    trust.check()
    as_of = trust.as_of_seconds()
    settings = load_settings()
    where = where or next(iter(settings.sources), None)
    if not where:
        raise Refused(
            "no source is given", place="--from", hint="name a store directory or URL, or set sources in config.toml"
        )
    store = None if "://" in where else Path(where)
    with closing(_source(where, store, settings)) as source:
        _check_store(source)
        anchor = _anchor(source, store, trust, settings, output)
        warn = _once(output)

        def open_again() -> VerifiedCatalog:
            if anchor.mode is Mode.INSECURE:
                return open_insecurely(source, root=anchor.root, now=time.time())
            state = state_dir() / "trust"
            return open_catalog(source, root=anchor.root, state_dir=state, now=time.time(), as_of=as_of, warn=warn)

        yield Opened(source, anchor, as_of, open_again(), open_again)


def _once(output: Output) -> Callable[[str], None]:
    told: set[str] = set()

    def warn(message: str) -> None:
        if message not in told:
            told.add(message)
            output.warn(message)

    return warn


def _source(where: str, store: Path | None, settings: Settings) -> Source:
    if store is not None:
        if not store.is_dir():
            raise NotFound("is no directory", place=where, hint="name a store directory or an http(s) URL")
        return DirectorySource(store)
    # aiohttp takes longer to import than a local command to run.
    from paccli.network import limits_of, surroundings_of  # noqa: PLC0415
    from pacmirror.source import HttpSource  # noqa: PLC0415

    return HttpSource(where, limits=limits_of(settings), surroundings=surroundings_of(settings))


def _check_store(source: Source) -> None:
    try:
        data = source.read(STORE_MARKER, limit=LIMITS.store_marker_bytes)
    except NotFound:
        raise NotFound("is not a pacball store", place=source.name, hint="check the path or URL") from None
    try:
        check_marker(data, f"{source.name}/{STORE_MARKER}")
    except Corrupt as error:
        raise Corrupt(f"is not a pacball store: {STORE_MARKER} {error.message}", place=source.name,
                      hint="check the path or URL") from error  # fmt: skip


def _anchor(source: Source, store: Path | None, trust: TrustOptions, settings: Settings, output: Output) -> Anchor:
    if trust.insecure:
        return _insecure(source, output)
    pinned = trust.root_keys or (Path(settings.root_keys) if settings.root_keys else None)
    if pinned is not None:
        return Anchor(_read_root(pinned), Mode.PINNED)
    directories = roots_dirs()
    pin = find_pin(source, read_pins(directories))
    if pin is not None:
        return Anchor(pin.root, Mode.PINNED)
    others = stranger(store, uid=os.geteuid()) if store is not None else ""
    if store is not None and not others:
        return Anchor(fetch_root(source), Mode.LOCAL)
    # A path means the same directory wherever the command is run.
    name = str(store.resolve()) if store is not None else source.name
    return _first_use(source, name, trust, output, directories=directories, others=others)


def _insecure(source: Source, output: Output) -> Anchor:
    root = fetch_root(source)
    output.warn(
        f"--insecure: {source.name} itself says which root to trust (fingerprint {fingerprint(root)}); "
        "not checked are who signed the catalog, whether it has expired, and whether it is older than one seen before"
    )
    return Anchor(root, Mode.INSECURE)


def _read_root(path: Path) -> bytes:
    data = private.read(path, limit=METADATA_LIMITS.root_bytes)
    if data is None:
        raise NotFound("does not exist", place=str(path), hint="give the root.json of the catalog")
    return check_root(data, place=str(path))


def _first_use(
    source: Source, name: str, trust: TrustOptions, output: Output, *, directories: list[Path], others: str
) -> Anchor:
    pins = Pins(state_dir() / "pins")
    known = pins.recall(name)
    if known is not None:
        return Anchor(known, Mode.FIRST_USE)
    root = fetch_root(source)
    if not trust.on_first_use:
        raise _not_pinned(source, root, directories, others)
    pins.remember(name, root)
    output.note(f"pacball: trusting {source.name} from now on; compare its fingerprint: {fingerprint(root)}")
    return Anchor(root, Mode.FIRST_USE)


def _not_pinned(source: Source, root: bytes, directories: list[Path], others: str) -> Untrusted:
    listed = ", ".join(map(str, directories))
    reasons = [f"its first root has the fingerprint {fingerprint(root)}"]
    if directories:
        reasons.append(f"none of the pinned roots in {listed} is one of this source")
    if others:
        reasons.append(f"it cannot vouch for itself, because {others}")
    hint = (
        "compare the fingerprint with what its operator publishes; then give --root-keys FILE, the root.json from there, "
        f"or put that file into {directories[-1] if directories else 'a directory of pinned roots'}; or give "
        "--trust-on-first-use"
    )
    return Untrusted(f"no root is pinned for this source: {'; '.join(reasons)}", place=source.name, hint=hint)

"""Opening what `--from` names: a store directory or a URL, and its catalog, verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from paccli.options import TrustOptions
from paccli.output import Output
from paccli.places import load_settings, state_dir
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, Refused, Untrusted
from pacstore.limits import LIMITS
from pacstore.marker import check_marker
from pacstore.release import Release
from pacstore.source import Source
from pacstore.storage import STORE_MARKER
from pacstore.trust.client import VerifiedCatalog, open_catalog
from pacstore.trust.pins import Pins, check_root, fetch_root, fingerprint
from pacstore.trust.targets import CatalogRelease


@dataclass(frozen=True)
class Opened:
    """A source and what verifies it."""

    source: Source
    root: bytes
    catalog: VerifiedCatalog

    def refresh(self, release: Release) -> CatalogRelease:
        """Ask the catalog again."""
        return _catalog(self.source, self.root).release(release)


@contextmanager
def opening(where: str | None, trust: TrustOptions, output: Output) -> Iterator[Opened]:
    """The source named `where`, or the configured one, with its catalog; closed with the context.

    Raises Untrusted when no root is pinned for a URL, and Refused, NotFound, Corrupt or Unavailable for what cannot be opened.
    """
    settings = load_settings()
    where = where or settings.source
    if not where:
        raise Refused(
            "no source is given", place="--from", hint="name a store directory or URL, or set source in config.toml"
        )
    local = "://" not in where
    with closing(_source(where, local=local)) as source:
        _check_store(source)
        pinned = trust.root_keys or (Path(settings.root_keys) if settings.root_keys else None)
        root = _root(source, pinned, trust, output, local=local)
        yield Opened(source, root, _catalog(source, root))


def _source(where: str, *, local: bool) -> Source:
    if local:
        path = Path(where)
        if not path.is_dir():
            raise NotFound("is no directory", place=where, hint="name a store directory or an http(s) URL")
        return DirectorySource(path)
    from pacmirror.source import HttpSource  # noqa: PLC0415 - aiohttp takes longer to import than a local command to run

    return HttpSource(where)


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


def _root(source: Source, pinned: Path | None, trust: TrustOptions, output: Output, *, local: bool) -> bytes:
    if pinned is not None:
        try:
            return check_root(pinned.read_bytes(), place=str(pinned))
        except FileNotFoundError:
            raise NotFound("does not exist", place=str(pinned), hint="give the root.json of the catalog") from None
    if local:
        return fetch_root(source)
    pins = Pins(state_dir() / "pins")
    known = pins.recall(source.name)
    if known is not None:
        return known
    if not trust.on_first_use:
        hint = "give --root-keys FILE, the root.json that its operator publishes, or --trust-on-first-use"
        raise Untrusted("no root is pinned for this source", place=source.name, hint=hint)
    root = fetch_root(source)
    pins.remember(source.name, root)
    output.note(f"pacball: trusting {source.name} from now on; compare its fingerprint: {fingerprint(root)}")
    return root


def _catalog(source: Source, root: bytes) -> VerifiedCatalog:
    return open_catalog(source, root=root, state_dir=state_dir() / "trust", now=time.time())

"""Opening what `--from` names: a store directory, a URL or a scope of Rucio, or several of them, and their catalog, verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from paccli.anchors import Anchor, Candidate, check_shown, find_anchor
from paccli.catalogs import Catalogs, Warn
from paccli.options import TrustOptions
from paccli.output import Output, date
from paccli.places import state_dir
from paccli.scopes import find_located, is_scope
from paccli.settings import Settings, load_settings
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, Unavailable, Untrusted
from pacstore.install.trust import Mode, Trust
from pacstore.limits import LIMITS
from pacstore.marker import check_marker
from pacstore.release import Release
from pacstore.source import Source
from pacstore.storage import STORE_MARKER
from pacstore.trust.client import VerifiedCatalog, open_catalog, open_insecurely
from pacstore.trust.pins import fingerprint
from pacstore.trust.remembered import remembered
from pacstore.trust.targets import CatalogRelease

if TYPE_CHECKING:
    from pacmirror.mirrors import MirrorList
    from pacmirror.part import Part

_MOST_SOURCES = 100
T = TypeVar("T")


@dataclass
class Opened:
    """A source, and what verifies it. `catalog` is that of the source named `catalog_of`, which may be one of several."""

    source: Source
    anchor: Anchor
    as_of: float | None
    catalog_of: str
    catalog: VerifiedCatalog
    _catalogs: Catalogs = field(repr=False)
    _several: bool = False
    _scopes: Collection[str] = ()

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

    @property
    def catalog_source(self) -> Source:
        """The source, by itself, whose catalog is used."""
        return self._catalogs.source(self.catalog_of)

    def release(self, release: Release) -> CatalogRelease:
        """The release of that name, from the first catalog that has it, preferably a fresh one. Raises as the catalog does."""
        return self.first(lambda catalog: catalog.release(release))

    def first(self, need: Callable[[VerifiedCatalog], T]) -> T:
        """What is needed of the catalog; of several, of the first that has it, which is the catalog from then on."""
        try:
            if not self._several or not self.catalog.stale:
                return need(self.catalog)
        except PacballError:
            if not self._several:
                raise
        try:
            self.catalog_of, self.catalog, value = self._catalogs.first(need)
        except (Untrusted, Unavailable) as error:
            raise self._advised(error) from error
        return value

    def _advised(self, error: Untrusted | Unavailable) -> PacballError:
        """What else may be done where the catalog has expired that a release was registered with: nobody will sign that anew."""
        signed_at = self.catalog.signed_at
        if self.catalog_of not in self._scopes or not self.catalog.stale or self.as_of is not None or signed_at is None:
            return error
        advice = f"where nothing newer can be had, have it judged as of when it was signed: --as-of {date(signed_at)}"
        kind = Untrusted if isinstance(error, Untrusted) else Unavailable
        return kind(error.message, place=error.place, hint="; ".join(filter(None, (error.hint, advice))))

    def refresh(self, release: Release) -> CatalogRelease:
        """Ask all catalogs again for a release; that with the latest placement."""
        return self._catalogs.best(lambda catalog: catalog.release(release), lambda entry: entry.placement_number)


@contextmanager
def opening(
    where: Sequence[str] | None,
    trust: TrustOptions,
    output: Output,
    *,
    limit_rate: int | None = None,
    releases: Sequence[Release] = (),
) -> Iterator[Opened]:
    """The sources named `where`, or the configured ones, seen as one, with its catalog; closed with the context.

    `limit_rate`: bytes a second, for all of them together. `releases`: those that are asked for, as far as that is known: of a
    scope of Rucio nothing else is there but its catalog. What the user must know of an expired catalog is told as it is
    read, and each thing once. Raises Untrusted when no root is pinned for the source, and Refused, NotFound, Corrupt or
    Unavailable for what cannot be opened.
    """
    trust.check()
    as_of = trust.as_of_seconds()
    settings = load_settings()
    limit_rate = limit_rate or settings.rate_bytes_per_second
    names = _checked_names(split_names(where) or list(settings.sources))

    def open_one(source: Source, warn: Warn) -> VerifiedCatalog:
        if anchor.mode is Mode.INSECURE:
            return open_insecurely(source, root=anchor.root, now=time.time())
        state = state_dir() / "trust"
        try:
            return open_catalog(source, root=anchor.root, state_dir=state, now=time.time(), as_of=as_of, warn=warn)
        except Untrusted as error:
            kept = remembered(source, root=anchor.root, state_dir=state) if source.name in scopes else None
            if kept is None:
                raise
            catalog = open_catalog(kept, root=anchor.root, state_dir=state, now=time.time(), as_of=as_of, warn=warn)
            warn(f"{source.name}: its catalog is not used, but the newest that was seen here: {error.message}")
            return catalog

    scopes: Collection[str] = ()
    with ExitStack() as stack:
        if len(names) == 1 and not is_scope(names[0]):
            source = stack.enter_context(closing(_source(names[0], limit_rate, settings)))
            _check_store(source)
            anchor = find_anchor([Candidate(source, _store(names[0]))], trust, settings, output)
            catalogs, several = Catalogs(lambda: [source], open_one, output), False
        else:

            def examine(candidate: Candidate) -> None:
                _check_store(candidate.source)
                check_shown(candidate, anchor, trust)

            listed = _join(names, releases, limit_rate, examine, settings, output)
            scopes = listed.scopes.keys()
            source = joined = stack.enter_context(closing(listed.sources))
            anchor = find_anchor(list(map(listed.candidate, joined.unexamined())), trust, settings, output)
            # Bundles are fetched when something is asked of them.
            joined.examine(but=listed.scopes)
            catalogs, several = Catalogs(joined.singles, open_one, output), True
        catalog_of, catalog, _ = catalogs.first(lambda _: None)
        yield Opened(source, anchor, as_of, catalog_of, catalog, catalogs, several, scopes)


@contextmanager
def opening_packs(
    where: Sequence[str], output: Output, *, limit_rate: int | None = None, releases: Sequence[Release] = ()
) -> Iterator[Source]:
    """The sources named `where`, seen as one, for who knows what each byte must be: no catalog of theirs is looked at.

    `releases`: as for `opening`. Raises Refused, NotFound, Corrupt or Unavailable for what cannot be opened, or is no store.
    """
    settings = load_settings()
    limit_rate = limit_rate or settings.rate_bytes_per_second
    names = _checked_names(split_names(where))
    with ExitStack() as stack:
        if len(names) == 1 and not is_scope(names[0]):
            single = stack.enter_context(closing(_source(names[0], limit_rate, settings)))
            _check_store(single)
            yield single
            return
        listed = _join(names, releases, limit_rate, lambda candidate: _check_store(candidate.source), settings, output)
        stack.enter_context(closing(listed.sources))
        listed.sources.examine(but=listed.scopes)
        yield listed.sources


def _checked_names(names: list[str]) -> list[str]:
    if not names:
        hint = "name a store directory or URL, or set sources in config.toml"
        raise Refused("no source is given", place="--from", hint=hint)
    if len(names) > _MOST_SOURCES:
        raise Refused(f"names {len(names)} sources", place="--from", hint=f"name at most {_MOST_SOURCES}")
    return names


def split_names(where: Sequence[str] | None) -> list[str]:
    """The single names in lists with commas, each once. A directory that has a comma in its name is one name."""
    names: list[str] = []
    for text in where or ():
        parts = [text] if "," in text and Path(text).is_dir() else text.split(",")
        names += [part.strip() for part in parts if part.strip()]
    return list(dict.fromkeys(names))


def _store(name: str) -> Path | None:
    """The directory that a source's name means, if it is not a URL."""
    return None if "://" in name else Path(name)


def _source(name: str, limit_rate: int | None, settings: Settings) -> Source:
    """One source by itself."""
    store = _store(name)
    if store is not None and not store.is_dir():
        raise NotFound("is no directory", place=name, hint="name a store directory or an http(s) URL")
    if limit_rate is None and store is not None:
        return DirectorySource(store)
    from pacmirror.throttle import Throttle  # noqa: PLC0415

    throttle = Throttle(limit_rate) if limit_rate is not None else None
    if store is None:
        # aiohttp takes longer to import than a local command to run.
        from paccli.network import limits_of, surroundings_of  # noqa: PLC0415
        from pacmirror.source import HttpSource  # noqa: PLC0415

        return HttpSource(name, limits=limits_of(settings), surroundings=surroundings_of(settings), throttle=throttle)
    from pacmirror.mirrors import MirrorList  # noqa: PLC0415
    from pacmirror.part import BlockingPart  # noqa: PLC0415

    return MirrorList([BlockingPart(DirectorySource(store), throttle=throttle)], throttle=throttle)


@dataclass(frozen=True)
class _Listed:
    """Several sources as one. `stores`: the directories of those that are one, `scopes`: for the datasets of Rucio, by name."""

    sources: MirrorList
    stores: Mapping[str, Path]
    scopes: Mapping[str, str]

    def candidate(self, source: Source) -> Candidate:
        """One of them, by itself."""
        return Candidate(source, self.stores.get(source.name), self.scopes.get(source.name, ""))


def _join(
    names: Sequence[str],
    releases: Sequence[Release],
    limit_rate: int | None,
    examine: Callable[[Candidate], None],
    settings: Settings,
    output: Output,
) -> _Listed:
    """Several sources as one, each of which has to pass `examine`; what Rucio has comes after the others."""
    from paccli.network import list_limits_of, surroundings_of  # noqa: PLC0415
    from pacmirror.mirrors import MirrorList  # noqa: PLC0415
    from pacmirror.part import BlockingPart  # noqa: PLC0415
    from pacmirror.source import HttpSource  # noqa: PLC0415
    from pacmirror.throttle import Throttle  # noqa: PLC0415

    each, together = list_limits_of(settings)
    surroundings = surroundings_of(settings)

    throttle = Throttle(limit_rate) if limit_rate is not None else None
    parts: list[Part] = []
    stores: dict[str, Path] = {}
    with ExitStack() as undo:
        for name in names:
            store = _store(name)
            if is_scope(name):
                continue
            part: Part
            if store is None:
                part = HttpSource(name, limits=each, surroundings=surroundings, throttle=throttle)
            else:
                part = BlockingPart(DirectorySource(store), throttle=throttle)
                stores[part.name] = store
            undo.callback(part.close)
            parts.append(part)
        located = find_located(
            list(filter(is_scope, names)), releases, limits=each, surroundings=surroundings, throttle=throttle,
            output=output, is_needed=not parts
        )  # fmt: skip
        for part in located.parts:
            undo.callback(part.close)
            parts.append(part)
        listed = _Listed(
            MirrorList(
                parts,
                examine=lambda source: examine(listed.candidate(source)),
                limits=together,
                throttle=throttle,
                files_only=located.documents,
                packs_only=located.packs_only,
            ),
            stores,
            {name: str(address) for name, address in located.addresses.items()},
        )
        located.join(listed.sources)
        undo.pop_all()
    return listed


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

"""Scopes: sources that are scopes of Rucio, `rucio://SCOPE`: it says where releases are. They need the extra `pacball[rucio]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paccli.output import Output
from pacstore.errors import PacballError
from pacstore.finding import Finding, Level

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.located import Located
    from pacmirror.limits import ClientLimits
    from pacmirror.surroundings import Surroundings
    from pacmirror.throttle import Throttle
    from pacstore.release import Release

_SCHEME = "rucio://"
_ANSWER_SECONDS = 60.0
_ATTEMPTS = 3
_TOTAL_SECONDS = 60.0


def is_scope(name: str) -> bool:
    """Whether a source's name means a scope of Rucio."""
    return name.startswith(_SCHEME)


def find_located(
    names: Sequence[str],
    releases: Sequence[Release],
    *,
    limits: ClientLimits,
    surroundings: Surroundings,
    throttle: Throttle | None,
    output: Output,
    is_needed: bool,
) -> Located:
    """What the scopes of these names have of `releases`.

    Raises what Rucio says; where there are other sources, so that nothing of it `is_needed`, the user is told.
    """
    from pacmirror.delivery.rucio.located import Located, locate  # noqa: PLC0415
    from pacmirror.delivery.rucio.lookup import Address  # noqa: PLC0415

    if not names:
        return Located()
    from paccli.commands.rucio import bridging  # noqa: PLC0415

    addresses = list(map(Address.parse, names))
    try:
        with bridging():
            from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue  # noqa: PLC0415

            patience = Patience(answer_seconds=_ANSWER_SECONDS, attempts=_ATTEMPTS, total_seconds=_TOTAL_SECONDS)
            catalogue = RucioCatalogue.connect(patience=patience)
            return locate(
                catalogue, addresses, releases, limits=limits, surroundings=surroundings, throttle=throttle,
                warn=output.warn
            )  # fmt: skip
    except PacballError as error:
        if is_needed:
            raise
        output.warn(f"{', '.join(names)} is left out: {error}")
        return Located()


def examine_scope(name: str, release: Release | None, tell: Callable[[Finding], None]) -> None:
    """What there is to say of a scope: whether Rucio answers, and what it has; of a release, where it may be had.

    Raises what Rucio says. Of the storage nothing is asked: installing tells of each what was the matter.
    """
    from paccli.commands.rucio import bridging  # noqa: PLC0415
    from pacmirror.delivery.rucio.lookup import Address, datasets_of, latest  # noqa: PLC0415
    from pacmirror.delivery.rucio.source import find_replicas  # noqa: PLC0415

    with bridging():
        from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue  # noqa: PLC0415

        address = Address.parse(name)
        catalogue = RucioCatalogue.connect(patience=Patience(answer_seconds=10.0, attempts=1))
        tell(Finding("rucio", Level.OK, f"{catalogue.host} answers, and knows us as {catalogue.account}"))
        found = latest(catalogue, address.scope) if release is None else datasets_of(catalogue, address.scope, release)
        if not found:
            tell(Finding("datasets", Level.FAIL, "no release is registered in it", "pacball rucio register"))
            return
        what = "the last that was registered" if release is None else "to be tried first"
        tell(Finding("datasets", Level.OK, f"{what}: {found[0].did}"))
        replicas = find_replicas(catalogue, found[0].did, expression=address.expression, site=address.site)
        for endpoint in replicas.endpoints():
            count = f"{len(replicas.at[endpoint]):,} of {len(replicas.lengths):,} files"
            tell(Finding("storage", Level.OK, f"{endpoint.name} has {count}, as Rucio says"))
        if not replicas.at or replicas.passed_over:
            text = replicas.why_none() or "there is none with a URL"
            tell(Finding("storage", Level.WARN, f"replicas of no use here: {text}", "see pacball rucio status"))

"""Scopes: sources that are scopes of Rucio, `rucio://SCOPE`: it says where releases are. They need the extra `pacball[rucio]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paccli.output import Output
from pacstore.errors import PacballError

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

    with bridging():
        from pacmirror.delivery.rucio.catalogue import Patience, RucioCatalogue  # noqa: PLC0415

        addresses = list(map(Address.parse, names))
        try:
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

"""Why an installed release was believed: what the history of an install root remembers of it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from pacstore.errors import Refused, printable
from pacstore.install.documents import Refresh
from pacstore.trust.targets import CatalogRelease

Warn = Callable[[str], None]


class Mode(enum.StrEnum):
    """Where the root came from by which the catalog was verified."""

    PINNED = "pinned"
    FIRST_USE = "first-use"
    LOCAL = "local"
    INSECURE = "insecure"


@dataclass(frozen=True)
class Trust:
    """Why a release is believed.

    `root`: the fingerprint of the root that was started from; `catalog_version`: that of the timestamp. `as_of`: the time
    that the user named to judge expiry by, in seconds since 1970, or None. `stale`: whether the catalog had expired.
    """

    mode: Mode
    root: str
    catalog_version: int
    as_of: float | None = None
    stale: bool = False

    def fields(self, release: CatalogRelease) -> dict[str, object]:
        """What the history says of `release`, as JSON."""
        return {**asdict(self), "withdrawn": release.withdrawal is not None}


def check_withdrawn(release: CatalogRelease, *, allowed: bool, warn: Warn) -> None:
    """Raise Refused if `release` was withdrawn; `warn` instead where that is `allowed`."""
    withdrawal = release.withdrawal
    if withdrawal is None:
        return
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(withdrawal.at))
    message = f"was withdrawn at {when}: {printable(withdrawal.reason)}"
    instead = f"install {withdrawal.replaced_by} in its place" if withdrawal.replaced_by is not None else ""
    if allowed:
        warn(f"{release.release} {message}{f'; {instead}' if instead else ''}")
        return
    hint = "; ".join(part for part in (instead, "to install it all the same: --allow-withdrawn") if part)
    raise Refused(message, place=str(release.release), hint=hint)


def checking_withdrawn(refresh: Refresh | None) -> Refresh | None:
    """`refresh`, which raises Refused if what it gives was withdrawn meanwhile."""
    if refresh is None:
        return None

    def checked() -> CatalogRelease:
        release = refresh()
        check_withdrawn(release, allowed=False, warn=lambda _: None)
        return release

    return checked

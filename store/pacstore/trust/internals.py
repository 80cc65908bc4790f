"""What pacball needs of python-tuf's Updater beyond its public interface, in one place.

Two things are missing there. Time: an Updater takes the clock's; pacstore takes time as a parameter, and bundles without
a network are judged as of the day they were made. Listing: an Updater finds one target by its path, but cannot say which
delegated roles, versions or targets there are. All that is read here has been verified by the Updater itself.
`tests/store/test_trust_internals.py` fails when a new version of python-tuf changes what is used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Targets

from pacstore.trust.metadata import at

if TYPE_CHECKING:
    from tuf.ngclient import Updater
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet


def set_time(updater: Updater, now: float) -> None:
    """Let `updater` judge expiry as of `now`, in seconds since 1970. Call it before `refresh`."""
    updater._trusted_set.reference_time = at(now)  # noqa: SLF001


def trusted(updater: Updater) -> TrustedMetadataSet:
    """The verified metadata: after `refresh`, `.root`, `.timestamp`, `.snapshot` and `.targets`."""
    return updater._trusted_set  # noqa: SLF001


def load_delegated(updater: Updater, role: str) -> Targets:
    """The verified metadata of a role that `targets` delegates to, fetched if need be. Raises what `get_targetinfo` does."""
    return updater._load_targets(role, Targets.type)  # noqa: SLF001


def versions(updater: Updater) -> dict[str, int]:
    """The version of every role in the verified state, by role."""
    state = trusted(updater)
    listed = {name.removesuffix(".json"): meta.version for name, meta in state.snapshot.meta.items()}
    return {
        **listed,
        "root": state.root.version,
        "timestamp": state.timestamp.version,
        "snapshot": state.snapshot.version,
    }

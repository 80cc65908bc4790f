"""What pacball needs of python-tuf's Updater beyond its public interface, in one place.

Two things are missing there. Time: an Updater takes the clock's, refuses what has expired, and does not say which version
of what that was; pacball judges expiry itself, of what the Updater has verified otherwise (judge.py). Listing: an Updater
finds one target by its path, but cannot say which delegated roles, versions or targets there are. All that is read here has
been verified by the Updater itself. `tests/store/test_trust_internals.py` fails when a new version of python-tuf changes
what is used here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuf.api.metadata import MetaFile, Root, Signed, Targets

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.ngclient import Updater
    from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet


def ignore_expiry(updater: Updater) -> None:
    """Let nothing be expired for `updater`. Call it before `refresh`, and judge the expiry of what is used afterwards."""
    updater._trusted_set.reference_time = datetime.min.replace(tzinfo=UTC)  # noqa: SLF001


def trusted(updater: Updater) -> TrustedMetadataSet:
    """The verified metadata: after `refresh`, `.root`, `.timestamp`, `.snapshot` and `.targets`."""
    return updater._trusted_set  # noqa: SLF001


def loaded(updater: Updater) -> dict[str, Signed]:
    """All metadata that was used so far, by role."""
    return dict(updater._trusted_set._trusted_set)  # noqa: SLF001


def load_delegated(updater: Updater, role: str) -> Targets:
    """The verified metadata of a role that `targets` delegates to, fetched if need be. Raises what `refresh` does."""
    return updater._load_targets(role, Targets.type)  # noqa: SLF001


def listed(updater: Updater, role: str) -> MetaFile | None:
    """What the snapshot says of a role, or None if it lists no such role."""
    return trusted(updater).snapshot.meta.get(f"{role}.json")


def versions(updater: Updater) -> dict[str, int]:
    """The version of every role in the verified state, by role."""
    state = trusted(updater)
    listed_versions = {name.removesuffix(".json"): meta.version for name, meta in state.snapshot.meta.items()}
    return {
        **listed_versions,
        "root": state.root.version,
        "timestamp": state.timestamp.version,
        "snapshot": state.snapshot.version,
    }


def online_keys(updater: Updater) -> tuple[str, ...]:
    """The ids of the keys that sign snapshot and timestamp, sorted."""
    roles = trusted(updater).root.roles
    return tuple(sorted({keyid for role in ("snapshot", "timestamp") for keyid in roles[role].keyids}))


def root_file(directory: Path, version: int) -> Path:
    """Where an Updater with that directory keeps this version of the root, once it has verified it."""
    return directory / "root_history" / f"{version}.{Root.type}.json"

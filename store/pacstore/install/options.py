"""How an installer works: the sizes that it is tuned by, and the questions that it asks the file system."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pacstore.contain import landlock
from pacstore.contain.running import GRACE_SECONDS, LOG_BYTES, User
from pacstore.install.tree.disk import Free, folds_case, free_space
from pacstore.limits import KIB, MIB


class ActionState(enum.StrEnum):
    """What becomes, or became, of a release's own commands (docs/actions.md)."""

    NONE = "none"
    NOT_RUN = "not_run"
    RUN = "run"
    RUN_BEFORE = "run_before"


@dataclass(frozen=True)
class ActionOptions:
    """How a release's own commands are run: as whom, under which version of Landlock (0 for none), how their end is awaited."""

    user: User
    landlock: int = field(default_factory=landlock.version)
    grace_seconds: float = GRACE_SECONDS
    log_bytes: int = LOG_BYTES


class Share(enum.StrEnum):
    """What equal files of two releases may have in common on disk: nothing, their blocks (where that is possible), all."""

    NONE = "none"
    REFLINK = "reflink"
    HARDLINK = "hardlink"


@dataclass(frozen=True)
class InstallOptions:
    """Everything has a good default.

    `workers`: threads that decode, verify and write. `range_bytes`: about how long a range is at most;
    `unwritten_bytes`: of ranges that have come and are not written yet, at most, if it is more than one; `gap_bytes`: frames of
    one pack that are no further apart are asked for together. `open_directories`: descriptors a thread keeps; `open_files`:
    unfinished files kept open by all of them. `seeds`: of how many installed releases chunks are looked for at most;
    `actions`: how the release's own commands are run, None for not at all.
    `seed_directories`: other directories to look in, which pacball need not have made. `share`: how files that a seed has
    whole may be shared with it; files of fewer than `clone_bytes` are copied rather than cloned.
    `owner`: user and group id that everything installed is given, None for those of the process.
    `free_space` and `folds_case` ask about the file system of an open directory.
    """

    workers: int = 2
    range_bytes: int = 4 * MIB
    unwritten_bytes: int = 12 * MIB
    gap_bytes: int = 256 * KIB
    open_directories: int = 128
    open_files: int = 64
    seeds: int = 8
    seed_directories: tuple[Path, ...] = ()
    share: Share = Share.REFLINK
    clone_bytes: int = 4 * KIB
    switch: bool = True
    actions: ActionOptions | None = None
    owner: tuple[int, int] | None = None
    free_space: Callable[[int], Free] = free_space
    folds_case: Callable[[int], bool] = folds_case


DEFAULTS = InstallOptions()

"""What people say of local trees: directories to take from, and how much releases may share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paccli.settings import SHARES, Settings
from pacstore.errors import NotFound, Refused, printable

if TYPE_CHECKING:
    from pacstore.install.options import Share


def find_seed_directories(given: list[Path] | None, settings: Settings) -> tuple[Path, ...]:
    """The directories of `--seed` and of the settings, each once. A missing one of the settings is no mistake.

    Raises NotFound for one that is `given` and is none: a slip here would cost a whole download.
    """
    return tuple(dict.fromkeys([*check_seed_directories(given), *map(Path, settings.seeds)]))


def check_seed_directories(given: list[Path] | None) -> tuple[Path, ...]:
    """The directories of `--seed`. Raises NotFound for one that is none."""
    for path in given or ():
        if not path.is_dir():
            hint = "name a directory with files of this or another version, or leave it out"
            raise NotFound("is no directory", place=f"--seed {printable(str(path))}", hint=hint)
    return tuple(given or ())


def find_share(given: str | None, settings: Settings) -> Share:
    """The value of `--share`, or that of the settings. Raises Refused."""
    from pacstore.install.options import Share  # noqa: PLC0415

    value = given or settings.share or Share.REFLINK
    if value not in SHARES:
        raise Refused(f"is one of {', '.join(SHARES)}, not {printable(value)}", place="--share")
    return Share(value)

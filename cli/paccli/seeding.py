"""Directories that people name as seeds."""

from __future__ import annotations

from pathlib import Path

from pacstore.errors import NotFound, printable


def find_seed_directories(given: list[Path] | None) -> tuple[Path, ...]:
    """The directories of `--seed`, each once. Raises NotFound for what is none: a slip here would cost a whole download."""
    for path in given or ():
        if not path.is_dir():
            hint = "name a directory with files of this or another version, or leave it out"
            raise NotFound("is no directory", place=f"--seed {printable(str(path))}", hint=hint)
    return tuple(dict.fromkeys(given or ()))

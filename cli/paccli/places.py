"""Where configuration, keys and state are, and what the configuration says.

The system's configuration is in /etc/pacball, or in the directory that the environment variable PACBALL_SYSTEM_CONFIG_DIR
names; the user's in $XDG_CONFIG_HOME/pacball, which is ~/.config/pacball. Either may have:

    config.toml     defaults for options (Settings); the user's override the system's
    roots/*.json    pinned roots, one file each, of any number of catalogs
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from pacstore.durable import wrapped
from pacstore.errors import NotFound, Refused


def system_config_dir() -> Path:
    """The system's configuration: $PACBALL_SYSTEM_CONFIG_DIR, or /etc/pacball."""
    return Path(os.environ.get("PACBALL_SYSTEM_CONFIG_DIR") or "/etc/pacball")


def config_dir() -> Path:
    """The user's configuration: $XDG_CONFIG_HOME/pacball."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pacball"


def state_dir() -> Path:
    """The user's state, such as roots trusted on first use: $XDG_STATE_HOME/pacball."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "pacball"


def roots_dirs() -> list[Path]:
    """The directories of pinned roots that exist: the system's, and the user's."""
    return [path for parent in (system_config_dir(), config_dir()) if (path := parent / "roots").is_dir()]


@dataclass(frozen=True)
class Settings:
    """Defaults for options. `root_keys`: a file with the pinned root; `source`: for --from; `root`: for --root."""

    root_keys: str | None = None
    source: str | None = None
    root: str | None = None


def load_settings() -> Settings:
    """The settings of the system, overridden by those of the user. Raises Refused for what is wrong in them, Unavailable."""
    merged: dict[str, str] = {}
    for directory in (system_config_dir(), config_dir()):
        merged |= _load(directory / "config.toml")
    return Settings(**merged)


def _load(path: Path) -> dict[str, str]:
    try:
        with wrapped(path):
            values = tomllib.loads(path.read_text(encoding="utf-8"))
    except NotFound:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"is not TOML: {error}", place=str(path), hint="correct or remove it") from error
    known = [field.name for field in fields(Settings)]
    for key, value in values.items():
        if key not in known or not isinstance(value, str):
            raise Refused(f"{key} is not a setting, or no text", place=str(path), hint=f"known are {', '.join(known)}")
    return values

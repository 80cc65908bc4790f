"""Where configuration, keys and state are.

The system's configuration is in /etc/pacball, or in the directory that the environment variable PACBALL_SYSTEM_CONFIG_DIR
names; the user's in $XDG_CONFIG_HOME/pacball, which is ~/.config/pacball. Either may have:

    config.toml     defaults for options (settings.py); the user's override the system's
    roots/*.json    pinned roots, one file each, of any number of catalogs
"""

from __future__ import annotations

import os
from pathlib import Path


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

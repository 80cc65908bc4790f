"""Where this user's configuration, keys and state are, and what the configuration says."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from pacstore.errors import Refused

SYSTEM_CONFIG = Path("/etc/pacball/config.toml")


def config_dir() -> Path:
    """The user's configuration: $XDG_CONFIG_HOME/pacball."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pacball"


def state_dir() -> Path:
    """The user's state, such as pinned roots: $XDG_STATE_HOME/pacball."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "pacball"


@dataclass(frozen=True)
class Settings:
    """Defaults for options. `root_keys`: a file with the pinned root; `source`: for --from; `root`: for --root."""

    root_keys: str | None = None
    source: str | None = None
    root: str | None = None


def load_settings() -> Settings:
    """The settings of /etc/pacball/config.toml, overridden by those of the user. Raises Refused for what is wrong in them."""
    merged: dict[str, str] = {}
    for path in (SYSTEM_CONFIG, config_dir() / "config.toml"):
        merged |= _load(path)
    return Settings(**merged)


def _load(path: Path) -> dict[str, str]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"is not TOML: {error}", place=str(path), hint="correct or remove it") from error
    known = [field.name for field in fields(Settings)]
    for key, value in values.items():
        if key not in known or not isinstance(value, str):
            raise Refused(f"{key} is not a setting, or no text", place=str(path), hint=f"known are {', '.join(known)}")
    return values

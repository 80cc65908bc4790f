"""The daemon's configuration as the command line gives it, shown, and run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from paccli.keychain import read_passphrase
from paccli.output import Output
from pacmirror.config import Config
from pacmirror.config_file import Loaded, load_config, shown
from pacmirror.config_rules import check_config, check_files
from pacmirror.serve import serve
from pacmirror.toml_file import Found
from pacstore.store import Store


def load(file: Path | None, options: Mapping[str, tuple[str, object]]) -> Loaded:
    """What `file`, the environment and `options` say: for each key the name of its option, and what was given or None.

    Raises Refused for what is wrong, NotFound or Unavailable for files.
    """
    flags = [Found(key, str(value), option) for key, (option, value) in options.items() if value is not None]
    loaded = load_config(file, environment=os.environ, flags=flags)
    secret = loaded.passphrase_file
    if secret is None:
        return loaded
    return replace(loaded, config=replace(loaded.config, secrets=lambda _: read_passphrase(secret)))


def show(loaded: Loaded, output: Output) -> None:
    """Check everything that can be checked without listening, and show what is in force and where it comes from."""
    config = loaded.config
    _check(config)
    settings = list(shown(loaded))
    for name, value, origin in settings:
        output.text(f"{name} = {value}   [{origin}]")
    if config.may_begin_empty and not config.public.exists():
        output.text("the configuration is sound; the store is made when the daemon starts")
    else:
        Store.open(config.store, writable=False)
        output.text("the configuration is sound")
    output.result({"settings": {name: {"value": value, "origin": origin} for name, value, origin in settings}})


def run(loaded: Loaded, output: Output) -> None:
    """Serve until told to stop."""
    config = loaded.config
    _check(config)
    if not config.may_begin_empty:  # which makes its store, if there is none
        Store.open(config.store, writable=False)

    def ready(url: str) -> None:
        output.text(f"serving {config.store} at {url}")
        output.result({"url": url})
        output.flush()  # whoever started the daemon waits for this line

    serve(config, ready=ready)


def _check(config: Config) -> None:
    check_config(config)
    check_files(config)

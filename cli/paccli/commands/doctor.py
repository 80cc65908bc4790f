"""Commands that look at a site's surroundings and change nothing: config and doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paccli.options import Json
from paccli.output import Output, reporting

if TYPE_CHECKING:
    from paccli.settings import Settings


def config(as_json: Json = False) -> None:
    """Show the settings in force, and where each comes from: config.toml, the environment, or the default."""
    with reporting(as_json=as_json) as output:
        from paccli.settings import load_settings  # noqa: PLC0415

        _print_settings(output, load_settings())


def _print_settings(output: Output, settings: Settings) -> None:
    from paccli.places import config_dir, system_config_dir  # noqa: PLC0415
    from paccli.settings import CONFIG_FILE, shown  # noqa: PLC0415
    from pacstore.errors import printable  # noqa: PLC0415

    looked_at = [directory / CONFIG_FILE for directory in (system_config_dir(), config_dir())]
    for path in looked_at:
        output.text(f"{printable(str(path))}{'' if path in settings.files else ' (is not there)'}")
    values = shown(settings)
    for one in values:
        value = "not set" if one.value is None else one.value
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        output.text(f"{printable(one.key)} = {printable(text)}   [{printable(one.origin)}]")
    output.result(
        {
            "files": [str(path) for path in settings.files],
            "settings": {one.key: {"value": one.value, "origin": one.origin} for one in values},
        }
    )

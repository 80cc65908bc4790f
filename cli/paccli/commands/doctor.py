"""Commands that look at a site's surroundings and change nothing: config and doctor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import AsOf, From, Json, RootKeys, TrustOptions
from paccli.output import Output, reporting

if TYPE_CHECKING:
    from paccli.settings import Settings
    from pacstore.finding import Finding
    from pacstore.release import Release


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


def doctor(
    source: From = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="An install root to examine.")] = None,
    release: Annotated[
        str | None, typer.Option("--release", metavar="RELEASE", help="Whether this release can be had there.")
    ] = None,
    root_keys: RootKeys = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Find out what is wrong between this machine, its install root and its sources. Takes at most a minute.

    Without --from and --root those of the configuration are examined. Exit code 1 if something must be mended. Nothing is
    changed: what is tried under the root is removed again.
    """
    with reporting(as_json=as_json) as output:
        from paccli.settings import load_settings  # noqa: PLC0415
        from paccli.sources import split_names  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release) if release is not None else None
        settings = load_settings()
        where = split_names(source) or list(settings.sources)
        place = root or (Path(settings.root) if settings.root else None)
        report = _Report(output)
        _examine(report, settings, where, place, TrustOptions(root_keys, on_first_use=False, as_of=as_of), name)
        report.end()


def _examine(
    report: _Report,
    settings: Settings,
    sources: list[str],
    root: Path | None,
    trust: TrustOptions,
    release: Release | None,
) -> None:
    from paccli.examination import Question, examine_all, examine_machine  # noqa: PLC0415
    from pacstore.install.root.diagnosis import examine_root  # noqa: PLC0415

    question = Question(settings, trust, release, report.output)
    for finding in examine_machine(settings):
        report.add("this machine", finding)
    if root is not None:
        for finding in examine_root(root, uid=os.geteuid()):
            report.add(f"root {root}", finding)
    for where, finding in examine_all(sources, question):
        report.add(where, finding)
    if not sources:
        report.output.text("no source is configured: name one with --from URL")


class _Report:
    """Prints findings as they come, below what they are about, and counts them."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._began = time.monotonic()
        self._subject = ""
        self._findings: list[tuple[str, Finding]] = []

    def add(self, subject: str, finding: Finding) -> None:
        """Print a finding, and what to do about it."""
        from pacstore.errors import printable  # noqa: PLC0415

        if subject != self._subject:
            self._subject = subject
            self.output.text(printable(subject))
        self.output.text(f"  {finding.level:4}  {finding.step}: {printable(finding.message)}")
        if finding.hint:
            self.output.text(f"        -> {printable(finding.hint)}")
        self.output.flush()
        self._findings.append((subject, finding))

    def end(self) -> None:
        """The sum of it. Exits with 1 if something failed."""
        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.output import fields  # noqa: PLC0415
        from pacstore.finding import Level  # noqa: PLC0415

        count = {level: sum(finding.level is level for _, finding in self._findings) for level in Level}
        failures, warnings = count[Level.FAIL], count[Level.WARN]
        verdict = "all is well" if not failures + warnings else f"{failures} to be mended, {warnings} to be looked at"
        self.output.text(verdict)
        self.output.result(
            {
                "healthy": not failures,
                "failures": failures,
                "warnings": warnings,
                "seconds": round(time.monotonic() - self._began, 3),
                "findings": [{"subject": subject, **fields(finding)} for subject, finding in self._findings],
            }
        )
        if failures:
            raise SystemExit(DAMAGED)

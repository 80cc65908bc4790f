"""The command that installs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli.options import (
    ActionsAs,
    AsOf,
    FirstUse,
    From,
    Insecure,
    Json,
    LimitRate,
    Progressing,
    ProgressMode,
    Quiet,
    ReleaseName,
    RootKeys,
    TrustOptions,
)
from paccli.output import Output, fields, print_sources, reporting, size
from pacstore.errors import printable

if TYPE_CHECKING:
    from paccli.sources import Opened
    from pacstore.install.installation import Installed
    from pacstore.install.options import InstallOptions
    from pacstore.install.plan import Plan
    from pacstore.release import Release


def install(
    release: ReleaseName,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The install root.")] = None,
    source: From = None,
    root_keys: RootKeys = None,
    trust_on_first_use: FirstUse = False,
    as_of: AsOf = None,
    insecure: Insecure = False,
    allow_withdrawn: Annotated[
        bool, typer.Option("--allow-withdrawn", help="Install the release even if it was withdrawn.")
    ] = False,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="USER[:GROUP]", help="Give all files to this user. Needs root.")
    ] = None,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Whether current is to lead to the release afterwards.")
    ] = True,
    seed: Annotated[
        list[Path] | None,
        typer.Option("--seed", metavar="DIR", help="Also take from this directory, whoever made it. Repeatable."),
    ] = None,
    run_actions: Annotated[
        bool, typer.Option("--run-actions", help="Run the release's own commands (its pacball.toml) before the switch.")
    ] = False,
    actions_as: ActionsAs = None,
    limit_rate: LimitRate = None,
    share: Annotated[
        str | None,
        typer.Option(
            "--share",
            metavar="none|reflink|hardlink",
            help="What equal files of releases may have in common on disk: nothing; their blocks, where the file system can "
            "(the default); or, as hard links, everything.",
        ),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Only say what would be done.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Install a release under a root and switch to it; what was interrupted continues."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.owners import find_owner, find_user  # noqa: PLC0415
        from paccli.seeding import find_seed_directories, find_share  # noqa: PLC0415
        from paccli.settings import load_settings  # noqa: PLC0415
        from paccli.sources import opening  # noqa: PLC0415
        from pacstore.amounts import parse_rate  # noqa: PLC0415
        from pacstore.errors import Refused  # noqa: PLC0415
        from pacstore.install.options import ActionOptions, InstallOptions  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        settings = load_settings()
        options = InstallOptions(
            owner=find_owner(settings.owner if owner is None else owner),
            switch=switch,
            seed_directories=find_seed_directories(seed, settings),
            share=find_share(share, settings),
            actions=ActionOptions(find_user(actions_as or settings.actions_as)) if run_actions else None,
        )
        where = root or Path(settings.root or "")
        if where == Path():
            raise Refused(
                "no install root is given", place="--root", hint="name a directory, or set root in config.toml"
            )
        rate = parse_rate(limit_rate, place="--limit-rate") if limit_rate is not None else None
        believed = TrustOptions(root_keys, trust_on_first_use, as_of, insecure)
        with opening(source, believed, output, limit_rate=rate, releases=[name]) as opened:
            _install(opened, name, where, output, options, allowed=allow_withdrawn, plan_only=plan_only, quiet=quiet)


def _install(
    opened: Opened,
    name: Release,
    where: Path,
    output: Output,
    options: InstallOptions,
    *,
    allowed: bool,
    plan_only: bool,
    quiet: bool,
) -> None:
    """Install from an opened source, or say what would be done; withdrawn releases too if that is `allowed`."""
    from paccli.progress import showing  # noqa: PLC0415
    from pacstore.install import installation as installer  # noqa: PLC0415
    from pacstore.source import states_of  # noqa: PLC0415

    entry = opened.release(name)
    trust = opened.trust
    refresh = lambda: opened.refresh(name)  # noqa: E731
    with showing(output, quiet=quiet, sources=lambda: states_of(opened.source)) as shown:
        if plan_only:
            planned = installer.plan(
                entry, source=opened.source, root=where, progress=shown, refresh=refresh,
                allow_withdrawn=allowed, options=options,
            )  # fmt: skip
            _print_plan(output, planned)
            return output.result({**fields(planned), "fits": planned.fits})
        done = installer.install(
            entry, source=opened.source, root=where, progress=shown, now=time.time, refresh=refresh,
            trust=trust, allow_withdrawn=allowed, planned=lambda plan: _print_plan(output, plan),
            options=options,
        )  # fmt: skip
    return _print_installed(output, done, trust.fields(entry))


_PLANNED_ACTIONS = {
    "run": "runs the release's own commands (pacball.toml) before the switch",
    "not_run": "does not run the release's own commands (pacball.toml): that needs --run-actions",
}


def _print_plan(output: Output, planned: Plan) -> None:
    """What will be done: for people, and as an event."""
    output.event("plan", {**fields(planned), "fits": planned.fits})
    if planned.already_installed:
        output.text(f"{planned.release} is installed already")
    else:
        documents = f", and {size(planned.bytes_of_documents)} of documents" if planned.bytes_of_documents else ""
        output.text(f"download {size(planned.bytes_to_download)} in {planned.requests} requests{documents}")
        output.text(f"reuse {size(planned.bytes_reused)} of {size(planned.bytes_total)}")
        for reuse in planned.reuse:
            output.text(f"  {size(reuse.bytes)} from {printable(reuse.name)}")
        output.text(f"needs {_space(planned.disk_bytes, planned.inodes)}; {_free(planned)}")
        shared = f", and shares {size(planned.disk_bytes_shared)} with other trees" if planned.disk_bytes_shared else ""
        output.text(f"takes up {size(planned.disk_bytes_after)} afterwards{shared}")
    if planned.actions in _PLANNED_ACTIONS:
        output.text(_PLANNED_ACTIONS[planned.actions])
    if planned.switched:
        link = f"current/{planned.release.project}/{planned.release.platform}"
        before = (
            f"from {planned.switched_from} to {planned.release}" if planned.switched_from else f"to {planned.release}"
        )
        output.text(f"switches {link} {before}")


def _actions(done: Installed) -> list[str]:
    """What became of the release's own commands, for people."""
    if done.actions == "not_run":
        return ["  its own commands (pacball.toml) were not run; to run them: the same command with --run-actions"]
    return [f"  {one.kind} {one.name}: {one.ended}, after {one.seconds:.1f} s; {one.log}" for one in done.ran]


def _space(count: int, inodes: int) -> str:
    return f"{size(count)} of disk and {inodes:,} inodes"


def _free(planned: Plan) -> str:
    if planned.disk_bytes_free is None:
        return "what is free is not known"
    inodes = "" if planned.inodes_free is None else f" and {planned.inodes_free:,} inodes"
    return f"{size(planned.disk_bytes_free)}{inodes} are free{'' if planned.fits else ': NOT ENOUGH'}"


def _print_installed(output: Output, done: Installed, trust: dict[str, object]) -> None:
    if done.already_installed:
        output.text(f"{done.release} was installed before: {done.path}")
    else:
        output.text(f"installed {done.release}: {size(done.bytes_total)} in {done.path}")
        output.text(
            f"  {size(done.bytes_downloaded)} downloaded in {done.requests} requests, "
            f"{size(done.bytes_reused)} reused, {done.seconds:.1f} s"
        )
    for line in _actions(done):
        output.text(line)
    if done.switched:
        output.text(f"  current/{done.release.project}/{done.release.platform} leads to it now")
    print_sources(output, done.sources)
    output.result({**fields(done), "seconds": round(done.seconds, 3), "trust": trust})

"""Commands that run what a release brings along to be run: validate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from paccli.options import ActionsAs, Json, Progressing, ProgressMode, Quiet, ReleaseName, RootDir
from paccli.output import Output, fields, reporting

if TYPE_CHECKING:
    from pacstore.install.actions.validation import Validation


def validate(
    release: ReleaseName,
    root: RootDir = None,
    actions_as: ActionsAs = None,
    as_json: Json = False,
    quiet: Quiet = False,
    progress: Progressing = ProgressMode.AUTO,
) -> None:
    """Run the commands with which an installed release checks itself. Exit code 1 if any of them fails."""
    with reporting(as_json=as_json, progress=progress) as output:
        from paccli.exits import DAMAGED  # noqa: PLC0415
        from paccli.owners import find_user  # noqa: PLC0415
        from paccli.progress import showing  # noqa: PLC0415
        from paccli.settings import install_root, load_settings  # noqa: PLC0415
        from pacstore.install.actions.validation import validate as validate_installed  # noqa: PLC0415
        from pacstore.install.options import ActionOptions  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release)
        options = ActionOptions(find_user(actions_as or load_settings().actions_as))
        with showing(output, quiet=quiet) as shown:
            found = validate_installed(install_root(root), name, options=options, progress=shown, now=time.time)
        _print(output, found)
        output.result({**fields(found), "passed": found.passed})
        if not found.passed:
            raise SystemExit(DAMAGED)


def _print(output: Output, found: Validation) -> None:
    for one in found.ran:
        output.text(
            f"{'passed' if one.passed else 'FAILED'}: {one.name} {one.ended}, after {one.seconds:.1f} s; {one.log}"
        )
    for path in found.changed:
        output.text(f"FAILED: {path} changed meanwhile; run: pacball verify {found.release} --root DIR")
    output.text(f"{found.release} {'is valid' if found.passed else 'is NOT valid'}")

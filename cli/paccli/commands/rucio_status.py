"""The command `pacball rucio status`."""

from __future__ import annotations

from typing import Annotated

import typer

from paccli import exits
from paccli.commands.rucio import Account, Scope, bridging
from paccli.options import Json
from paccli.output import reporting


def status(
    release: Annotated[
        str | None, typer.Argument(metavar="RELEASE", help="The release. Default: all that the scope has.")
    ] = None,
    scope: Scope = "sw",
    every_file: Annotated[
        bool,
        typer.Option("--every-file", help="Look at each replica; of one RELEASE that is always done. 1,000 take 1 s."),
    ] = False,
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Show where releases are, as Rucio has it: which RSEs have them whole or in part, and what came of the rules on them.

    Exits 1 if something needs a person: a rule that is stuck, files that are bad or that no RSE has, a dataset left open.
    """
    with reporting(as_json=as_json) as output, bridging():
        from paccli.rucio_status import as_row, describe  # noqa: PLC0415
        from pacmirror.delivery.rucio.catalogue import RucioCatalogue  # noqa: PLC0415
        from pacmirror.delivery.rucio.status import statuses, troubles  # noqa: PLC0415
        from pacstore.release import Release  # noqa: PLC0415

        name = Release.parse(release) if release is not None else None
        rows: list[dict[str, object]] = []
        attention: dict[str, None] = {}
        catalogue = RucioCatalogue.connect(account=account)
        for dataset in statuses(catalogue, scope, name, every_file=every_file or name is not None):
            for line in describe(dataset, every_rule=name is not None):
                output.text(line)
            output.flush()
            if as_json:
                rows.append(as_row(dataset))
            # A rule on a line's container concerns each of its datasets.
            attention.update(dict.fromkeys(troubles(dataset)))
        if attention:
            output.text("needs a person:")
        for trouble in attention:
            output.text(f"  {trouble}")
        output.result({"scope": scope, "datasets": rows, "attention": list(attention), "calls": catalogue.calls})
        if attention:
            raise SystemExit(exits.DAMAGED)

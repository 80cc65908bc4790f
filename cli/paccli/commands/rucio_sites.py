"""Commands for who keeps the store of an RSE: `pacball rucio agent` and `declare`. They need the extra `pacball[rucio]`."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paccli import exits
from paccli.commands.rucio import Account, Scope, bridging
from paccli.options import Json, RootKeys
from paccli.output import Output, fields, reporting, size

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.agent import Agent
    from pacmirror.delivery.rucio.declaring import Declared
    from pacmirror.delivery.rucio.delivering import Trust
    from pacmirror.delivery.rucio.standing import Standing

SiteRse = Annotated[str, typer.Option("--rse", metavar="RSE", help="The RSE whose files the store has.")]
SiteStore = Annotated[Path, typer.Option("--store", metavar="DIR", help="The store; made if it is missing.")]
_SHOWN = 20
_LOOK_SECONDS, _DRAIN_SECONDS = 0.5, 10.0


def agent(
    rse: SiteRse,
    store: SiteStore,
    once: Annotated[bool, typer.Option("--once", help="Look once, do all that is to be done now, and end.")] = False,
    poll: Annotated[str, typer.Option("--poll", metavar="SPAN", help="How often Rucio is asked: 60s, 5m.")] = "60s",
    grace: Annotated[
        str,
        typer.Option(
            "--grace", metavar="SPAN", help="How long something stays that no rule wants any more: 1d, 12h, 0."
        ),
    ] = "1d",
    scope: Scope = "sw",
    account: Account = None,
    root_keys: RootKeys = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where a new store keeps its databases: local disk.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep the store of an RSE as Rucio's rules want it: bring what is missing, report it, let go what nobody wants.

    It runs until it is told to stop (SIGTERM, ^C). Killed anywhere, it goes on. With --once it exits 1 if something that is
    wanted is not here.
    """
    with reporting(as_json=as_json) as output, bridging():
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacmirror.config import LogConfig  # noqa: PLC0415
        from pacmirror.delivery.rucio.agent import Agent, AgentConfig  # noqa: PLC0415
        from pacmirror.delivery.rucio.catalogue import RucioCatalogue  # noqa: PLC0415
        from pacmirror.logs import configure_logs  # noqa: PLC0415
        from pacstore.amounts import parse_span  # noqa: PLC0415

        poll_seconds, grace_seconds = parse_span(poll, place="--poll"), parse_span(grace, place="--grace")
        check_may_write(store)
        config = AgentConfig(rse, store, scope, max(float(poll_seconds), 1.0), float(grace_seconds), state_dir)
        made = Agent(config, connect=lambda: RucioCatalogue.connect(account=account), trust=_trust(root_keys))
        # What one look has done is said in the end.
        configure_logs(LogConfig("json" if as_json else "text", "error" if once else "info"))
        if once:
            _print_standing(output, made.once())
            return
        _run(made)
        output.result(made.standing.document())


def declare(
    rse: SiteRse,
    store: Annotated[Path, typer.Option("--store", metavar="DIR", help="The store that the RSE's files are in.")],
    scope: Scope = "sw",
    account: Account = None,
    as_json: Json = False,
) -> None:
    """Tell Rucio what a store holds, however it came there, as replicas at an RSE; and what of it is damaged, or good again.

    Only files of datasets that are registered are declared. The same command again changes nothing.
    """
    with reporting(as_json=as_json) as output, bridging():
        from paccli.owners import check_may_write  # noqa: PLC0415
        from pacmirror.delivery.rucio.catalogue import RucioCatalogue  # noqa: PLC0415
        from pacmirror.delivery.rucio.declaring import datasets_of, declare  # noqa: PLC0415
        from pacmirror.delivery.rucio.naming import check_rse, check_scope  # noqa: PLC0415
        from pacmirror.delivery.rucio.rse import Rse  # noqa: PLC0415
        from pacstore.store import Store  # noqa: PLC0415

        check_rse(rse)
        check_scope(scope)
        check_may_write(store)
        with Store.open(store, writable=True) as opened:
            catalogue = RucioCatalogue.connect(account=account)
            catalogue.rse(rse)
            done = declare(opened, Rse(catalogue, rse, scope), datasets_of(opened, scope), clock=time.time)
        _print_declared(output, done, rse)


def _trust(root_keys: Path | None) -> Trust:
    from paccli.anchors import read_root  # noqa: PLC0415
    from paccli.places import roots_dirs  # noqa: PLC0415
    from paccli.settings import load_settings  # noqa: PLC0415
    from pacmirror.delivery.rucio.trusting import make_trust  # noqa: PLC0415
    from pacstore.trust.pins import read_pins  # noqa: PLC0415

    if root_keys is not None:
        return make_trust(read_root(root_keys))
    configured = load_settings().root_keys
    return make_trust(read_root(Path(configured)) if configured else None, read_pins(roots_dirs()))


def _run(made: Agent) -> None:
    """Run it until it is told to stop. It may be killed anywhere: where Rucio does not answer, nobody waits for that."""
    from pacmirror.threads import run_in_thread  # noqa: PLC0415

    with _stopping(made):
        done = run_in_thread(made.run, name="pacball-rucio")
        while not made.stopped and not done.done():
            wait([done], timeout=_LOOK_SECONDS)
        try:
            done.result(_DRAIN_SECONDS)
        except TimeoutError:
            logging.getLogger(__name__).warning("what was going on did not end in time, and was cut off")


@contextmanager
def _stopping(made: Agent) -> Iterator[None]:
    """Inside, SIGTERM and ^C stop the agent; a second ^C ends at once."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        made.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_standing(output: Output, standing: Standing) -> None:
    """What one look has done. Exits 1 if something that is wanted is not here."""
    output.text(f"{standing.rse}: {standing.whole} of {standing.wanted} datasets that rules want are here whole")
    if standing.delivered:
        output.text(
            f"  {standing.delivered} delivered: {standing.reported} files reported, {size(standing.bytes_came)} came"
        )
    for one in list(standing.troubles.values())[:_SHOWN]:
        output.warn(f"{one.dataset} could not be delivered: {one.reason}")
    if standing.let_go:
        output.text(f"  {standing.let_go} let go")
    if standing.leaving:
        output.text(f"  {standing.leaving} that no rule wants any more leave after their grace time")
    for warning in standing.leaving_warnings():
        output.warn(warning)
    output.result(standing.document())
    if standing.whole < standing.wanted:
        raise SystemExit(exits.DAMAGED)


def _print_declared(output: Output, done: Declared, rse: str) -> None:
    output.text(
        f"{rse}: {len(done.added)} files declared that Rucio did not know to be there, {len(done.bad)} bad, "
        f"{len(done.good)} good again; {done.datasets} datasets looked at"
    )
    for name in done.bad[:_SHOWN]:
        output.warn(f"declared bad: {name}")
    if done.unregistered:
        count = len(done.unregistered)
        output.note(f"pacball: {count} releases here are not registered in Rucio, {done.unregistered[0]} for one")
    output.result(fields(done))

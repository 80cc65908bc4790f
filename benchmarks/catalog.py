"""Figures: what it costs a client to verify a catalog whose line has 10,000 releases, beside python-tuf's own client."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import daemons, ours
from benchmarks.bench import COSTS, MB, Bench, Tally
from benchmarks.measure import Command, plain_environment, run_untimed
from benchmarks.ours import Pacball
from benchmarks.report import Outcome, Target
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust import chain, entries
from pacstore.trust.change import Change
from pacstore.trust.draft import Draft
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry

RELEASES = 10_000
LIMIT_CPU_S = 1.0
COLD, AGAIN, PEER = "pacball plan, first time", "pacball plan, one release later", "tuf ngclient, first time"
_NGCLIENT = """
import sys
from tuf.ngclient import Updater, UpdaterConfig
url, state, target = sys.argv[1:]
root = open(state + "/root.json", "rb").read()
config = UpdaterConfig(targets_max_length=1 << 24, snapshot_max_length=1 << 23)
updater = Updater(state + "/metadata", url + "/catalog/", config=config, bootstrap=root)
updater.refresh()
assert updater.get_targetinfo(target) is not None
"""


def measure(bench: Bench) -> Outcome:
    outcome = Outcome(f"a line of {RELEASES:,} releases", {**COSTS, "moved": "MB"})
    tally = Tally(bench, outcome)
    if not bench.wanted([Pacball.name]):
        return outcome
    with bench.fresh(need_bytes=4 << 30) as scratch:
        store, keys = _make(scratch)
        with daemons.nginx(store / "public", scratch / "nginx") as server:
            for number in range(bench.repeat):
                _measure(bench, tally, scratch / str(number), server, store, keys, number)
    tally.finish([COLD, AGAIN, PEER])
    for row in (COLD, AGAIN):
        outcome.targets.append(
            Target(f"{row}: refresh of {RELEASES:,} releases", "s", outcome.value(row, "CPU"), None, "", LIMIT_CPU_S)
        )
    return outcome


def _measure(
    bench: Bench, tally: Tally, home: Path, server: daemons.Nginx, store: Path, keys: Path, number: int
) -> None:  # fmt: skip
    home.mkdir()
    (home / "root.json").write_bytes((store / "public/catalog/1.root.json").read_bytes())
    plan = Command(
        [ours.PROGRAM, "install", _name(0), "--plan", "--json", "--from", server.url, "--root", str(home / "root"),
         "--root-keys", str(home / "root.json")],
        ours.environment(home),
    )  # fmt: skip
    target = entries.paths_of(Release.parse(_name(0)))[0]
    peer = Command([sys.executable, "-c", _NGCLIENT, server.url, str(home), target], plain_environment({}))
    for row, command in ((COLD, plan), (PEER, peer), (AGAIN, plan)):
        if row == AGAIN:
            _publish(store, keys, [RELEASES + number])
        mark = server.mark()
        cost, _ = bench.measure(command, synced=home, warm=[], what=row)
        tally.add(row, cost, moved=server.traffic(after=mark).sent_bytes / MB)


def _make(scratch: Path) -> tuple[Path, Path]:
    tree, store, keys = scratch / "tree", scratch / "store", scratch / "keys"
    tree.mkdir()
    (tree / "file").write_bytes(b"what is in a release does not matter here\n")
    publish = [ours.PROGRAM, "publish", str(tree), _name(0), "--to", str(store), "--keys", str(keys)]
    run_untimed(Command(publish, ours.environment(scratch)))
    _publish(store, keys, range(1, RELEASES))
    return store, keys


def _publish(store: Path, keys: Path, numbers: range | list[int]) -> None:
    """Releases with the content of the first one, in one commit: one by one they would take an hour."""
    with Store.open(store, writable=True) as opened:
        head = chain.load_head(opened.storage)
        first = head.release(Release.parse(_name(0)))
        assert first is not None
        draft = Draft(head, Change(), now=time.time(), expiry=Expiry())
        line = draft.edit(entries.line_role("Bench"))
        for number in numbers:
            entry = replace(first, release=Release.parse(_name(number)))
            line.targets |= {target.path: target for target in entries.encode_line(entry)}
            target = entries.encode_placement(entry)
            draft.placements[target.path] = target
        assert draft.finish(KeyRing(keys)) is not None


def _name(number: int) -> str:
    return f"Bench-20.{number // 100}.{number}-x86_64-centos7-gcc11-opt"

"""The fault matrix: {1, 8, 64} clients x {cold, warm, same object, ranges} x all faults, over a real origin and a real mirror.

Each cell strikes a mirror with one fault for some seconds, while clients read through it and a release is published. Then:
* no wrong byte was served as a success: an answer that came whole was right, or an honest error, never 404 for what there is.
  Where bits flip beneath a daemon, which serves files as they are, nothing but those bits was wrong, and who verifies sees it;
* once the fault is over, all clients get everything within so many tries, and installers install it;
* what was acknowledged (holdings, complete releases, public packs) is on the disk after each kill, and is readable after a
  restart without any upstream;
* `pacball store check` lists exactly the frames and documents that were flipped, and a repair heals them;
* nothing lies in the store but what belongs there; memory, descriptors and the time to start are bounded; no traceback.

The short form takes each number of clients, each pattern and each fault at least once; `make test-faults` takes them all,
with other dice in every round. One cell of one round again:
`PACBALL_FAULT_ROUND=3 pytest tests/fault/matrix -m large -k 'test_table and ranges and flapping and 8-'`.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tests.fault.matrix.cell import Cell, run
from tests.fault.matrix.clients import PATTERNS
from tests.fault.matrix.faults import FAULTS

CLIENTS = (1, 8, 64)
SHORT_S, LONG_S = 3.0, 9.0
SHORT = (
    (64, "cold", "kill -9"),
    (8, "warm", "bit flips"),
    (8, "same object", "flapping upstream"),
    (64, "ranges", "lying upstream"),
)
SHORT_ROOT = (
    (64, "cold", "disk full"),
    (1, "cold", "failing fsync"),
    (8, "ranges", "clock jumps"),
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("clients", "pattern", "fault"), SHORT)
def test_short(template, tmp_path, clients, pattern, fault):
    run(Cell(clients, pattern, fault, SHORT_S), template, tmp_path)


@pytest.mark.peers
@pytest.mark.root
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("clients", "pattern", "fault"), SHORT_ROOT)
def test_short_as_root(template, tmp_path, clients, pattern, fault):
    run(Cell(clients, pattern, fault, SHORT_S, with_curl=True), template, tmp_path)


@pytest.mark.large
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("clients", CLIENTS)
def test_table(template, tmp_path, clients, pattern, fault):
    cell = Cell(clients, pattern, fault, LONG_S, with_curl=True)
    print(f"{cell}; PACBALL_FAULT_ROUND={os.environ.get('PACBALL_FAULT_ROUND', '')}")
    run(cell, template, tmp_path)


def test_the_short_form_has_everything_once():
    chosen = [*SHORT, *SHORT_ROOT]
    assert [set(column) for column in zip(*chosen, strict=True)] == [set(CLIENTS), set(PATTERNS), set(FAULTS)]
    assert set(chosen) <= set(itertools.product(CLIENTS, PATTERNS, FAULTS))

"""The rules of Prometheus and the board of Grafana: they ask only for what daemons tell, and each alert is explained."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from pacmirror.config import UpstreamConfig
from tests.mirror.daemons import make_store, running

TOP = Path(__file__).parents[2]
RULES = TOP / "deploy/prometheus/pacball-rules.yml"
BOARD = TOP / "deploy/grafana/pacball.json"
GUIDE = TOP / "docs/operations.md"
_NAME = re.compile(r"\b(?:pacball|process)_[a-z0-9_]+")
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The names of all that an origin and a mirror tell, as rules must write them."""
    names = set()
    store, empty = make_store(tmp_path_factory.mktemp("origin")), tmp_path_factory.mktemp("mirror")
    with (
        running(store) as origin,
        running(empty, upstream=UpstreamConfig(urls=(origin.url,)), quota_bytes=10**9) as mirror,
    ):
        deadline = time.monotonic() + 30
        while "pacball_upstream_catalog_age_seconds" not in mirror.metrics():
            assert time.monotonic() < deadline
        texts = [daemon.get("/metrics").decode() for daemon in (origin, mirror)]
    for text in texts:
        for name, kind in _TYPE.findall(text):
            names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return names


def test_alerts_ask_for_what_there_is(told):
    asked = {name for line in RULES.read_text().splitlines() if line[:1] == " " for name in _NAME.findall(line)}
    assert len(asked) >= 10
    assert asked - told == set()


def test_the_board_asks_for_what_there_is(told):
    board = json.loads(BOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked = {name for text in expressions for name in _NAME.findall(text)}
    assert len(asked) >= 20
    assert asked - told == set()


def test_the_panels_of_the_board_do_not_overlap():
    taken = set()
    for panel in json.loads(BOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_alert_is_explained():
    text = RULES.read_text()
    alerts = re.findall(r"- alert: (\w+)", text)
    assert alerts
    assert re.findall(r"runbook: docs/operations\.md#(\w+)", text) == [alert.lower() for alert in alerts]
    assert set(re.findall(r"^### (Pacball\w+)$", GUIDE.read_text(), re.MULTILINE)) == set(alerts)

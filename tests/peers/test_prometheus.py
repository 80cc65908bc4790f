"""The rules of Prometheus, and what daemons tell it: read by its own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pacmirror.config import UpstreamConfig
from tests.mirror.daemons import make_store, running

pytestmark = pytest.mark.peers

RULES = Path(__file__).parents[2] / "deploy/prometheus/pacball-rules.yml"


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid():
    assert "rules found" in promtool("check", "rules", "--lint-fatal", str(RULES))


def test_metrics_keep_the_conventions(tmp_path):
    store = make_store(tmp_path / "origin")
    with running(store) as origin, running(tmp_path / "mirror", upstream=UpstreamConfig(urls=(origin.url,))) as mirror:
        for daemon in (origin, mirror):
            promtool("check", "metrics", text=daemon.get("/metrics").decode())


def test_alerts_fire_when_they_should_and_only_then(tmp_path):
    """An upstream that is ahead for 40 minutes, a disk that is full for 15, and a daemon that fails every tenth request."""
    (tmp_path / "test.yml").write_text(
        f"""
rule_files: [{RULES}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="pacball",instance="m"}}', values: '1x60'}}
      - {{series: 'pacball_catalog_version{{job="pacball",instance="m"}}', values: '3x60'}}
      - {{series: 'pacball_upstream_catalog_version{{job="pacball",instance="m"}}', values: '3x10 4x50'}}
      - {{series: 'pacball_catalog_state{{job="pacball",instance="m"}}', values: '1x60'}}
      - {{series: 'pacball_cache_disk_good{{job="pacball",instance="m"}}', values: '1x20 0x40'}}
      - {{series: 'pacball_requests_total{{job="pacball",instance="m",kind="packs",status="2xx"}}', values: '0+90x60'}}
      - {{series: 'pacball_requests_total{{job="pacball",instance="m",kind="packs",status="5xx"}}', values: '0+10x60'}}
    alert_rule_test:
      - {{eval_time: 30m, alertname: PacballMirrorBehind, exp_alerts: []}}
      - eval_time: 50m
        alertname: PacballMirrorBehind
        exp_alerts: [{{exp_labels: {{severity: warning, job: pacball, instance: m}}, exp_annotations: {{
          summary: "m does not follow its upstream's catalog", runbook: "docs/operations.md#pacballmirrorbehind"}}}}]
      - eval_time: 45m
        alertname: PacballDiskFull
        exp_alerts: [{{exp_labels: {{severity: critical, job: pacball, instance: m}}, exp_annotations: {{
          summary: "m cannot keep what it fetches", runbook: "docs/operations.md#pacballdiskfull"}}}}]
      - eval_time: 45m
        alertname: PacballErrors
        exp_alerts: [{{exp_labels: {{severity: warning, job: pacball, instance: m}}, exp_annotations: {{
          summary: "more than 2 % of what m answers are errors", runbook: "docs/operations.md#pacballerrors"}}}}]
      - {{eval_time: 60m, alertname: PacballCatalogNotServed, exp_alerts: []}}
      - {{eval_time: 60m, alertname: PacballDown, exp_alerts: []}}
"""
    )
    promtool("test", "rules", str(tmp_path / "test.yml"))

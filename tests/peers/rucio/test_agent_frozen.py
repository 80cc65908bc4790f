"""While Rucio takes connections and never answers, an agent that is told to stop stops all the same."""

from __future__ import annotations

import contextlib
import signal
import subprocess

import pytest

from tests.e2e.site import Outcome, Site, wait_until
from tests.peers.rucio.rses import add_rse, catalogue_of

pytestmark = [pytest.mark.peers, pytest.mark.timeout(400)]


def test_an_agent_ends_in_time_while_rucio_does_not_answer(rucio, tmp_path):
    add_rse(catalogue_of(rucio).client, "FROZEN")
    site = Site(tmp_path / "home")
    site.environment |= {"RUCIO_HOME": str(rucio.client_home())}
    store = tmp_path / "store"
    with site.start("rucio", "agent", "--rse", "FROZEN", "--store", store, "--poll", "1s") as process:
        try:
            wait_until(lambda: any(store.rglob("rucio-agent.json")), seconds=90)
            rucio.freeze()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.5)  # now it asks
            process.send_signal(signal.SIGTERM)
            done = Outcome.of(process, timeout=60)
        finally:
            rucio.thaw()
            process.kill()
    assert done.code == 0, done.err
    assert "was cut off" in done.err

"""A mirror as sites meet it: real processes, killed at any moment; our installer and python-tuf's client see it alone."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

import pytest
from tuf.ngclient import Updater

from pacstore.store import Store
from pacstore.trust.metadata import TIMESTAMP_NAME
from pacstore.trust.served import Verifier
from tests.e2e import trees
from tests.e2e.attacker import mirroring as lying
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import get, wait_until
from tests.e2e.test_attacks import MANNERS
from tests.mirror.daemons import eventually, make_store
from tests.mirror.daemons import running as running_daemon
from tests.mirror.test_replication import mirror_of, serves, told
from tests.store.signed_catalog import SignedCatalog

pytestmark = pytest.mark.slow
ROUNDS = 5
STAMP = f"catalog/{TIMESTAMP_NAME}"


def ready(url):
    return get(f"{url}/readyz")[0] == 200


def test_our_installer_and_another_client_of_tuf_need_the_mirror_alone(origin, site, root, tmp_path):
    store, pin = tmp_path / "mirror", origin.root_keys
    with origin.site.serving(origin.store) as upstream, site.mirroring(store, upstream) as url:
        wait_until(lambda: ready(url))
        for release in (OLD, NEW):
            site.ok("install", release, "--from", url, "--root-keys", pin, "--root", root)
        trees.assert_same(root / "releases" / NEW, origin.new)
        _download_all(url, pin.read_bytes(), tmp_path / "tuf")
    # Everything is kept: the upstream is gone now, and a restarted mirror serves the same.
    with site.mirroring(store, upstream) as url:
        wait_until(lambda: ready(url))
        site.ok("install", NEW, "--from", url, "--root-keys", pin, "--root", tmp_path / "second")
        trees.assert_same(tmp_path / "second/releases" / NEW, origin.new)
        _download_all(url, pin.read_bytes(), tmp_path / "again")


def _download_all(url, root, directory):
    (directory / "targets").mkdir(parents=True)
    updater = Updater(
        metadata_dir=str(directory),
        metadata_base_url=f"{url}/catalog/",
        target_base_url=f"{url}/",
        target_dir=str(directory / "targets"),
        bootstrap=root,
    )
    updater.refresh()
    for kind in ("manifest", "attributes", "placement"):
        target = updater.get_targetinfo(f"releases/Demo/{NEW}/{kind}")
        assert os.path.getsize(updater.download_target(target, str(directory / "targets" / kind))) == target.length


def test_killed_again_and_again_it_never_goes_back_and_always_verifies(site, tmp_path):
    catalog = SignedCatalog("Demo", "Other")
    public = make_store(tmp_path / "origin", catalog) / "public"
    store, stop = tmp_path / "mirror", threading.Event()
    dice = random.Random(int(os.environ.get("PACBALL_FAULT_ROUND", "0")))

    def publish():
        while not stop.wait(0.05):
            catalog.commit(dice.choice(["line-Demo", "line-Other", "placement-Demo"]))
            if dice.random() < 0.1:
                catalog.write_root()
            catalog.write(public)

    writer = threading.Thread(target=publish)
    writer.start()
    served = 0
    try:
        with running_daemon(tmp_path / "origin") as origin:
            for _ in range(ROUNDS):
                with site.serving_process(store, "--upstream", origin.url) as (url, process):
                    wait_until(lambda: get(f"{url}/{STAMP}")[0] == 200)
                    end = time.monotonic() + dice.uniform(0.0, 0.5)
                    while time.monotonic() < end:
                        version = _version(get(f"{url}/{STAMP}")[2])
                        assert version >= served, "what was acknowledged went back"
                        served = version
                    process.send_signal(signal.SIGKILL)
                    process.wait(20)
                # What any web server would serve now is one state, whole.
                _verifies(store, served)
    finally:
        stop.set()
        writer.join(20)
    with running_daemon(tmp_path / "origin") as origin, site.mirroring(store, origin.url) as url:
        wait_until(lambda: get(f"{url}/{STAMP}")[2] == catalog.stamp)


@pytest.mark.parametrize("role", ["timestamp", "line-Demo"])
def test_an_upstream_that_answers_nonsense_changes_nothing(tmp_path, role):
    catalog = SignedCatalog("Demo")
    with (
        lying(make_store(tmp_path / "origin", catalog) / "public") as upstream,
        mirror_of(tmp_path / "mirror", upstream, poll=0.05) as mirror,
    ):
        eventually(lambda: serves(mirror, catalog))
        for name, (steps, _, _) in MANNERS.items():
            before = catalog.stamp
            catalog.commit("line-Demo")
            upstream.says(STAMP if role == "timestamp" else catalog.path(role), *steps)
            catalog.write(upstream.public)
            eventually(lambda: told(mirror)["upstreams"][0]["error"])
            assert mirror.get(f"/{STAMP}") == before, name
            assert "\x1b" not in json.dumps(mirror.status())
            upstream.is_honest()
            eventually(lambda: serves(mirror, catalog))


def _version(stamp):
    return json.loads(stamp)["signed"]["version"]


def _verifies(path, served):
    with Store.open(path, writable=False) as store:
        stamp = (store.public / STAMP).read_bytes()
        assert _version(stamp) >= served
        assert Verifier(store.storage).verify(stamp).version >= served

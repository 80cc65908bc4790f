"""A daemon that has the online key keeps the catalog fresh, and one that cannot does not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from typer.testing import CliRunner

from paccli.main import app
from pacmirror.limits import ServerLimits
from pacmirror.refreshing import Schedule
from pacstore.errors import NotFound, PacballError, Refused
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.ceremony import Keys
from pacstore.trust.key_files import encode_private
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog
from pacstore.trust.served import ServedState, Verifier
from tests.mirror.daemons import eventually, running
from tests.mirror.test_catalog import DAY, STAMP, tree
from tests.store.signed_catalog import SignedCatalog, put
from tests.store.trust_world import entry

EAGER = ServerLimits(
    catalog_pause_seconds=0,
    catalog_wait_seconds=60,
    catalog_retry_seconds=0.05,
    watch_seconds=0.05,
    refresh_backoff_seconds=0.05,
    refresh_backoff_max_seconds=0.2,
    drain_seconds=60,
)
NOW = 1_800_000_000.0


class Origin:
    """A real store with a catalog that was signed some days ago, and the online key in a directory of its own."""

    def __init__(self, top: Path, *, days_ago: float) -> None:
        self.catalog = SignedCatalog("Demo", now=time.time() - days_ago * DAY)
        with Store.create(top / "store") as store:
            self.store = store.path
        self.catalog.write(self.store / "public")
        self.keys = write_key(top / "keys", self.catalog.keys["online"])

    def stamp(self) -> bytes:
        return (self.store / "public" / STAMP[1:]).read_bytes()

    def version(self) -> int:
        return json.loads(self.stamp())["signed"]["version"]

    def state(self) -> ServedState:
        with Store.open(self.store, writable=False) as store:
            return Verifier(store.storage).verify(self.stamp())


def write_key(directory: Path, signer: CryptoSigner) -> Path:
    directory.mkdir(mode=0o700)
    path = directory / "online.pem"
    path.write_bytes(signer.private_bytes)
    path.chmod(0o600)
    return directory


@pytest.fixture
def origin(tmp_path):
    return Origin(tmp_path, days_ago=20)


def test_a_timestamp_past_half_of_its_life_is_signed_anew(origin):
    with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
        eventually(lambda: daemon.status()["catalog"]["version"] == 2)
        assert daemon.get(STAMP) == origin.stamp() != origin.catalog.stamp
        time.sleep(0.3)
        assert daemon.metrics()["pacball_catalog_refresh_failures_total"] == 0
        assert daemon.status()["warnings"] == []
    # With all that the online key signs, and nothing else; and no more often than needed.
    state = origin.state()
    assert origin.version() == 2
    assert {role: one.version for role, one in state.roles.items()} == {
        "timestamp": 2,
        "snapshot": 2,
        "targets": 1,
        "line-Demo": 1,
        "placement-Demo": 2,
    }
    assert state.expires["timestamp"] > time.time() + 29 * DAY


def test_it_is_signed_for_as_long_as_it_is_told(origin):
    with running(origin.store, EAGER, online_keys=origin.keys, timestamp_days=40) as daemon:
        eventually(lambda: daemon.status()["catalog"]["version"] == 2)
    assert abs(origin.state().expires["timestamp"] - time.time() - 40 * DAY) < 600


def test_a_fresh_timestamp_is_left_alone(tmp_path):
    origin = Origin(tmp_path, days_ago=10)
    before = tree(origin.store)
    with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
        assert daemon.get(STAMP) == origin.catalog.stamp
        time.sleep(0.3)
    assert tree(origin.store) == before


def test_a_fresh_one_is_signed_anew_when_it_is_older_than_told(tmp_path):
    origin = Origin(tmp_path, days_ago=0.5)
    with running(origin.store, EAGER, online_keys=origin.keys, refresh_hours=11) as daemon:
        eventually(lambda: daemon.status()["catalog"]["version"] >= 2)


def test_a_daemon_without_keys_writes_nothing(origin):
    before = tree(origin.store)
    with running(origin.store, EAGER) as daemon:
        assert daemon.get(STAMP) == origin.catalog.stamp
        time.sleep(0.3)
    assert tree(origin.store) == before


def test_a_change_that_waits_for_the_online_key_alone_is_committed(tmp_path):
    origin = Origin(tmp_path, days_ago=1)
    lines = write_key(tmp_path / "line", origin.catalog.keys["line-Demo"])
    name = Release.parse("Demo-2.0-x86_64")
    with Store.open(origin.store, writable=True) as store:
        catalog = Catalog.open(store.storage, store.drafts)
        catalog.publish(entry(str(name)), KeyRing(lines), now=time.time())
        assert catalog.release(name) is None
        with running(origin.store, EAGER) as daemon:
            assert daemon.status()["catalog"]["version"] == 1
            time.sleep(0.3)
        assert catalog.release(name) is None
        with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
            eventually(lambda: daemon.status()["catalog"]["version"] == 2)
            time.sleep(0.3)
        assert catalog.release(name) == entry(str(name))
        assert catalog.version == 2


def test_a_change_that_waits_for_people_is_left_waiting(tmp_path):
    origin = Origin(tmp_path, days_ago=1)
    with Store.open(origin.store, writable=True) as store:
        catalog = Catalog.open(store.storage, store.drafts)
        waiting = catalog.publish(
            entry("Demo-2.0-x86_64"), KeyRing(tmp_path / "none"), now=time.time(), sign_later=True
        ).waiting
        assert [one.missing for one in waiting] == [1]
        with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
            time.sleep(0.3)
            assert daemon.status()["warnings"] == []
        assert catalog.version == 1
        assert catalog.status().waiting == waiting


def test_a_change_that_waits_for_others_beside_it_is_looked_at_once(tmp_path):
    origin = Origin(tmp_path, days_ago=1)
    with Store.open(origin.store, writable=True) as store:
        catalog = Catalog.open(store.storage, store.drafts)
        ring = KeyRing(write_key(tmp_path / "targets", origin.catalog.keys["targets"]))
        line = CryptoSigner.generate_ed25519().public_key
        waiting = catalog.add_line("New", Keys((line,)), ring, now=time.time()).waiting
        assert {one.role: one.missing for one in waiting} == {"targets": 0, "line-New": 1}
        with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
            eventually(lambda: daemon.status()["catalog"]["version"] == 2)
            time.sleep(1)
        assert catalog.version == 2


def test_a_key_with_a_passphrase(origin):
    key = load_pem_private_key((origin.keys / "online.pem").read_bytes(), None)
    (origin.keys / "online.pem").write_bytes(encode_private(key, "open sesame"))
    with (
        pytest.raises(Refused, match="passphrase"),
        running(origin.store, EAGER, online_keys=origin.keys),
    ):
        pass
    with running(origin.store, EAGER, online_keys=origin.keys, secrets=lambda _: "open sesame") as daemon:
        eventually(lambda: daemon.status()["catalog"]["version"] == 2)


def test_a_failure_is_told_and_tried_again(origin, caplog):
    key = origin.keys / "online.pem"
    with running(origin.store, replace(EAGER, watch_seconds=0.2), online_keys=origin.keys) as daemon:
        eventually(lambda: origin.version() == 2)
        # Now the next one is due, and the key is gone.
        away = key.rename(origin.keys / "away")
        origin.catalog.signed["snapshot"].version = 2
        origin.catalog.timestamp.version = 2
        origin.catalog.files = {}
        origin.catalog.now = time.time() - 20 * DAY
        origin.catalog.signed["placement-Demo"].version = 2
        origin.catalog.commit("placement-Demo")
        origin.catalog.write(origin.store / "public")
        eventually(lambda: daemon.metrics()["pacball_catalog_refresh_failures_total"] >= 2)
        (warning, *_) = daemon.status()["warnings"]
        assert warning.startswith("the catalog could not be refreshed: ")
        assert daemon.get(STAMP) == origin.catalog.stamp
        away.rename(key)
        eventually(lambda: daemon.status()["catalog"]["version"] >= 4)
        eventually(lambda: daemon.status()["warnings"] == [])
    assert any("could not be refreshed" in record.getMessage() for record in caplog.records)


def test_a_store_that_went_backward_is_not_signed_again(origin):
    old = origin.catalog.stamp
    origin.catalog.commit("line-Demo")
    origin.catalog.write(origin.store / "public")
    with running(origin.store, EAGER) as daemon:
        assert daemon.status()["catalog"]["version"] == 2
    put(origin.store / "public" / STAMP[1:], old)
    (origin.store / "public/catalog/2.timestamp.json").unlink()
    before = tree(origin.store)
    with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
        assert daemon.status()["catalog"]["state"] == "last-good"
        time.sleep(0.3)
    assert tree(origin.store) == before


def test_stopping_waits_for_a_refresh_in_progress(origin):
    with Store.open(origin.store, writable=True) as store:
        locked, free = threading.Event(), threading.Event()
        thread = threading.Thread(target=hold_lock, args=(store, locked, free))
        thread.start()
        locked.wait()
        with running(origin.store, EAGER, online_keys=origin.keys) as daemon:
            eventually(lambda: any(one.name == "pacball-refresh" for one in threading.enumerate()))
            assert daemon.get(STAMP) == origin.catalog.stamp
            threading.Timer(0.5, free.set).start()
        thread.join()
    assert origin.version() == 2


def test_stopping_waits_no_longer_than_the_drain_time(origin):
    with Store.open(origin.store, writable=True) as store:
        locked, free = threading.Event(), threading.Event()
        thread = threading.Thread(target=hold_lock, args=(store, locked, free))
        thread.start()
        locked.wait()
        # The lock is waited for two minutes; `running` fails after twenty seconds.
        with running(origin.store, replace(EAGER, drain_seconds=0.3), online_keys=origin.keys):
            eventually(lambda: any(one.name == "pacball-refresh" for one in threading.enumerate()))
        assert origin.version() == 1
        free.set()
        thread.join()
    eventually(lambda: not any(one.name == "pacball-refresh" for one in threading.enumerate()))


PROGRAM = """
import sys; from pathlib import Path
from pacmirror.config import Config, LogConfig; from pacmirror.limits import ServerLimits; from pacmirror.serve import serve
limits, log = ServerLimits(drain_seconds=0.5), LogConfig(level="warning")
config = Config(Path(sys.argv[1]), port=0, limits=limits, online_keys=Path(sys.argv[2]), log=log)
serve(config, ready=lambda url: print(url, flush=True))
"""


def test_a_process_ends_too_when_a_refresh_does_not(origin):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(origin.store), str(origin.keys)]
    with Store.open(origin.store, writable=True) as store, store.catalog_lock():
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stdout.readline().startswith("http://")
            eventually((origin.store / "private/catalog").is_dir)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert origin.version() == 1


@pytest.mark.slow
def test_the_command_takes_a_key_and_its_passphrase(origin, tmp_path):
    key = load_pem_private_key((origin.keys / "online.pem").read_bytes(), None)
    (origin.keys / "online.pem").write_bytes(encode_private(key, "open sesame"))
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    words = ["serve", "--store", str(origin.store), "--listen", "127.0.0.1:0", "--online-keys", str(origin.keys)]
    refused = CliRunner().invoke(app, [*words, "--json"])
    assert refused.exit_code == 7
    assert "passphrase" in refused.output
    command = [sys.executable, "-W", "error", "-c", "from paccli.main import run; run()", *words]
    with subprocess.Popen([*command, "--passphrase-file", secret], stdout=subprocess.PIPE, text=True) as process:
        assert "serving" in process.stdout.readline()
        eventually(lambda: origin.version() == 2)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def hold_lock(store, locked, free):
    with store.catalog_lock():
        locked.set()
        free.wait(60)


def loosen(origin):
    (origin.keys / "online.pem").chmod(0o644)


def forget(origin):
    (origin.keys / "online.pem").unlink()


def replace_key(origin):
    forget(origin)
    origin.keys.rmdir()
    write_key(origin.keys, CryptoSigner.generate_ed25519())


def seal(origin):
    (origin.store / "private/staging").rmdir()


def move_inside(origin):
    origin.keys = origin.keys.rename(origin.store / "private/keys")


def empty(origin):
    for path in (origin.store / "public/catalog").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (loosen, Refused, "chmod 600"),
        (forget, PacballError, "keys"),
        (replace_key, Refused, "has 0 of the 1 keys that sign the catalog's timestamp"),
        (seal, Refused, "no private part"),
        (move_inside, Refused, "lies inside the store"),
        (empty, NotFound, "publish to this store first"),
    ],
)
def test_half_a_configuration_is_refused_at_the_start(origin, change, kind, text):
    change(origin)
    before = tree(origin.store)
    with pytest.raises(kind, match=text), running(origin.store, EAGER, online_keys=origin.keys):
        pass
    assert tree(origin.store) == before


@pytest.mark.parametrize("options", [{"refresh_hours": 1.0}, {"timestamp_days": 1.0}])
def test_options_of_refreshing_need_a_key(origin, options):
    with pytest.raises(Refused, match="--online-keys DIR"), running(origin.store, EAGER, **options):
        pass


def state(*, left, signed_at=None, **expires):
    return ServedState(b"", (), (), {}, {"timestamp": NOW + left * DAY, **expires}, signed_at)


@pytest.mark.parametrize(
    ("left", "signed_days_ago", "hours", "due"),
    [
        (15.1, None, None, False),
        (14.9, None, None, True),
        (-1, None, None, True),
        (1.1, 0.9, None, False),
        (0.9, 1.1, None, True),
        (29.9, None, 1, True),
        (29.99, None, 1, False),
        (29, 0.1, 2, True),
        (29, 0.1, 3, False),
    ],
)
def test_when_a_timestamp_is_due(left, signed_days_ago, hours, due):
    signed_at = None if signed_days_ago is None else NOW - signed_days_ago * DAY
    assert Schedule(Expiry(), hours).is_due(state(left=left, signed_at=signed_at), NOW) == due


@pytest.mark.parametrize(("role", "due"), [("snapshot", True), ("placement-Demo", True), ("line-Demo", False)])
def test_what_else_the_online_key_signs_makes_it_due_too(role, due):
    assert not Schedule(Expiry(), None).is_due(state(left=29, **{role: NOW + 15.1 * DAY}), NOW)
    assert Schedule(Expiry(), None).is_due(state(left=29, **{role: NOW + 14.9 * DAY}), NOW) == due

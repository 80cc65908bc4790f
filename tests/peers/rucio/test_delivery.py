"""The whole way: two releases from an origin over Rucio to two sites, to its own clients, and out again; all parts are real."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacmirror.delivery.rucio.naming import Did, public_path
from tests.e2e import trees
from tests.e2e.site import END_S, Origin, Outcome, Site, free_port
from tests.peers.rucio.rses import add_rse, catalogue_of, end_rule

pytestmark = [pytest.mark.peers, pytest.mark.timeout(400)]
_OURS = "pacmirror.delivery.rucio.protocol.Default"
_ORIGIN, _NEAR, _FAR = "DELIVERY-ORIGIN", "DELIVERY-NEAR", "DELIVERY-FAR"
_OLD, _NEW = "Delivery-1.0-x86_64-linux", "Delivery-1.1-x86_64-linux"


@dataclass(frozen=True)
class Element:
    """A store with its RSE, and the port at which its daemon serves it when it runs."""

    rse: str
    site: Site
    store: Path
    port: int

    @classmethod
    def of(cls, rucio, rse: str, site: Site, store: Path) -> Element:
        """With an RSE that Rucio's own clients can read over plain http."""
        site.environment |= {"RUCIO_HOME": str(rucio.client_home())}
        made = cls(rse, site, store, free_port())
        add_rse(catalogue_of(rucio).client, rse, f"http://127.0.0.1:{made.port}", impl=_OURS)
        return made

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Its daemon, which may have damage to tell of."""
        with self.site.serving_process(self.store, "--listen", f"127.0.0.1:{self.port}") as (_, process):
            yield
            process.send_signal(signal.SIGTERM)
            assert Outcome.of(process, timeout=END_S).code == 0

    def agent(self, root_keys: Path, *more: object):
        """Let the agent of this site do once what is to be done."""
        words = ("--rse", self.rse, "--store", self.store, "--root-keys", root_keys, "--once", *more)
        return self.site.ok("rucio", "agent", *words)

    def path(self, name: str) -> Path:
        """Where the file of that name in Rucio is in the store."""
        return self.store / "public" / public_path(name)


def downloaded(rucio, rse: str, did: Did, place: Path) -> dict[str, bytes]:
    """What Rucio's own program brings of a dataset from one RSE, by name."""
    rucio.run("rucio", "download", "--rses", rse, "--dir", place, did)
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_two_releases_from_the_origin_to_two_sites_and_out_again(rucio, tmp_path: Path) -> None:
    old = trees.fill(trees.one_of_each(tmp_path / "old") / "data", seed=31, files=60, file_bytes=400 * trees.KIB).parent
    new = trees.copy(old, tmp_path / "new")
    trees.change(new / "data", seed=32, share=0.3)
    publisher = Site(tmp_path / "publisher")
    origin = Origin(publisher, tmp_path / "origin", old, new)
    for tree, release in ((old, _OLD), (new, _NEW)):
        publisher.publish(tree, release, origin.store)
    centre = Element.of(rucio, _ORIGIN, publisher, origin.store)
    near, far = (Element.of(rucio, rse, Site(tmp_path / rse), tmp_path / f"{rse}-store") for rse in (_NEAR, _FAR))
    client = catalogue_of(rucio).client
    datasets, rules = {}, {}

    with centre.serving():
        # Both are registered; what they share, once.
        for release in (_OLD, _NEW):
            words = (release, "--rse", centre.rse, "--store", centre.store, "--create-scope")
            datasets[release] = Did.parse(publisher.ok("rucio", "register", *words)["dataset"])
        files = {
            release: {
                one["name"]: centre.path(one["name"]).read_bytes() for one in client.list_content(did.scope, did.name)
            }
            for release, did in datasets.items()
        }
        shared = files[_OLD].keys() & files[_NEW].keys()
        assert shared
        assert len(list(client.list_replicas([did.fields() for did in datasets.values()], sort="random"))) == len(
            files[_OLD].keys() | files[_NEW].keys()
        )
        # Rules bring them to a site, the second one only what is new.
        for release in (_OLD, _NEW):
            rules[release] = client.add_replication_rule([datasets[release].fields()], 1, near.rse)[0]
            came = near.agent(origin.root_keys)["bytes_came"]
        new_bytes = sum(len(data) for name, data in files[_NEW].items() if name not in shared)
        assert new_bytes <= came < new_bytes * 1.1 + 2 * trees.MIB
        assert {client.get_replication_rule(rule)["state"] for rule in rules.values()} == {"OK"}
        with near.serving():
            # Rucio's own client has them from both, bit for bit.
            for release, did in datasets.items():
                for rse in (centre.rse, near.rse):
                    assert downloaded(rucio, rse, did, tmp_path / f"{rse}-{release}") == files[release]

    # Another site is brought what two have, of which one gives a damaged pack: it is the other's that counts.
    victim = min(name for name in files[_NEW] if name.endswith(".pack"))
    right = near.path(victim).read_bytes()
    near.path(victim).write_bytes(right[:2000] + bytes([right[2000] ^ 1]) + right[2001:])
    far_rule = client.add_replication_rule([datasets[_NEW].fields()], 1, far.rse)[0]
    with near.serving():
        # Rucio's client does not take it for good.
        did = Did(datasets[_NEW].scope, victim)
        rucio.run("rucio", "download", "--rses", near.rse, "--dir", tmp_path / "damaged", did, check=False)
        assert not list((tmp_path / "damaged").rglob(victim))
        with centre.serving():
            far.agent(origin.root_keys)
    assert client.get_replication_rule(far_rule)["state"] == "OK"
    assert {name: far.path(name).read_bytes() for name in files[_NEW]} == files[_NEW]
    # Somebody has told Rucio of the damage: the site's agent has it replaced, with the origin off.
    client.declare_bad_file_replicas(
        [{**Did(datasets[_NEW].scope, victim).fields(), "rse": near.rse}], "a job could not read it"
    )
    with far.serving():
        near.agent(origin.root_keys)
        assert near.path(victim).read_bytes() == right
        # From Rucio alone, an installer has the release; origin and the first site are off.
        root = tmp_path / "root"
        far.site.ok("install", _NEW, "--from", "rucio://sw", "--root-keys", origin.root_keys, "--root", root)
        far.site.ok("verify", _NEW, "--root", root)

    # Rules go, and with them what nothing else wants; then the old release leaves Rucio.
    end_rule(rucio, client, rules[_OLD])
    assert near.agent(origin.root_keys, "--grace", "0")["let_go"] == 1
    assert not (near.store / "public/holdings" / _OLD).exists()
    assert all(near.path(name).exists() for name in files[_NEW])
    publisher.ok("rucio", "retire", _OLD, "--rse", centre.rse, "--store", centre.store)
    assert [one["name"] for one in client.list_content(datasets[_NEW].scope, "sw.Delivery")] == [datasets[_NEW].name]
    status = publisher.ok("rucio", "status", _NEW)
    held = {share["rse"] for share in status["datasets"][0]["shares"] if share["is_complete"]}
    assert held == {centre.rse, near.rse, far.rse}

"""A site's agent: what Rucio's rules want is in its store, verified, reported, and goes again; a real Rucio, real daemons."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import shutil
import signal
import subprocess

import pytest

from pacmirror.delivery.rucio.agent import Agent, AgentConfig
from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.naming import Did, FileKind, dataset_name, file_name
from pacmirror.delivery.rucio.rse import Rse
from pacmirror.delivery.rucio.spoiling import Spoiling
from pacmirror.delivery.rucio.trusting import make_trust
from pacstore.damage import DamagedPart
from pacstore.ledger import damage, pins
from pacstore.release import Release
from pacstore.storage import ObjectKind
from pacstore.store import Store
from pacstore.volumes.bundle import make_bundle
from tests.e2e import trees
from tests.e2e.site import END_S, Origin, Outcome, Site, free_port, get, wait_until
from tests.peers.rucio.rses import SCOPE, add_rse, catalogue_of, end_rule
from tests.peers.rucio.server import running_rucio
from tests.store.carried import carry_in, carry_out, root_of
from tests.store.releases import NOW
from tests.store.repacks import SECOND, do_repack, make_worn
from tests.store.sweeping import DAY

pytestmark = [pytest.mark.peers, pytest.mark.timeout(400)]
_OLD, _NEW = "Agent-1.0-x86_64-linux", "Agent-1.1-x86_64-linux"
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def registered(rucio, tmp_path_factory):
    """An origin with two releases that share packs, both registered in Rucio; its daemon; and the datasets."""
    home = tmp_path_factory.mktemp("origin")
    site = Site(home / "home")
    site.environment |= {"RUCIO_HOME": str(rucio.client_home())}
    old = trees.fill(trees.one_of_each(home / "old") / "data", seed=1, files=60, file_bytes=400 * trees.KIB).parent
    new = trees.copy(old, home / "new")
    trees.change(new / "data", seed=2, share=0.3)
    origin = Origin(site, home / "store", old, new)
    for tree, release in ((old, _OLD), (new, _NEW)):
        site.publish(tree, release, origin.store)
    client = catalogue_of(rucio).client
    with site.serving(origin.store) as url:
        add_rse(client, "AGENT-ORIGIN", url)
        done = [
            site.ok("rucio", "register", release, "--rse", "AGENT-ORIGIN", "--store", origin.store, "--create-scope")
            for release in (_OLD, _NEW)
        ]
        yield origin, [Did.parse(one["dataset"]) for one in done]


class Shop:
    """A site with an RSE of its own, and its store; what an administrator of Rucio does with it."""

    def __init__(self, rucio, origin, datasets, home):
        self.rucio, self.origin, (self.old, self.new) = rucio, origin, datasets
        self.catalogue = catalogue_of(rucio)
        self.client = self.catalogue.client
        self.name = f"AGENT-SITE-{next(_NUMBERS)}"
        self.port = free_port()
        add_rse(self.client, self.name, f"http://127.0.0.1:{self.port}")
        self.site = Site(home / "home")
        self.site.environment |= {"RUCIO_HOME": str(rucio.client_home())}
        self.store = home / "store"
        self.rse = Rse(self.catalogue, self.name, SCOPE)

    def rule(self, did) -> str:
        return self.client.add_replication_rule([did.fields()], 1, self.name)[0]

    def words(self, *more):
        return (
            "rucio",
            "agent",
            "--rse",
            self.name,
            "--store",
            self.store,
            "--root-keys",
            self.origin.root_keys,
            *more,
        )

    def once(self, *more):
        return self.site.ok(*self.words("--once", *more))

    def state(self, rule) -> str:
        return self.client.get_replication_rule(rule)["state"]

    def states(self, did) -> set[str]:
        return {file.state for file in self.rse.files(did).values()}

    def packs(self) -> set[str]:
        return {path.name for path in (self.store / "public/packs").glob("*/*")}


@pytest.fixture
def shop(rucio, registered, tmp_path):
    origin, datasets = registered
    return Shop(rucio, origin, datasets, tmp_path)


def test_rules_are_fulfilled_and_the_second_release_moves_only_its_new_packs(shop):
    rules = [shop.rule(shop.old)]
    first = shop.once()
    assert (first["datasets"]["wanted"], first["datasets"]["whole"], first["delivered"]) == (1, 1, 1)
    assert [shop.state(rule) for rule in rules] == ["OK"]
    shared = shop.packs()
    rules.append(shop.rule(shop.new))
    second = shop.once()
    assert (second["datasets"]["whole"], second["delivered"]) == (2, 1)
    assert [shop.state(rule) for rule in rules] == ["OK", "OK"]
    added = sum((shop.store / f"public/packs/{name[:2]}/{name}").stat().st_size for name in shop.packs() - shared)
    assert added <= second["bytes_came"] < added * 1.1 + 2 * trees.MIB
    # Nothing more is to be done, and the store is a mirror like any other.
    assert shop.once()["files_reported"] == 0
    shop.site.ok("store", "check", "--store", shop.store)
    shop.site.ok(
        "install", _NEW, "--root", shop.site.home / "root", "--from", shop.store, "--root-keys", shop.origin.root_keys
    )


def test_what_no_rule_wants_leaves_rucio_first_and_shared_packs_stay(shop):
    rules = [shop.rule(did) for did in (shop.old, shop.new)]
    shop.once()
    before = shop.packs()
    end_rule(shop.rucio, shop.client, rules[0])
    # It stays for its grace time ...
    waiting = shop.once()
    assert (waiting["datasets"]["leaving"], waiting["let_go"]) == (1, 0)
    assert waiting["leaves_first"]
    assert shop.states(shop.old) == {"AVAILABLE"}
    # ... and wanted again in between, for good.
    rules[0] = shop.rule(shop.old)
    assert shop.once("--grace", "0")["datasets"]["leaving"] == 0
    end_rule(shop.rucio, shop.client, rules[0])
    gone = shop.once("--grace", "0")
    assert (gone["let_go"], gone["datasets"]["whole"]) == (1, 1)
    files = shop.rse.files(shop.old)
    shared = files.keys() & shop.rse.files(shop.new).keys()
    assert {name for name, file in files.items() if file.state != "AVAILABLE"} == files.keys() - shared
    assert shop.states(shop.new) == {"AVAILABLE"}
    assert shop.packs() == before
    assert not (shop.store / "public/holdings" / _OLD).exists()
    # The disk is freed by the store's own collection.
    shop.site.ok("store", "gc", "--store", shop.store, "--grace", "0")
    shop.site.ok("store", "gc", "--store", shop.store, "--grace", "0")
    assert {f"{name}.pack" for name in shop.packs()} == {
        name for name in shop.rse.files(shop.new) if name.endswith(".pack")
    }
    shop.site.ok("store", "check", "--store", shop.store)
    # Wanted once more, only what has left comes.
    shop.rule(shop.old)
    assert shop.once()["datasets"]["whole"] == 2
    assert shop.states(shop.old) == {"AVAILABLE"}


def test_a_corrupt_replica_is_reported_by_nobody_and_replaced_by_a_right_one(shop, registered, rucio, tmp_path):
    shop.rule(shop.old)
    shop.once()
    other = Shop(rucio, *registered, tmp_path / "other")
    rule = other.rule(other.old)
    packs = sorted((shop.origin.store / "public/packs").glob("*/*"))
    right = {path: path.read_bytes() for path in packs if path.name in shop.packs()}
    for path, data in right.items():
        path.write_bytes(data[:500_000] + bytes([data[500_000] ^ 1]) + data[500_001:])
    try:
        done = other.site.run(*other.words("--once"))
        assert done.code == 1, done.err
        assert str(other.old) in done.err
        assert not {name for name in other.packs() if name in shop.packs()}
        told = {name for name, file in other.rse.files(other.old).items() if file.state == "AVAILABLE"}
        assert not {name for name in told if name.endswith(".pack")}
        # As soon as another RSE has it right, it comes from there.
        with shop.site.serving(shop.store, "--listen", f"127.0.0.1:{shop.port}"):
            other.once()
    finally:
        for path, data in right.items():
            path.write_bytes(data)
    assert other.state(rule) == "OK"
    other.site.ok("store", "check", "--store", other.store)


def test_killed_anywhere_it_goes_on_and_reports_nothing_that_is_not_there(shop):
    shop.rule(shop.old)
    rule = shop.rule(shop.new)
    for seconds in (1.5, 2.5, 3.5):
        with shop.site.start(*shop.words("--poll", "1s")) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
        for did in (shop.old, shop.new):
            told = {file.name for file in shop.rse.files(did).values() if file.state == "AVAILABLE"}
            assert {name for name in told if name.endswith(".pack")} <= {f"{name}.pack" for name in shop.packs()}
    shop.once()
    assert shop.state(rule) == "OK"
    assert shop.states(shop.old) | shop.states(shop.new) == {"AVAILABLE"}
    shop.site.ok("store", "check", "--store", shop.store)


def test_rucio_restarted_in_the_middle_loses_nothing_and_the_state_is_clear(shop):
    rule = shop.rule(shop.old)
    shop.once()
    with shop.site.start(*shop.words("--poll", "1s", "--grace", "0")) as process:
        try:
            shop.rucio.stop()
            try:
                wait_until(lambda: "tries again" in _said(process), seconds=90)
            finally:
                shop.rucio.start()
            newer = shop.rule(shop.new)
            wait_until(lambda: shop.state(newer) == "OK", seconds=90)
        finally:
            process.send_signal(signal.SIGTERM)
            done = Outcome.of(process, timeout=END_S)
    assert done.code == 0, done.err
    assert "goes on" in done.err
    assert shop.state(rule) == "OK"
    assert (shop.store / "public/holdings" / _OLD).exists()


def test_a_rucio_that_was_set_up_anew_takes_nothing_away(shop):
    shop.rule(shop.old)
    shop.once()
    with running_rucio() as other:
        shop.site.environment |= {"RUCIO_HOME": str(other.client_home())}
        shop.site.fails(3, *shop.words("--once", "--grace", "0"))
        add_rse(catalogue_of(other).client, shop.name)
        for _ in range(2):
            asked = shop.once("--grace", "0")
            assert (asked["datasets"]["leaving"], asked["let_go"]) == (1, 0)
    assert (shop.store / "public/holdings" / _OLD).exists()


def test_a_rucio_that_forgot_a_release_and_knows_its_shared_packs_takes_nothing_away(shop):
    for did in (shop.old, shop.new):
        shop.rule(did)
    shop.once()
    with running_rucio() as other:
        shop.site.environment |= {"RUCIO_HOME": str(other.client_home())}
        client = catalogue_of(other).client
        for name in ("AGENT-ORIGIN", shop.name):
            add_rse(client, name)
        for release in (_OLD, _NEW):
            words = ("--rse", "AGENT-ORIGIN", "--store", shop.origin.store, "--root-keys", shop.origin.root_keys)
            shop.site.ok("rucio", "register", release, *words)
        client.add_replication_rule([shop.old.fields()], 1, shop.name)
        outcome = shop.site.run(*shop.words("--once", "--grace", "0"))
        assert outcome.json["datasets"] | {"troubled": 0} == {"wanted": 1, "whole": 1, "troubled": 0, "leaving": 1}
        assert "was its database restored?" in outcome.err
        assert (shop.store / "public/holdings" / _NEW).exists()
        # A person may let it go all the same.
        shop.site.ok("store", "unpin", _NEW, "--owner", "rucio agent", "--store", shop.store)
        assert shop.once("--grace", "0")["datasets"] == {"wanted": 1, "whole": 1, "troubled": 0, "leaving": 0}
        assert not (shop.store / "public/holdings" / _NEW).exists()


def test_what_rules_lock_that_are_no_locks_of_datasets_stays(shop):
    rule = shop.rule(shop.new)
    shop.once()
    single = shop.client.add_replication_rule([shop.new.fields()], 1, f"({shop.name})", grouping="NONE")[0]
    end_rule(shop.rucio, shop.client, rule)
    assert shop.once("--grace", "0")["let_go"] == 0
    assert (shop.store / "public/holdings" / _NEW).exists()
    assert shop.states(shop.new) == {"AVAILABLE"}
    end_rule(shop.rucio, shop.client, single)
    assert shop.once("--grace", "0")["let_go"] == 1
    assert "AVAILABLE" not in shop.states(shop.new)


def test_a_dataset_with_more_files_than_its_release_is_not_called_whole(shop):
    scope, name = "agent-more", shop.old.name
    with contextlib.suppress(Exception):
        shop.client.add_scope("root", scope)
    content = [*shop.client.list_content(SCOPE, name)]
    extra = {**content[0], "name": f"{'0' * 64}.pack"}
    files = [
        {"scope": scope, **{key: file[key] for key in ("name", "bytes", "adler32", "md5")}}
        for file in (*content, extra)
    ]
    shop.client.add_replicas("AGENT-ORIGIN", files)
    shop.client.add_dataset(scope, name)
    shop.client.add_files_to_dataset(scope, name, [{"scope": scope, "name": file["name"]} for file in files])
    shop.client.close(scope, name)
    shop.rule(Did(scope, name))
    outcome = shop.site.run(*shop.words("--once", "--scope", scope))
    assert outcome.code == 1, outcome.err
    assert "1 of its files are not here as Rucio describes them" in outcome.err
    assert outcome.json["datasets"]["whole"] == 0
    # What is right of it was brought and reported.
    states = {file.name: file.state for file in Rse(shop.catalogue, shop.name, scope).files(Did(scope, name)).values()}
    assert {one for one, state in states.items() if state != "AVAILABLE"} == {extra["name"]}


def test_what_was_damaged_and_is_gone_is_not_called_good(shop):
    shop.rule(shop.old)
    shop.once()
    name = min(shop.packs())
    pack = f"packs/{name[:2]}/{name}"
    spoiling = Spoiling()
    with Store.open(shop.store, writable=True) as store:
        with store.ledger.writing() as connection:
            damage.record(connection, [DamagedPart(pack, 0, 100, "is wrong")], now=0.0)
        spoiling.tell(store, shop.rse)
        assert shop.states(shop.old) == {"AVAILABLE", "BAD"}
        (store.public / pack).unlink()
        with store.ledger.writing() as connection:
            damage.end(connection, pack, giver="", now=0.0)
        spoiling.tell(store, shop.rse)
    assert shop.rse.files(shop.old)[f"{name}.pack"].state == "BAD"


def test_two_agents_do_not_fight(shop, tmp_path):
    shop.rule(shop.old)
    with shop.site.start(*shop.words("--poll", "1s")) as process:
        try:
            wait_until(lambda: shop.states(shop.old) == {"AVAILABLE"}, seconds=90)
            # Of one store, the second waits, or says that it would.
            assert "another agent works for this store" in shop.site.fails(6, *shop.words("--once")).err
            # With another store it would report what is not here.
            strange = ("rucio", "agent", "--rse", shop.name, "--store", tmp_path / "other", "--once")
            assert "another agent works for this RSE with another store" in shop.site.fails(7, *strange).err
        finally:
            process.send_signal(signal.SIGTERM)
            assert Outcome.of(process, timeout=END_S).code == 0
    # A store is one RSE's.
    other = ("rucio", "agent", "--rse", f"{shop.name}-B", "--store", shop.store, "--once")
    assert f"is for the RSE {shop.name}, not for" in shop.site.fails(7, *other).err


def test_a_dataset_of_another_catalog_is_refused_and_the_rule_says_why(shop, tmp_path):
    stranger, release = Site(tmp_path / "stranger"), f"Strange{shop.name[-1]}-1.0-x86_64"
    stranger.environment |= {"RUCIO_HOME": str(shop.rucio.client_home())}
    stranger.publish(shop.origin.old, release, tmp_path / "strange")
    with stranger.serving(tmp_path / "strange") as url:
        add_rse(shop.client, f"STRANGE-{shop.name}", url)
        words = ("rucio", "register", release, "--rse", f"STRANGE-{shop.name}", "--store", tmp_path / "strange")
        dataset = stranger.ok(*words)["dataset"]
        shop.rule(shop.old)
        rule = shop.rule(Did.parse(dataset))
        outcome = shop.site.run(*shop.words("--once"))
    assert outcome.code == 1, outcome.err
    assert dataset in outcome.err
    assert outcome.json["datasets"] == {"wanted": 2, "whole": 1, "troubled": 1, "leaving": 0}
    assert "not delivered" in shop.client.get_replication_rule(rule)["comments"]
    assert shop.state(rule) == "REPLICATING"


def test_damage_is_declared_fetched_again_and_good_again(shop):
    shop.rule(shop.old)
    shop.once()
    name = min(shop.packs())
    path = shop.store / f"public/packs/{name[:2]}/{name}"
    right = path.read_bytes()
    path.write_bytes(right[:1000] + bytes([right[1000] ^ 1]) + right[1001:])
    # Somebody else has noticed it.
    shop.rse.declare_bad([f"{name}.pack"], "a job could not read it")
    assert shop.once()["datasets"]["whole"] == 1
    assert path.read_bytes() == right
    assert shop.states(shop.old) == {"AVAILABLE"}
    # It was not so bad after all.
    shop.rse.declare_bad([f"{name}.pack"], "a job could not read it")
    assert shop.once()["bytes_came"] == 0
    assert shop.states(shop.old) == {"AVAILABLE"}


def test_what_was_whole_and_nobody_has_any_more_is_not_counted_as_whole(shop):
    shop.rule(shop.old)
    shop.once()
    name = min(shop.packs())
    (shop.store / f"public/packs/{name[:2]}/{name}").unlink()
    shop.rse.declare_bad([f"{name}.pack"], "it is gone")
    shop.catalogue.set_unavailable("AGENT-ORIGIN", SCOPE, [f"{name}.pack"])
    try:
        outcome = shop.site.run(*shop.words("--once"))
    finally:
        shop.catalogue.set_available("AGENT-ORIGIN", SCOPE, [f"{name}.pack"])
    assert (outcome.code, outcome.json["datasets"]["whole"]) == (1, 0)
    assert shop.once()["datasets"]["whole"] == 1
    assert shop.states(shop.old) == {"AVAILABLE"}


def test_a_mirror_declares_what_it_holds_what_is_damaged_and_what_is_good_again(shop):
    shutil.copytree(shop.origin.store, shop.store)
    words = ("rucio", "declare", "--rse", shop.name, "--store", shop.store)
    first = shop.site.ok(*words)
    assert len(first["added"]) == len(shop.rse.files(shop.old).keys() | shop.rse.files(shop.new).keys())
    assert shop.states(shop.old) == shop.states(shop.new) == {"AVAILABLE"}
    assert not any(shop.site.ok(*words)[key] for key in ("added", "good", "bad"))
    name = min(shop.packs())
    path = shop.store / f"public/packs/{name[:2]}/{name}"
    path.rename(shop.store / "elsewhere")
    assert shop.site.ok(*words)["bad"] == [f"{name}.pack"]
    assert "BAD" in shop.states(shop.old) | shop.states(shop.new)
    (shop.store / "elsewhere").rename(path)
    assert shop.site.ok(*words)["good"] == [f"{name}.pack"]
    assert shop.states(shop.old) == shop.states(shop.new) == {"AVAILABLE"}


def test_the_daemon_keeps_an_rse_by_its_configuration(shop):
    config = shop.site.home / "pacball.toml"
    lines = [
        f'store = "{shop.store}"',
        f'trusted_root = "{shop.origin.root_keys}"',
        "[delivery.rucio]",
        f'rse = "{shop.name}"',
        'poll = "1s"',
    ]
    config.write_text("\n".join(lines))
    rule = shop.rule(shop.old)
    with shop.site.start("serve", "--config", config, "--listen", "127.0.0.1:0") as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            wait_until(lambda: shop.state(rule) == "OK", seconds=90)

            def status():
                return json.loads(get(f"{url}/v1/status")[2])

            wait_until(lambda: status()["rucio"]["datasets"]["whole"] == 1, seconds=90)
            assert status()["rucio"]["fault"] == ""
            metrics = get(f"{url}/metrics")[2].decode()
            assert "pacball_rucio_up 1.0" in metrics
            assert "pacball_rucio_datasets_wanted 1.0" in metrics
            shown = shop.site.run("mirror", "status", url)
            assert (shown.code, shown.json["rucio"]["rse"]) == (0, shop.name)
            # What it has it serves, under the names of Rucio, too.
            shop.site.ok(
                "install", _OLD, "--root", shop.site.home / "root", "--from", url, "--root-keys", shop.origin.root_keys
            )
            for name, file in shop.rse.files(shop.old).items():
                assert len(get(f"{url}/rucio/sw/{name}")[2]) == file.length
            shop.rucio.stop()
            try:
                wait_until(lambda: status()["rucio"]["state"] == "away", seconds=120)
                assert any("cannot go on" in warning for warning in status()["warnings"])
            finally:
                shop.rucio.start()
            wait_until(lambda: status()["rucio"]["state"] == "idle", seconds=90)
        finally:
            process.send_signal(signal.SIGTERM)
            done = Outcome.of(process, timeout=60)
    assert done.code == 0, done.err


def test_a_dataset_whose_packs_were_replaced_at_the_origin_is_kept_beside_the_new_ones(rucio, tmp_path):
    worn = make_worn(tmp_path / "origin")
    store, root = worn.store.path, root_of(worn.store.path)
    catalogue, name, rse = catalogue_of(rucio), "AGENT-WORN", "AGENT-WORN-SITE"
    with Site(tmp_path / "home").serving(store) as url:
        add_rse(catalogue.client, name, url)
        add_rse(catalogue.client, rse)
        bundle = make_bundle(worn.store, Release.parse(SECOND), root=root, clock=lambda: NOW + DAY)
        did = Did(SCOPE, dataset_name(bundle.entry))
        kinds = {
            FileKind.BUNDLE: [bundle.digest],
            FileKind.MANIFEST: [bundle.entry.manifest.digest],
            FileKind.PACK: bundle.packs,
        }
        files = [
            FileRecord(
                file_name(kind, digest), True, worn.store.storage.size(kind.object_kind, digest), "0" * 8, "0" * 32
            )
            for kind, digests in kinds.items()
            for digest in digests
        ]
        catalogue.add_replicas(name, SCOPE, files)
        catalogue.client.add_dataset(SCOPE, did.name)
        catalogue.attach(did, [file.name for file in files])
        do_repack(worn)
        # The site has seen that by another way.
        carry_out(store, tmp_path / "catalog.tar", [])
        carry_in([tmp_path / "catalog.tar"], tmp_path / "site", root=root)
        rule = catalogue.client.add_replication_rule([did.fields()], 1, rse)[0]
        config = AgentConfig(rse, tmp_path / "site", grace_seconds=0.0)
        agent = Agent(config, connect=lambda: catalogue_of(rucio), trust=make_trust(root), clock=lambda: NOW + DAY)
        standing = agent.once()
    assert not standing.troubles
    assert catalogue.client.get_replication_rule(rule)["state"] == "OK"
    with Store.open(tmp_path / "site", writable=False) as site, site.ledger.reading() as connection:
        kept = {pin.name for pin in pins.listed(connection, now=NOW + DAY)}
        assert {str(pack) for pack in bundle.packs} <= kept
        assert all(site.storage.size(ObjectKind.PACK, pack) == length for pack, length in bundle.packs.items())
    # Nothing is left of them when nobody wants them any more.
    end_rule(rucio, catalogue.client, rule)
    assert agent.once().let_go == 1
    with Store.open(tmp_path / "site", writable=False) as site, site.ledger.reading() as connection:
        assert pins.listed(connection, now=NOW + DAY) == []


def _said(process) -> str:
    """What a running command has said on standard error since it was asked last."""
    ready, _, _ = select.select([process.stderr], [], [], 0.1)
    return process.stderr.readline() if ready else ""

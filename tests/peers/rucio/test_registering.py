"""Registering releases in a real Rucio: what is there then, and what becomes of it where something goes wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import signal
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rucio.client import Client

from pacmirror.delivery.rucio.catalogue import BATCH, FileRecord, Patience, RucioCatalogue
from pacmirror.delivery.rucio.material import Material
from pacmirror.delivery.rucio.naming import Did, FileKind, dataset_name, file_name, public_path
from pacmirror.delivery.rucio.registering import Registered, Target, register
from pacmirror.delivery.rucio.retiring import Retired, retire
from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Refused, Unavailable
from pacstore.release import Release
from pacstore.trust.targets import CatalogRelease, SignedDocument
from tests.e2e.site import Origin, Site, free_port
from tests.peers.conftest import NEW, OLD
from tests.peers.rucio.server import Rucio

pytestmark = pytest.mark.peers
RSE = "REGISTER-ORIGIN"
_numbers = itertools.count(1)
NO_PATIENCE = Patience(answer_seconds=2.0, attempts=2, pause_seconds=0.05)


@pytest.fixture(scope="module")
def client(rucio: Rucio):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUCIO_HOME", str(rucio.client_home()))
        made = Client()
        add_rse(made, RSE)
        yield made


@pytest.fixture
def scope(client: Client) -> str:
    name = f"reg{next(_numbers)}"
    client.add_scope("root", name)
    return name


@pytest.fixture
def catalogue(client: Client) -> RucioCatalogue:
    return RucioCatalogue.connect()


@pytest.fixture(scope="module")
def origin(origin: Origin, tmp_path_factory) -> Origin:
    """An origin of our own: what is registered is pinned, and its bundles are kept."""
    store = tmp_path_factory.mktemp("registered") / "store"
    shutil.copytree(origin.store, store)
    return replace(origin, store=store)


@pytest.fixture
def bridge(origin: Origin, rucio: Rucio) -> Site:
    """The publisher's site, which has a Rucio."""
    site = Site(origin.site.home)
    # What is published here, nobody else has seen.
    site.environment["XDG_STATE_HOME"] = str(origin.store.parent / "state")
    site.environment["RUCIO_HOME"] = str(rucio.client_home())
    return site


def retired(catalogue: RucioCatalogue, release: Release, **how: Any) -> Retired:
    return retire(catalogue, release, now=time.time(), **how)


def add_rse(client: Client, name: str, **other: object) -> None:
    client.add_rse(name, **{"deterministic": True, **other})
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    domain = {"read": 1, "write": 1, "delete": 0}
    client.add_protocol(
        name,
        {
            "scheme": "https",
            "hostname": "origin.example.org",
            "port": 443,
            "prefix": "/rucio/",
            "impl": "rucio.rse.protocols.webdav.Default",
            "domains": {"lan": domain, "wan": {**domain, "third_party_copy_read": 1, "third_party_copy_write": 1}},
        },
    )


DOCUMENT = SignedDocument.of_all([b"a document"])


class Made:
    """A release of which Rucio sees what it sees of any other, with as many packs as one likes."""

    def __init__(self, name: str, packs: range, *, bundle: bytes = b"of then") -> None:
        tree = Digest.of(name.encode())
        self.entry = CatalogRelease(Release.parse(name), tree, DOCUMENT, DOCUMENT, DOCUMENT, 1, 1, 1, 1)
        self.packs = packs
        self.made = Digest.of(name.encode() + bundle)
        self.pinned = 0

    def files(self, bundle: Digest) -> list[FileRecord]:
        packs = [record(FileKind.PACK, Digest.of(b"pack %d" % number)) for number in self.packs]
        return [record(FileKind.BUNDLE, bundle), record(FileKind.MANIFEST, self.entry.tree_digest), *packs]

    def consign(self, known: Digest | None, *, with_pacball: bool) -> Material:
        self.pinned += 1
        bundle = known or self.made
        return Material(bundle, tuple(self.files(bundle)), None, is_new=self.pinned == 1)

    def take_back(self) -> None:
        self.pinned = 0


def record(kind: FileKind, digest: Digest) -> FileRecord:
    return FileRecord(file_name(kind, digest), True, 1000 + digest.raw[0], digest.hex[:8], digest.hex[:32])


def target(scope: str, **other: bool) -> Target:
    return Target(RSE, scope, **other)


def check_whole(catalogue: RucioCatalogue, material: Made, scope: str) -> None:
    """Rucio has all of it, and nothing else."""
    did = Did(scope, dataset_name(material.entry))
    found = catalogue.collection(did)
    assert found is not None
    assert not found.is_open
    files = {one.name: one for one in material.files(Digest.parse(found.metadata["sw_bundle"]))}
    assert found.length == len(files)
    assert found.bytes_total == sum(one.length for one in files.values())
    assert catalogue.content(did) == files
    assert catalogue.files(scope, files) == files
    assert set(catalogue.replica_states(RSE, scope, files).values()) == {"AVAILABLE"}
    assert catalogue.available(did) == {RSE: len(files)}
    assert catalogue.parents(did) == {f"{scope}:sw.{material.entry.release.project}"}


class Died(BaseException):
    """The process was killed."""


def dying(catalogue: RucioCatalogue, after: int) -> RucioCatalogue:
    """The catalogue of a process that is killed before it makes its next request, after so many."""
    send, left = catalogue.client._send_request, itertools.count(after, -1)

    def counted(*args, **kwargs):
        if next(left) == 0:
            raise Died
        return send(*args, **kwargs)

    catalogue.client._send_request = counted
    return catalogue


def test_a_registered_release_is_what_the_convention_says(
    bridge: Site, origin: Origin, rucio: Rucio, client: Client, scope: str
) -> None:
    done = bridge.ok("rucio", "register", OLD, "--rse", RSE, "--store", origin.store, "--scope", scope)
    shown = bridge.ok("show", OLD, "--from", origin.store)
    assert done["dataset"] == f"{scope}:sw.{OLD}.b3-{str(shown['tree_digest'])[:16]}.p{shown['placement_number']}"
    files = list(client.list_content(scope, done["dataset"].partition(":")[2]))
    assert len(files) == done["files"] >= 3
    for one in files:
        data = (origin.store / "public" / public_path(one["name"])).read_bytes()
        assert one["bytes"] == len(data)
        assert one["adler32"] == f"{zlib.adler32(data):08x}"
        assert one["md5"] == hashlib.md5(data).hexdigest()
        assert one["name"].partition(".")[2] == "pack" or Digest.of(data).hex == one["name"].partition(".")[0]
    assert sorted(one["name"].rpartition(".")[2] for one in files)[:2] == ["bundle", "manifest"]
    parents = list(client.list_parent_dids(scope, done["dataset"].partition(":")[2]))
    assert [one["name"] for one in parents] == ["sw.Stack"]
    # As people look for it, with Rucio's own command.
    query = f"sw_project=Stack,sw_platform=x86_64-linux,sw_tree={shown['tree_digest']}"
    said = rucio.run("rucio", "did", "list", "--short", "--filter", query, f"{scope}:*").stdout
    assert said.split() == [done["dataset"]]
    query = f"sw_manifest={shown['manifest_digest']},sw_version='1.0',sw_release={OLD}"
    assert rucio.run("rucio", "did", "list", "--short", "--filter", query, f"{scope}:*").stdout == said
    pins = bridge.ok("store", "pins", "--store", origin.store)["pins"]
    assert [(one["name"], one["owner"]) for one in pins] == [(OLD, "rucio")]
    again = bridge.ok("rucio", "register", OLD, "--rse", RSE, "--from", origin.store, "--scope", scope)
    assert (again["was_complete"], again["bundle"]) == (True, done["bundle"])


def test_the_next_release_registers_only_what_is_new_and_its_pacball(
    bridge: Site, origin: Origin, client: Client, scope: str
) -> None:
    words = ("--rse", RSE, "--store", origin.store, "--scope", scope)
    first = bridge.ok("rucio", "register", OLD, *words)
    second = bridge.ok("rucio", "register", NEW, *words, "--pacball")
    packs = {"old": set(), "new": set()}
    for which, done in (("old", first), ("new", second)):
        content = client.list_content(scope, done["dataset"].partition(":")[2])
        packs[which] = {one["name"] for one in content if one["name"].endswith(".pack")}
    assert packs["old"] & packs["new"]
    assert second["dids"] == len(packs["new"] - packs["old"]) + 3  # manifest, bundle, pacball
    [pacball] = client.list_content(scope, second["pacball"].partition(":")[2])
    bridge.ok("fetch", NEW, "--from", origin.store, "-o", bridge.home / "fetched.sh")
    data = (bridge.home / "fetched.sh").read_bytes()
    assert (pacball["bytes"], pacball["adler32"]) == (len(data), f"{zlib.adler32(data):08x}")
    assert pacball["md5"] == hashlib.md5(data).hexdigest()
    assert {one["name"] for one in client.list_content(scope, "sw.Stack")} == {
        first["dataset"].partition(":")[2],
        second["dataset"].partition(":")[2],
    }


def test_a_second_time_changes_nothing_and_asks_little(catalogue: RucioCatalogue, scope: str) -> None:
    first = register(catalogue, Made("Twice-1-x", range(20)), target(scope))
    calls = catalogue.calls
    # The catalog is newer by now, so the store would make another bundle.
    newer = Made("Twice-1-x", range(20), bundle=b"of today")
    second = register(catalogue, newer, target(scope))
    assert catalogue.calls - calls <= 10
    assert (second.was_complete, second.dids, second.replicas) == (True, 0, 0)
    assert second.bundle == first.bundle != newer.made
    check_whole(catalogue, newer, scope)


def test_thousands_of_packs_are_registered_in_batches(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Large-1-x", range(BATCH + 100))
    sizes = []
    send = catalogue.client._send_request

    def watched(url, method, *args, data=None, **kwargs):
        value = json.loads(data) if isinstance(data, str) else {}
        sizes.extend(len(one) for one in value.values() if isinstance(one, list)) if isinstance(value, dict) else None
        return send(url, method, *args, data=data, **kwargs)

    catalogue.client._send_request = watched
    done = register(catalogue, material, target(scope))
    assert max(sizes) == BATCH
    assert done.files == done.dids == done.replicas == BATCH + 102
    check_whole(catalogue, material, scope)


def test_a_client_that_dies_at_any_point_is_continued(client: Client, scope: str) -> None:
    """As by kill -9 between any two calls: what is left is completed by the same command, from wherever it was."""
    for after in itertools.count(1):
        material = Made(f"Dying{after}-1-x", range(after, after + 5))
        try:
            register(dying(RucioCatalogue.connect(), after), material, target(scope))
        except Died:
            catalogue = RucioCatalogue.connect()
            newer = Made(f"Dying{after}-1-x", material.packs, bundle=b"of today")
            assert not register(catalogue, newer, target(scope)).was_complete or after > 12
            check_whole(catalogue, newer, scope)
        else:
            break
    assert after > 12


def test_a_client_that_dies_again_and_again_comes_to_its_end(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Again-1-x", range(5))
    for after in itertools.count(1):
        try:
            done = register(dying(RucioCatalogue.connect(), after), material, target(scope))
        except Died:
            continue
        break
    assert done.files == 7
    check_whole(catalogue, material, scope)


def test_a_killed_command_is_continued_by_the_same_command(bridge: Site, origin: Origin, scope: str) -> None:
    words = ("rucio", "register", NEW, "--rse", RSE, "--store", origin.store, "--scope", scope)
    for tenths in (5, 8, 11):
        with bridge.start(*words) as process:
            time.sleep(tenths / 10)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
    done = bridge.ok(*words)
    assert bridge.ok(*words)["was_complete"]
    assert done["files"] >= 3


def test_several_at_once_register_the_same_packs(bridge: Site, origin: Origin, rucio: Rucio, scope: str) -> None:
    words = ("--rse", RSE, "--store", origin.store, "--scope", scope)
    with ThreadPoolExecutor(4) as threads:
        started = [threads.submit(bridge.ok, "rucio", "register", name, *words) for name in (OLD, NEW, OLD, NEW)]
        done = [one.result() for one in started]
    assert len({one["dataset"] for one in done}) == 2
    assert done[0]["bundle"] == done[2]["bundle"]
    catalogue = RucioCatalogue.connect()
    for one in done:
        found = catalogue.collection(Did.parse(str(one["dataset"])))
        assert found is not None
        assert (found.is_open, found.length) == (False, one["files"])
        assert catalogue.available(found.did) == {RSE: one["files"]}


def test_several_at_once_with_other_bundles_agree_on_one(client: Client, scope: str) -> None:
    def go(number: int) -> Registered:
        material = Made("Race-1-x", range(200), bundle=b"%d" % number)
        return register(RucioCatalogue.connect(), material, target(scope))

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(go, range(4)))
    assert len({one.bundle for one in done}) == 1
    check_whole(RucioCatalogue.connect(), Made("Race-1-x", range(200)), scope)


@pytest.mark.parametrize("change", [{"length": 7}, {"adler32": "00000007"}, {"md5": "0" * 32}])
def test_a_file_that_rucio_has_otherwise_is_an_error_before_anything_is_registered(
    catalogue: RucioCatalogue, scope: str, change: dict[str, object]
) -> None:
    """Rucio itself would take it silently."""
    material = Made("Clash-1-x", range(5))
    ours = material.files(material.made)[4]
    theirs = replace(ours, **change)
    catalogue.add_replicas(RSE, scope, [theirs])
    with pytest.raises(Refused) as caught:
        register(catalogue, material, target(scope))
    assert caught.value.place == f"{scope}:{ours.name}"
    for one in (ours, theirs):
        assert f"{one.length:,} bytes, adler32 {one.adler32}, md5 {one.md5}" in caught.value.message
    assert "rucio replica list" in caught.value.hint
    assert list(catalogue.client.list_dids(scope, [{"name": "*"}], did_type="collection")) == []
    assert [one["name"] for one in catalogue.client.list_dids(scope, [{"name": "*"}], did_type="file", long=True)] == [
        ours.name
    ]
    assert material.pinned == 0


def test_a_name_that_is_something_else_in_rucio_is_an_error(catalogue: RucioCatalogue, scope: str) -> None:
    for number, (kind, name) in enumerate(
        [("CONTAINER", dataset_name(Made("Kind0-1-x", range(1)).entry)), ("DATASET", "sw.Kind1")]
    ):
        material = Made(f"Kind{number}-1-x", range(1))
        catalogue.add_collection(Did(scope, name), kind, metadata={})
        with pytest.raises(Refused, match="in Rucio, but a"):
            register(catalogue, material, target(scope))
        assert material.pinned == 0


def test_a_dataset_of_another_tree_is_an_error(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Tree-1-x", range(1))
    did = Did(scope, dataset_name(material.entry))
    catalogue.add_collection(did, "DATASET", metadata={"sw_tree": "0" * 64})
    with pytest.raises(Refused, match=f"its sw_tree is {'0' * 64}"):
        register(catalogue, material, target(scope))


def test_a_dataset_that_others_made_by_hand_is_completed(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Hand-1-x", range(3))
    catalogue.add_collection(Did(scope, dataset_name(material.entry)), "DATASET", metadata={})
    register(catalogue, material, target(scope))
    check_whole(catalogue, material, scope)
    # And one whose metadata somebody has changed.
    did = Did(scope, dataset_name(material.entry))
    catalogue.set_metadata(did, {"sw_platform": "other"})
    assert not register(catalogue, material, target(scope)).was_complete
    found = catalogue.collection(did)
    assert found is not None
    assert found.metadata["sw_platform"] == "x"
    assert register(catalogue, material, target(scope)).was_complete


def test_a_dataset_closed_too_early_is_an_error_that_says_what_is_missing(
    catalogue: RucioCatalogue, scope: str
) -> None:
    material = Made("Early-1-x", range(3))
    did = Did(scope, dataset_name(material.entry))
    records = material.files(material.made)
    catalogue.add_replicas(RSE, scope, records)
    catalogue.add_collection(did, "DATASET", metadata={"sw_bundle": material.made.hex})
    catalogue.attach(did, [one.name for one in records[:-1]])
    catalogue.close(did)
    with pytest.raises(Refused, match=f"is closed, but lacks 1 of its files: {records[-1].name}") as caught:
        register(catalogue, material, target(scope))
    assert f"rucio did update --open {did}" in caught.value.hint
    catalogue.client.set_status(scope, did.name, open=True)
    register(catalogue, material, target(scope))
    check_whole(catalogue, material, scope)


def test_a_dataset_with_other_files_is_an_error(catalogue: RucioCatalogue, scope: str) -> None:
    material, strange = Made("More-1-x", range(3)), record(FileKind.PACK, Digest.of(b"strange"))
    did = Did(scope, dataset_name(material.entry))
    catalogue.add_replicas(RSE, scope, [strange])
    catalogue.add_collection(did, "DATASET", metadata={"sw_bundle": material.made.hex})
    catalogue.attach(did, [strange.name])
    with pytest.raises(Refused, match=f"has 1 file that the release does not have: {strange.name}"):
        register(catalogue, material, target(scope))


@pytest.mark.parametrize("state", ["U", "C", "T"])
def test_a_replica_that_is_not_available_becomes_so(catalogue: RucioCatalogue, scope: str, state: str) -> None:
    material = Made("State-1-x", range(3))
    pack = material.files(material.made)[-1]
    catalogue.add_replicas(RSE, scope, [pack])
    catalogue.client.update_replicas_states(RSE, [{"scope": scope, "name": pack.name, "state": state}])
    assert register(catalogue, material, target(scope)).made_available == 1
    check_whole(catalogue, material, scope)
    # And where everything is registered already.
    catalogue.client.update_replicas_states(RSE, [{"scope": scope, "name": pack.name, "state": state}])
    assert register(catalogue, material, target(scope)).made_available == 1
    check_whole(catalogue, material, scope)


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [("D", Refused, "pacball rucio declare"), ("B", Unavailable, "run the same command again")],
)
def test_a_replica_that_is_bad_or_goes_is_an_error_before_anything_is_registered(
    catalogue: RucioCatalogue, scope: str, state: str, kind: type[PacballError], words: str
) -> None:
    material = Made("Bad-1-x", range(3))
    pack = material.files(material.made)[-1]
    catalogue.add_replicas(RSE, scope, [pack])
    catalogue.client.update_replicas_states(RSE, [{"scope": scope, "name": pack.name, "state": state}])
    with pytest.raises(kind) as caught:
        register(catalogue, material, target(scope))
    assert caught.value.place == f"{scope}:{pack.name} at {RSE}"
    assert words in caught.value.hint
    assert list(catalogue.client.list_dids(scope, [{"name": "*"}], did_type="collection")) == []
    # What passes is to be continued.
    assert material.pinned == (1 if kind is Unavailable else 0)


def test_a_registered_release_stays_pinned_whatever_is_found_wrong_with_it(
    catalogue: RucioCatalogue, scope: str
) -> None:
    register(catalogue, Made("Kept-1-x", range(3)), target(scope))
    again = Made("Kept-1-x", range(3))  # of a store that was restored, and has no pins
    pack = again.files(again.made)[-1]
    catalogue.client.update_replicas_states(RSE, [{"scope": scope, "name": pack.name, "state": "D"}])
    with pytest.raises(Refused, match="was declared bad"):
        register(catalogue, again, target(scope))
    assert again.pinned == 1


def test_what_is_not_there_is_said_with_what_to_do(catalogue: RucioCatalogue) -> None:
    material = Made("There-1-x", range(1))
    with pytest.raises(NotFound, match="NO-SUCH-RSE") as caught:
        register(catalogue, material, Target("NO-SUCH-RSE", "nosuch"))
    assert "rucio rse add NO-SUCH-RSE" in caught.value.hint
    with pytest.raises(NotFound, match="is no scope in Rucio") as caught:
        register(catalogue, material, target("nosuch"))
    assert "rucio scope add --account root nosuch" in caught.value.hint
    add_rse(catalogue.client, "REGISTER-FREE", deterministic=False)
    with pytest.raises(Refused, match="is not deterministic"):
        register(catalogue, material, Target("REGISTER-FREE", "nosuch"))
    catalogue.client.add_rse("REGISTER-BARE", deterministic=True)
    with pytest.raises(Refused, match="has no protocol"):
        register(catalogue, material, Target("REGISTER-BARE", "nosuch"))
    for wrong in (Target("lower", "nosuch"), Target(RSE, "a:b")):
        with pytest.raises(Refused):
            register(catalogue, material, wrong)
    assert "nosuch" not in catalogue.client.list_scopes()
    register(catalogue, material, target("regmade", make_scope=True))
    check_whole(catalogue, material, "regmade")


def test_a_release_is_registered_and_retired_from_a_machine_that_has_no_store(
    bridge: Site, origin: Origin, rucio: Rucio, scope: str, tmp_path: Path
) -> None:
    release = "Stack-2.0-x86_64-linux"  # of no other scope here
    origin.site.publish(origin.new, release, origin.store, "--keys", origin.root_keys.parent)
    keys, tokens, config = origin.root_keys.parent, tmp_path / "tokens", tmp_path / "pacball.toml"
    token = bridge.ok("token", "create", "manager", "--role", "publish", "--line", "Stack", "--file", tokens)["token"]
    config.write_text(
        f'[refresh]\nkeys = "{keys}"\n[access]\ntoken_file = "{tokens}"\n[uploads]\nenabled = true\nreserve = "1"\n'
    )
    manager = Site(tmp_path / "manager")
    manager.environment["RUCIO_HOME"] = str(rucio.client_home())
    with bridge.serving_process(origin.store, "--config", config) as (url, _):
        (manager.home / "token").write_text(token)
        (manager.home / "token").chmod(0o600)
        (manager.home / "config/pacball").mkdir(parents=True)
        (manager.home / "config/pacball/config.toml").write_text(f'[tokens]\n"{url}" = "{manager.home}/token"\n')
        words = ("--rse", RSE, "--from", url, "--scope", scope)
        trust = ("--root-keys", origin.root_keys)
        done = manager.ok("rucio", "register", release, *words, *trust, "--pacball")
        again = bridge.ok(
            "rucio", "register", release, "--rse", RSE, "--store", origin.store, "--scope", scope, "--pacball"
        )
        assert (again["was_complete"], again["bundle"]) == (True, done["bundle"])
        left = manager.ok("rucio", "retire", release, *words)
        assert (left["files"], left["was_pinned"]) == (done["files"] + 1, True)
    words = ("--rse", RSE, "--store", origin.store, "--scope", scope)
    assert bridge.ok("rucio", "retire", release, *words)["was_pinned"] is False


def test_an_account_without_rights_is_told_so(
    bridge: Site, origin: Origin, client: Client, rucio: Rucio, scope: str
) -> None:
    client.add_account("reguser", "USER", "")
    client.add_identity("reguser", "ddmlab", "USERPASS", "", password="secret")
    bridge.environment["RUCIO_HOME"] = str(rucio.client_home("reguser"))
    words = ("rucio", "register", OLD, "--rse", RSE, "--store", origin.store, "--scope", scope)
    denied = bridge.fails(7, *words)
    assert "the account reguser may not do that" in denied.err
    assert "rucio account attribute set reguser --key admin --value True" in denied.err
    client.add_account_attribute("reguser", "admin", "True")
    assert bridge.ok(*words)["files"] >= 3


def test_a_wrong_password_no_answer_and_no_configuration_are_said(
    bridge: Site, origin: Origin, rucio: Rucio, tmp_path: Path
) -> None:
    words = ("rucio", "register", OLD, "--rse", RSE, "--store", origin.store)
    config = (rucio.client_home() / "etc/rucio.cfg").read_text()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/rucio.cfg").write_text(
        config.replace("= secret", "= wrong").replace(str(rucio.home), str(tmp_path))
    )
    bridge.environment["RUCIO_HOME"] = str(tmp_path)
    assert "does not accept who asks" in bridge.fails(7, *words).err
    (tmp_path / "etc/rucio.cfg").write_text(config.replace(rucio.url, f"http://127.0.0.1:{free_port()}"))
    assert "rucio ping" in bridge.fails(6, *words).err
    bridge.environment["RUCIO_HOME"] = str(tmp_path / "nowhere")
    assert "write rucio.cfg" in bridge.fails(7, *words).err


def test_rucio_gone_in_the_middle_is_continued_when_it_is_back(rucio: Rucio, client: Client, scope: str) -> None:
    """Nothing is lost, whether it refuses the connection or takes it and never answers."""
    for number, (leave, come) in enumerate(((rucio.stop, rucio.start), (rucio.freeze, rucio.thaw))):
        material = Made(f"Gone{number}-1-x", range(5))
        catalogue = RucioCatalogue.connect(patience=NO_PATIENCE)
        send, left = catalogue.client._send_request, itertools.count(9, -1)

        def counted(*args, send=send, left=left, leave=leave, **kwargs):
            if next(left) == 0:
                leave()
            return send(*args, **kwargs)

        catalogue.client._send_request = counted
        try:
            with pytest.raises(Unavailable) as caught:
                register(catalogue, material, target(scope))
        finally:
            come()
        assert rucio.url in caught.value.message
        assert "run the same command again" in caught.value.hint
        assert not register(RucioCatalogue.connect(), material, target(scope)).was_complete
        check_whole(RucioCatalogue.connect(), material, scope)


def test_a_release_that_rucio_wants_with_a_bundle_that_is_gone_is_an_error(
    bridge: Site, origin: Origin, client: Client, scope: str
) -> None:
    shown = bridge.ok("show", OLD, "--from", origin.store)
    name = f"sw.{OLD}.b3-{str(shown['tree_digest'])[:16]}.p{shown['placement_number']}"
    client.add_dids([{"scope": scope, "name": name, "type": "DATASET", "meta": {"sw_bundle": "0" * 64}}])
    gone = bridge.fails(3, "rucio", "register", OLD, "--rse", RSE, "--store", origin.store, "--scope", scope)
    assert f"bundles/00/{'0' * 64}" in gone.err
    client.set_metadata(scope, name, "sw_bundle", "no digest")
    bridge.fails(4, "rucio", "register", OLD, "--rse", RSE, "--store", origin.store, "--scope", scope)


def test_a_retired_release_leaves_and_may_come_back(catalogue: RucioCatalogue, rucio: Rucio, scope: str) -> None:
    old, new = Made("Stack-1-x", range(4)), Made("Stack-2-x", range(2, 6))
    first, second = (register(catalogue, one, target(scope)) for one in (old, new))
    site, client = f"REGISTER-SITE{scope[3:]}", catalogue.client
    add_rse(client, site)
    client.set_local_account_limit("root", site, 10**12)
    [rule] = client.add_replication_rule([first.dataset.fields()], 1, site)
    with pytest.raises(Refused, match=rule) as caught:
        retired(catalogue, old.entry.release, rse=RSE, scope=scope, with_rules=False)
    assert "--delete-rules" in caught.value.hint
    done = retired(catalogue, old.entry.release, rse=RSE, scope=scope, with_rules=True)
    assert (done.datasets, done.files, done.rules) == ((first.dataset,), 4, 1)  # two packs, manifest, bundle
    assert catalogue.content(first.container).keys() == {second.dataset.name}
    check_whole(catalogue, new, scope)
    mine = {one.name for one in old.files(old.made)} - {one.name for one in new.files(new.made)}
    assert set(catalogue.replica_states(RSE, scope, mine).values()) == {"UNAVAILABLE"}
    assert retired(catalogue, old.entry.release, rse=RSE, scope=scope, with_rules=False).files == 0
    # Rucio's own daemon removes what has expired; even then it may come back.
    client.update_replication_rule(rule, {"lifetime": -10})
    rucio.daemon("rucio-judge-cleaner")
    rucio.daemon("rucio-undertaker")
    assert catalogue.collection(first.dataset) is None
    assert register(catalogue, old, target(scope)).made_available == 4
    check_whole(catalogue, old, scope)


def test_a_release_stays_pinned_while_another_scope_has_it(
    bridge: Site, origin: Origin, catalogue: RucioCatalogue, scope: str
) -> None:
    other = f"{scope}also"
    catalogue.client.add_scope("root", other)
    words = ("--rse", RSE, "--store", origin.store)
    for one in (scope, other):
        bridge.ok("rucio", "register", OLD, *words, "--scope", one)
    done = bridge.ok("rucio", "retire", OLD, *words, "--scope", other)
    assert done["was_pinned"] is False
    assert scope in done["kept_in"]
    material = Made("Both-1-x", range(2))
    for one in (scope, other):
        register(catalogue, material, target(one))
    left = [retired(catalogue, material.entry.release, rse=RSE, scope=one, with_rules=False) for one in (other, scope)]
    assert [one.kept_in for one in left] == [(scope,), ()]


def test_a_rule_that_ends_some_day_wants_the_release_until_then(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Lasting-1-x", range(3))
    dataset = register(catalogue, material, target(scope)).dataset
    client, release = catalogue.client, material.entry.release
    client.set_local_account_limit("root", RSE, 10**12)
    [rule] = client.add_replication_rule([dataset.fields()], 1, RSE, lifetime=14 * 86400)
    with pytest.raises(Refused, match=rule):
        retired(catalogue, release, rse=RSE, scope=scope, with_rules=False)
    assert retired(catalogue, release, rse=RSE, scope=scope, with_rules=True).rules == 1
    assert retired(catalogue, release, rse=RSE, scope=scope, with_rules=False).rules == 0


def test_a_release_that_expires_is_kept_when_it_is_registered_again(catalogue: RucioCatalogue, scope: str) -> None:
    material = Made("Back-1-x", range(3))
    dataset = register(catalogue, material, target(scope)).dataset
    retired(catalogue, material.entry.release, rse=RSE, scope=scope, with_rules=False)
    found = catalogue.collection(dataset)
    assert found is not None
    assert found.expires
    register(catalogue, material, target(scope))
    check_whole(catalogue, material, scope)
    found = catalogue.collection(dataset)
    assert found is not None
    assert not found.expires


def test_a_release_that_was_never_registered_cannot_be_retired(catalogue: RucioCatalogue, scope: str) -> None:
    with pytest.raises(NotFound, match="has no dataset") as caught:
        retired(catalogue, Release.parse(OLD), rse=RSE, scope=scope, with_rules=False)
    assert f"rucio did list {scope}:sw.Stack*" in caught.value.hint
    assert f"pacball store unpin {OLD} --owner rucio" in caught.value.hint


def test_the_catalogue_says_what_is_absent(catalogue: RucioCatalogue, scope: str) -> None:
    with pytest.raises(NotFound, match="NO-SUCH"):
        catalogue.rse("NO-SUCH")
    with pytest.raises(NotFound, match=f"{scope}:no-such"):
        catalogue.content(Did(scope, "no-such"))
    assert catalogue.collection(Did(scope, "no-such")) is None
    assert catalogue.files(scope, [f"{'0' * 64}.pack"]) == {}
    assert catalogue.replica_states(RSE, scope, [f"{'0' * 64}.pack"]) == {}
    with pytest.raises(NotFound):
        catalogue.set_available(RSE, scope, [f"{'0' * 64}.pack"])

"""Installing from scopes of a real Rucio: it says where things are, and nobody has to believe it, or what it names."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rucio.client import Client

from pacmirror.delivery.rucio.naming import public_path
from tests.e2e import trees
from tests.e2e.site import Origin, Site, wait_until
from tests.mirror.mischief import flip, missing, serving
from tests.peers.conftest import NEW, OLD
from tests.peers.faketime import Clock
from tests.peers.rucio.server import Rucio

pytestmark = pytest.mark.peers
SCOPE = "located"
SOURCE = f"rucio://{SCOPE}"
ORIGIN, SITE, DAMAGED, STRANGER = "LOCATED-ORIGIN", "LOCATED-SITE", "LOCATED-DAMAGED", "LOCATED-STRANGER"


@dataclass
class Grid:
    """An origin and a site, each with a daemon and an RSE; two releases, registered."""

    client: Client
    origin: Origin
    publisher: Site
    urls: dict[str, str] = field(default_factory=dict)
    daemon: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start_origin(self) -> None:
        """At the same place as before, if there was one. Closing `daemon` kills it."""
        _, _, port = self.urls.get(ORIGIN, ":0").rpartition(":")
        listen = ("--listen", f"127.0.0.1:{port}")
        self.urls[ORIGIN], _ = self.daemon.enter_context(self.publisher.serving_process(self.origin.store, *listen))

    def dataset(self, release: str) -> str:
        [name] = list(self.client.list_dids(SCOPE, [{"name": f"sw.{release}.b3-*.p1"}], did_type="dataset"))
        return name

    def files(self, dataset: str) -> list[dict[str, object]]:
        keys = ("name", "bytes", "adler32", "md5")
        return [{"scope": SCOPE, **{key: one[key] for key in keys}} for one in self.client.list_content(SCOPE, dataset)]

    def content(self, name: str) -> bytes:
        """The bytes of a file."""
        return (self.origin.store / "public" / public_path(name)).read_bytes()


@pytest.fixture(scope="module")
def origin(origin: Origin, tmp_path_factory) -> Origin:
    """An origin of our own: what is registered is pinned, and its bundles are kept."""
    store = tmp_path_factory.mktemp("located") / "store"
    shutil.copytree(origin.store, store)
    return replace(origin, store=store)


@pytest.fixture(scope="module")
def grid(rucio: Rucio, origin: Origin, tmp_path_factory) -> Iterator[Grid]:
    top = tmp_path_factory.mktemp("grid")
    publisher = with_rucio(Site(origin.site.home), rucio)
    publisher.environment["XDG_STATE_HOME"] = str(top / "state")  # others publish more in copies of the same store
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RUCIO_HOME", str(rucio.client_home()))
        client = Client()
        client.add_scope("root", SCOPE)
        made = Grid(client, origin, publisher)
        made.start_origin()
        stack.callback(made.daemon.close)
        add_rse(client, ORIGIN, made.urls[ORIGIN])
        for release in (OLD, NEW):
            publisher.ok("rucio", "register", release, "--store", origin.store, "--rse", ORIGIN, "--scope", SCOPE)
        shutil.copytree(origin.store, top / "site")
        made.urls[SITE] = stack.enter_context(Site(top / "home").serving(top / "site"))
        add_rse(client, SITE, made.urls[SITE])
        for release in (OLD, NEW):
            client.add_replicas(SITE, made.files(made.dataset(release)))
        yield made


def with_rucio(site: Site, rucio: Rucio) -> Site:
    site.environment["RUCIO_HOME"] = str(rucio.client_home())
    return site


@pytest.fixture
def user(site: Site, rucio: Rucio) -> Site:
    return with_rucio(site, rucio)


def add_rse(client: Client, name: str, url: str) -> None:
    client.add_rse(name, deterministic=True)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    domain = {"read": 1, "write": 1, "delete": 0}
    host, _, port = url.removeprefix("http://").partition(":")
    client.add_protocol(
        name,
        {
            "scheme": "http",
            "hostname": host,
            "port": int(port),
            "prefix": "/rucio/",
            "impl": "rucio.rse.protocols.webdav.Default",
            "domains": {"lan": domain, "wan": domain},
        },
    )


def install(grid: Grid, release: str, root: Path, source: str, *words: object) -> tuple[object, ...]:
    keys = grid.origin.site.root_keys(grid.origin.store)
    return ("install", release, "--from", source, "--root", root, "--root-keys", keys, *words)


def failures(done) -> dict[str, str]:
    """What was the matter with which RSE."""
    return {str(one["name"]).partition(" ")[0]: str(one["state"]) for one in done["sources"] if one["failures"]}


@contextlib.contextmanager
def origin_off(grid: Grid) -> Iterator[None]:
    """The origin's daemon is killed, and another one serves at the same place afterwards."""
    grid.daemon.close()
    try:
        yield
    finally:
        grid.start_origin()


def test_with_the_origin_off_rucio_alone_is_enough(user, grid, root):
    """Documents and catalog from the bundle, packs from the site; and the older release after the newer one."""
    with origin_off(grid):
        done = user.ok(*install(grid, NEW, root, SOURCE))
        trees.assert_same(Path(done["path"]), grid.origin.new)
        assert failures(done).keys() <= {ORIGIN}
        assert done["trust"]["mode"] == "pinned"
        done = user.ok(*install(grid, OLD, root, SOURCE))
        trees.assert_same(Path(done["path"]), grid.origin.old)
        assert done["bytes_reused"] > 0
        keys = grid.origin.site.root_keys(grid.origin.store)
        listed = user.ok("list", "--from", SOURCE, "--root-keys", keys)
        assert {one["release"] for one in listed["releases"]} == {OLD, NEW}
        damaged = root / "releases" / OLD / "data"
        victim = next(path for path in sorted(damaged.rglob("*")) if path.is_file() and path.stat().st_size > 100)
        victim.write_bytes(b"x" * victim.stat().st_size)
        assert user.run("verify", OLD, "--root", root).code == 1
        user.ok("verify", OLD, "--root", root, "--repair", "--from", SOURCE, "--root-keys", keys)
        trees.assert_same(Path(done["path"]), grid.origin.old)
        failed = user.fails(6, *install(grid, NEW, root.with_name("other"), f"{SOURCE}?rse={ORIGIN}"))
        assert grid.urls[ORIGIN] in failed.err
        assert grid.dataset(NEW) in failed.err


def test_killed_it_continues(user, grid, root):
    with origin_off(grid):
        whole = user.ok(*install(grid, NEW, root.with_name("other"), SOURCE))["bytes_downloaded"]
        with user.start(*install(grid, NEW, root, SOURCE, "--limit-rate", whole // 8)) as process:
            staged = root / ".pacball/staging"
            wait_until(
                lambda: sum(one.stat().st_blocks for one in staged.rglob("*") if one.is_file()) * 512 > whole // 4
            )
            process.send_signal(signal.SIGKILL)
        done = user.ok(*install(grid, NEW, root, SOURCE))
        assert done["bytes_downloaded"] < whole
        trees.assert_same(Path(done["path"]), grid.origin.new)


def test_storage_that_has_lost_or_damaged_packs_is_named_and_another_has_them(user, grid, root):
    files = grid.files(grid.dataset(OLD))
    served = {f"rucio/{SCOPE}/{one['name']}": grid.content(str(one["name"])) for one in files}
    faults = {"now": flip}
    with serving(served, lambda request: faults["now"] if ".pack" in request.path else None) as storage:
        add_rse(grid.client, DAMAGED, storage.url)
        grid.client.add_replicas(DAMAGED, files)
        source = f"{SOURCE}?rse={DAMAGED}|{SITE}"
        try:
            done = user.ok(*install(grid, OLD, root, source))
            trees.assert_same(Path(done["path"]), grid.origin.old)
            assert failures(done) == {DAMAGED: "wrong"}
            faults["now"] = missing
            done = user.ok(*install(grid, OLD, root.with_name("other"), source))
            trees.assert_same(Path(done["path"]), grid.origin.old)
            assert not failures(done)
            failed = user.fails(3, *install(grid, OLD, root.with_name("third"), f"{SOURCE}?rse={DAMAGED}"))
            assert storage.url in failed.err
        finally:
            grid.client.update_replicas_states(DAMAGED, [{**one, "state": "U"} for one in files])


def test_an_rse_expression_chooses_and_nonsense_is_refused(user, grid, root):
    done = user.ok(*install(grid, OLD, root, f"{SOURCE}?rse={SITE}"))
    assert [str(one["name"]).partition(" ")[0] for one in done["sources"] if one["requests"]] == [SITE]
    failed = user.fails(7, *install(grid, NEW, root, f"{SOURCE}?rse=NOWHERE"))
    assert "NOWHERE" in failed.err
    failed = user.fails(3, *install(grid, "Stack-9.9-x86_64-linux", root, SOURCE))
    assert OLD in failed.err
    failed = user.fails(8, "install", NEW, "--from", SOURCE, "--root", root)
    assert "no root is pinned" in failed.err


def test_while_rucio_is_away_other_sources_are_enough_and_without_them_it_says_so(user, grid, root, rucio):
    found = user.ok("doctor", "--from", SOURCE, "--release", NEW)
    assert sum(one["step"] == "storage" for one in found["findings"]) == 2
    rucio.stop()
    try:
        failed = user.fails(6, *install(grid, OLD, root, SOURCE))
        assert "Rucio" in failed.err
        done = user.run(*install(grid, OLD, root, f"{SOURCE},{grid.urls[ORIGIN]}"))
        assert done.code == 0, done.err
        assert f"{SOURCE} is left out" in done.err
    finally:
        rucio.start()


def test_a_bundle_that_has_expired_needs_a_date_which_is_recorded(user, grid, root, tmp_path):
    clock = Clock(tmp_path / "clock", cached_seconds=1)
    clock.set("+60d")
    failed = user.fails(8, *install(grid, NEW, root, SOURCE), before=clock.before)
    assert "out of date" in failed.err
    _, _, hint = failed.err.partition("--as-of ")
    day = hint.partition(")")[0]
    done = user.ok(*install(grid, NEW, root, SOURCE, "--as-of", day), before=clock.before)
    assert done["trust"]["as_of"] is not None
    history = [json.loads(line) for line in (root / ".pacball/history.jsonl").read_text().splitlines()]
    assert history[-1]["trust"]["as_of"] == done["trust"]["as_of"]


def test_of_a_scope_and_the_origin_the_catalog_is_that_of_the_origin(user, grid, root, tmp_path):
    """Which is the newer one: it knows what was withdrawn since. And what was seen of it holds when it is off again."""
    publisher = grid.origin.site
    tree = trees.fill(tmp_path / "tree", seed=5, files=3, file_bytes=1000)
    publisher.publish(tree, "Stack-1.2-x86_64-linux", grid.origin.store)
    both = f"{SOURCE},{grid.urls[ORIGIN]}"
    done = user.ok(*install(grid, OLD, root, both))
    version = done["trust"]["catalog_version"]
    with origin_off(grid):
        done = user.run(*install(grid, NEW, root, SOURCE))
        assert done.code == 0, done.err
        assert "the newest that was seen here" in done.err
        assert done.json["trust"]["catalog_version"] == version
    publisher.ok("withdraw", NEW, "--reason", "broken", "--store", grid.origin.store)
    other = root.with_name("other")
    wait_until(lambda: user.run(*install(grid, NEW, other, both)).code == 7)
    with origin_off(grid):
        user.fails(7, *install(grid, NEW, other, SOURCE))


def test_a_stranger_may_register_what_he_likes_in_the_scope(user, grid, root, rucio, tmp_path):
    """A later placement, of the same name, with everything that belongs to it: it is of another catalog."""
    stranger = with_rucio(Site(tmp_path / "stranger"), rucio)
    tree = trees.fill(tmp_path / "tree", seed=9, files=3, file_bytes=1000)
    store = tmp_path / "store"
    stranger.publish(tree, NEW, store)
    with stranger.serving(store) as url:
        add_rse(grid.client, STRANGER, url)
        grid.client.add_scope("root", "theirs")
        stranger.ok("rucio", "register", NEW, "--store", store, "--rse", STRANGER, "--scope", "theirs")
        [theirs] = grid.client.list_dids("theirs", [{"name": "sw.*"}], did_type="dataset")
        files = [
            {"scope": SCOPE, **{key: one[key] for key in ("name", "bytes", "adler32", "md5")}}
            for one in grid.client.list_content("theirs", theirs)
        ]
        late = theirs.replace(".p1", ".p99")
        grid.client.add_replicas(STRANGER, files)
        bundle = next(one["name"] for one in files if one["name"].endswith(".bundle"))[:64]
        grid.client.add_dataset(SCOPE, late, meta={"sw_bundle": bundle})
        grid.client.attach_dids(SCOPE, late, files)
        grid.client.close(SCOPE, late)
        try:
            done = user.run(*install(grid, NEW, root, SOURCE))
            assert done.code == 0, done.err
            trees.assert_same(root / "releases" / NEW, grid.origin.new)
            assert late in done.err
            assert "another root" in done.err
        finally:
            grid.client.detach_dids(SCOPE, late, files)

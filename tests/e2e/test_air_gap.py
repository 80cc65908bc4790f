"""Sites that no network reaches: real processes, killed at many moments; what is carried there is served and installed from."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import Site, get, wait_until
from tests.e2e.slow import slowed

pytestmark = pytest.mark.slow
ROUNDS = 6


def ready(url):
    return get(f"{url}/readyz")[0] == 200


def carried(store: Path) -> set[str]:
    """The public files of a store, the catalog's apart."""
    files = (str(path.relative_to(store)) for path in (store / "public").rglob("*") if path.is_file())
    return {path for path in files if not path.startswith("public/catalog/")}


def packs_in(store: Path) -> dict[str, int]:
    """The packs of a store, with their lengths."""
    return {path.name: path.stat().st_size for path in store.glob("public/packs/*/*")}


def killed_and_again(site, seconds, *words):
    """Run the command until it has ended by itself, killed at moments of a first run that took so many seconds."""
    dice = random.Random(1)
    for _ in range(ROUNDS):
        with site.start(*words) as process:
            time.sleep(dice.uniform(0.2, 1.1) * seconds)
            process.send_signal(signal.SIGKILL)
            process.communicate()
    return site.ok(*words)


def test_a_site_installs_from_what_was_carried_there(origin, served, site, root, tmp_path):
    pin = ("--root-keys", origin.root_keys)
    first = site.ok("export", OLD, "--from", served, *pin, "-o", tmp_path / "first.tar")
    site.ok("export", NEW, "--since", OLD, "--from", served, *pin, "-o", tmp_path / "next.tar")
    store = tmp_path / "mirror"
    assert "no root is pinned" in site.fails(8, "import", tmp_path / "first.tar", "--to", store).err
    assert "lacks" in site.fails(7, "import", tmp_path / "next.tar", "--to", store, *pin).err
    assert not store.exists()
    done = site.ok("import", tmp_path / "first.tar", "--to", store, *pin)
    assert (done["is_complete"], done["packs_copied"], done["releases"]) == (True, first["packs"], [OLD])
    # It is believed as before from now on: nobody has to name the root again.
    with site.serving(store) as url:
        site.ok("install", OLD, "--from", url, *pin, "--root", root)
        site.ok("import", tmp_path / "next.tar", "--to", store)
        wait_until(lambda: get(f"{url}/holdings/{NEW}")[0] == 200)
        wait_until(lambda: site.run("install", NEW, "--from", url, *pin, "--root", root).code == 0)
    trees.assert_same(root / "releases" / NEW, origin.new)
    again = site.ok("import", tmp_path / "next.tar", "--to", store)
    assert (again["is_complete"], again["bytes_copied"]) == (True, 0)


def test_killed_anywhere_exports_and_imports_go_on(tmp_path):
    site, store = Site(tmp_path / "home"), tmp_path / "store"
    tree = trees.fill(tmp_path / "tree", seed=5, files=96, file_bytes=3 * trees.MIB, bits=8)
    site.publish(tree, OLD, store)
    pin, out, to = ("--root-keys", site.root_keys(store)), tmp_path / "out", tmp_path / "mirror"
    out.mkdir()
    started = time.monotonic()
    words = ("export", OLD, "--from", store, "--split", "100M", "-o")
    site.ok(*words, tmp_path / "whole.tar")
    seconds = time.monotonic() - started
    done = killed_and_again(site, seconds, *words, out / "x.tar")
    volumes = sorted(out.iterdir())
    assert [path.name for path in volumes] == [f"x.tar.{number:03}" for number in range(1, len(volumes) + 1)]
    assert len(volumes) == len(done["volumes"]) >= 3
    for path in volumes:
        assert path.read_bytes() == (tmp_path / path.name.replace("x", "whole")).read_bytes()
    done = killed_and_again(site, 2 * seconds, "import", *volumes, "--to", to, *pin)
    assert done["is_complete"]
    assert carried(to) == carried(store)
    site.ok("install", OLD, "--from", to, *pin, "--root", tmp_path / "root")
    trees.assert_same(tmp_path / "root/releases" / OLD, tree)


def test_a_mirror_that_was_imported_goes_on_with_the_real_origin(origin, site, root, tmp_path):
    pin, store = ("--root-keys", origin.root_keys), tmp_path / "mirror"
    site.ok("export", OLD, "--from", origin.store, *pin, "-o", tmp_path / "x.tar")
    site.ok("import", tmp_path / "x.tar", "--to", store, *pin)
    site.ok("mirror", "subscribe", "Demo-*", "--store", store)
    brought = {path.name for path in (store / "public/packs").rglob("*") if path.is_file()}
    with origin.site.serving(origin.store) as upstream, site.mirroring(store, upstream) as url:
        wait_until(lambda: get(f"{url}/holdings/{NEW}")[0] == 200)
        wait_until(lambda: site.ok("mirror", "status", url)["held"]["releases"]["complete"] == 2)
        for release in (OLD, NEW):
            site.ok("install", release, "--from", url, *pin, "--root", root)
        came = site.ok("mirror", "status", url)["sync"]
    assert came["queued"] == 0
    packs = {path.name for path in (store / "public/packs").rglob("*") if path.is_file()}
    assert brought < packs
    assert carried(origin.store) <= carried(store)
    trees.assert_same(root / "releases" / NEW, origin.new)


@pytest.mark.timeout(300)
def test_killed_anywhere_a_bundle_goes_on_taking_packs_from_elsewhere(tmp_path):
    site, store = Site(tmp_path / "home"), tmp_path / "store"
    tree = trees.fill(tmp_path / "tree", seed=6, files=64, file_bytes=3 * trees.MIB, bits=8)
    site.publish(tree, OLD, store)
    pin, to = ("--root-keys", site.root_keys(store)), tmp_path / "mirror"
    packs = packs_in(store)
    bundle = tmp_path / "x.bundle"
    site.ok("export", OLD, "--without-packs", "--from", store, *pin, "-o", bundle)
    assert bundle.stat().st_size < sum(packs.values()) / 50
    words, dice = ("import", bundle, "--to", to, *pin, "--from"), random.Random(2)
    with site.serving(store) as url, slowed(url, bytes_per_second=sum(packs.values()) // 3) as line:
        for _ in range(3):
            with site.start(*words, line) as process:
                time.sleep(dice.uniform(0.5, 4))
                process.send_signal(signal.SIGKILL)
                process.communicate()
            here = packs_in(to)
            assert here.items() <= packs.items()
            assert len(here) == len(packs) or not list(to.glob("public/holdings/*"))
    done = site.ok(*words, store)
    assert (done["is_complete"], done["packs_fetched"]) == (True, len(packs) - len(here))
    assert carried(to) == carried(store)
    site.ok("install", OLD, "--from", to, *pin, "--root", tmp_path / "root")
    trees.assert_same(tmp_path / "root/releases" / OLD, tree)

"""The whole path: publish, serve, install over HTTP, update, verify; and what the commands say in JSON."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import get

RELEASE_KEYS = {"release", "tree_digest", "manifest_digest", "bytes_total"}
INSTALL_KEYS = RELEASE_KEYS | {"bytes_downloaded", "bytes_reused", "requests", "seconds"}


def test_install_update_and_verify_over_http(origin, site, source, root):
    first = site.ok("install", OLD, *source, "--root", root)
    assert set(first) >= INSTALL_KEYS
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert os.readlink(root / "current/Demo/x86_64-linux") == f"../../releases/{OLD}"
    assert first["bytes_total"] == sum(p.lstat().st_size for p in origin.old.rglob("*") if _is_plain(p))
    assert first["bytes_downloaded"] < first["bytes_total"]
    assert first["bytes_reused"] == 0

    plan = site.ok("install", NEW, *source, "--root", root, "--plan")
    second = site.ok("install", NEW, *source, "--root", root)
    trees.assert_same(root / "releases" / NEW, origin.new)
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert (root / "current/Demo/x86_64-linux/added").read_bytes() == b"a file more"
    assert second["bytes_downloaded"] < 0.25 * first["bytes_downloaded"]
    assert second["bytes_reused"] > 0.8 * second["bytes_total"]
    assert second["requests"] <= 25
    assert plan["bytes_to_download"] <= second["bytes_downloaded"] <= plan["bytes_to_download"] + 100_000
    assert os.readlink(root / "current/Demo/x86_64-linux") == f"../../releases/{NEW}"

    for release in (OLD, NEW):
        assert site.ok("verify", release, "--root", root)["intact"] is True
    again = site.ok("install", NEW, *source, "--root", root)
    assert (again["already_installed"], again["switched"]) == (True, False)
    assert site.ok("install", OLD, *source, "--root", root)["switched"] is True
    assert os.listdir(root / ".pacball/staging") == []


def _is_plain(path):
    return path.is_file() and not path.is_symlink()


def test_an_installed_tree_that_was_changed_is_seen(site, source, root):
    site.ok("install", OLD, *source, "--root", root)
    (root / "releases" / OLD / "lib/large.so").write_bytes(b"other")
    (root / "releases" / OLD / "one byte").unlink()
    done = site.run("verify", OLD, "--root", root)
    assert (done.code, done.json["intact"]) == (1, False)
    (found,) = done.json["releases"]
    assert {one["path"] for one in found["damage"]} == {"lib/large.so", "lib/large.so.1", "one byte"}


def test_a_store_directory_is_a_source_without_further_ado(origin, site, root):
    done = site.ok("install", OLD, "--from", origin.store, "--root", root)
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert done["tree_digest"] == site.ok("show", OLD, "--from", origin.store)["tree_digest"]


def test_what_the_commands_say(origin, site, source):
    listed = site.ok("list", *source)["releases"]
    assert [one["release"] for one in listed] == [OLD, NEW]
    assert all(set(one) >= RELEASE_KEYS for one in listed)
    shown = site.ok("show", NEW, *source)
    assert {key: shown[key] for key in RELEASE_KEYS} == {key: listed[1][key] for key in RELEASE_KEYS}
    found = site.ok("diff", OLD, NEW, *source)
    assert found["added"] == ["added"]
    assert found["removed"] == ["empty"]
    assert all(path.startswith("data/") for path in found["changed"])
    assert 0 < found["bytes_new"] < shown["bytes_total"] / 5
    assert site.ok("store", "check", "--store", origin.store)["intact"] is True
    assert site.ok("store", "stats", "--store", origin.store)["releases"] == 2


def test_publishing_again_is_no_change_and_another_tree_is_refused(origin):
    again = origin.site.publish(origin.old, OLD, origin.store)
    assert again["existed"] is True
    assert (again["bytes_new"], set(again) >= RELEASE_KEYS) == (0, True)
    done = origin.site.fails(7, "publish", origin.new, OLD, "--to", origin.store)
    assert "bound for ever" in done.err


def test_a_name_that_is_none_is_refused_with_a_better_one(origin, site, source, root):
    assert "Demo-1.0" in site.fails(3, "install", "Demo-1.0-x86_64", *source, "--root", root).json["hint"]
    done = origin.site.fails(7, "publish", origin.old, "Demo-1.0+a-x86_64", "--to", origin.store)
    assert "Demo-1.0" in done.json["hint"]
    assert not root.exists()


@pytest.mark.parametrize("project", ["Alpha"])
def test_the_same_tree_has_the_same_identity_everywhere(origin, site, tmp_path, project):
    copied = trees.copy(origin.new, tmp_path / "copied")
    # The umask, the time zone, the locale and what the store held before are others.
    site.environment |= {"TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    published = site.publish(copied, f"{project}-7-any", tmp_path / "store", "--level", "1")
    shown = site.ok("show", NEW, "--from", origin.store)
    for key in ("tree_digest", "manifest_digest"):
        assert published[key] == shown[key]


def test_answers_say_how_long_they_may_be_kept(origin, served):
    packs = [path.relative_to(origin.store / "public") for path in (origin.store / "public/packs").rglob("??*/*")]
    status, headers, body = get(f"{served}/{packs[0]}")
    assert (status, headers["etag"]) == (200, f'"b3-{packs[0].name}"')
    assert "immutable" in headers["cache-control"]
    assert hashlib.sha256(body).digest() == hashlib.sha256((origin.store / "public" / packs[0]).read_bytes()).digest()
    status, headers, _ = get(f"{served}/catalog/timestamp.json")
    assert (status, headers["cache-control"].startswith("max-age=61")) == (200, True)
    assert get(f"{served}/catalog/timestamp.json", {"If-None-Match": headers["etag"]})[0] == 304
    assert get(f"{served}/healthz")[0] == 200
    for outside in ("private/settings.json", "../private/settings.json", "packs/", ""):
        assert get(f"{served}/{outside}")[0] == 404

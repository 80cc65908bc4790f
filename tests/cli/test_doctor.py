"""`pacball doctor`: what is said of a whole site, with its exit code, and that nothing is changed by it."""

from __future__ import annotations

import os
import time

import pytest

from tests.mirror.daemons import running
from tests.store.releases import snapshot

RELEASE = "Demo-1.0-x86_64"
KEYS = {"healthy", "failures", "warnings", "seconds", "findings"}
FINDING = {"subject", "step", "level", "message", "hint", "values"}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def origin(store):
    with running(store) as daemon:
        yield daemon


@pytest.fixture
def root_keys(tmp_path, store):
    (path,) = (tmp_path / "config/pacball/keys").glob("*/root.json")
    return path


def steps(result: dict, subject: str) -> dict[str, dict]:
    return {finding["step"]: finding for finding in result["findings"] if finding["subject"] == subject}


def test_a_healthy_site(pacball, origin, root_keys, tmp_path):
    root = tmp_path / "root"
    words = ("doctor", "--from", origin.url, "--root", root, "--root-keys", root_keys, "--release", RELEASE)
    pacball.json("install", RELEASE, "--from", origin.url, "--root", root, "--root-keys", root_keys)
    before = snapshot(tmp_path)
    result = pacball.json(*words)
    assert snapshot(tmp_path) == before
    assert set(result) == KEYS
    assert all(set(finding) == FINDING for finding in result["findings"])
    assert (result["healthy"], result["failures"]) == (True, 0)
    assert list(steps(result, "this machine")) == ["configuration", "pinned roots", "authorities", "state"]
    found = steps(result, origin.url)
    assert list(found) == [
        "proxy", "names", "connections", "store", "ranges", "freshness", "clock", "trust", "catalog", "release", "speed",
    ]  # fmt: skip
    assert {finding["level"] for finding in found.values()} <= {"ok", "skip"}
    assert found["release"]["values"]["held"] is True
    assert found["trust"]["values"]["mode"] == "pinned"
    assert steps(result, f"root {root}")["exists"]["values"] == {"installed": True}
    text = pacball.text(*words)
    assert f"\n{origin.url}\n  ok    proxy: asked directly" in text


def test_what_is_configured_is_examined(pacball, origin, root_keys, tmp_path):
    config = tmp_path / "etc/config.toml"
    config.parent.mkdir()
    config.write_text(f'sources = ["{origin.url}"]\nroot = "{tmp_path / "root"}"\nroot_keys = "{root_keys}"\n')
    result = pacball.json("doctor")
    assert {finding["subject"] for finding in result["findings"]} == {
        "this machine",
        origin.url,
        f"root {tmp_path / 'root'}",
    }
    assert str(config) in steps(result, "this machine")["configuration"]["message"]
    assert steps(result, origin.url)["releases"]["values"] == {"count": 2}
    config.write_text("nonsense = 1")
    assert pacball.json("doctor", code=7)["place"] == str(config)


def test_each_source_is_told_what_is_wrong_with_it(pacball, origin, store, root_keys, tmp_path):
    (store / f"public/holdings/{RELEASE}").unlink()
    dead = "http://no-such-host.invalid"
    where = f"{dead},{origin.url},{store},{tmp_path / 'none'}"
    result = pacball.json("doctor", "--from", where, "--root-keys", root_keys, "--release", RELEASE, code=1)
    assert (result["healthy"], result["failures"]) == (False, 4)
    assert steps(result, dead)["names"]["level"] == "fail"
    assert "not whole at this source" in steps(result, origin.url)["release"]["message"]
    assert "not whole at this source" in steps(result, str(store))["release"]["message"]
    assert "is no directory" in steps(result, str(tmp_path / "none"))["store"]["message"]
    text = pacball.text("doctor", "--from", where, "--root-keys", root_keys, code=1)
    assert "to be mended" in text
    assert "        -> check the URL, and the name servers of this machine\n" in text


def test_a_source_whose_root_is_not_pinned(pacball, origin):
    result = pacball.json("doctor", "--from", origin.url, code=1)
    found = steps(result, origin.url)["trust"]
    assert "no root is pinned for this source" in found["message"]
    assert "--root-keys" in found["hint"]


def test_another_root_than_the_pinned_one(pacball, origin, tmp_path, trees):
    pacball.json("publish", trees[0], RELEASE, "--to", tmp_path / "other")
    keys = next(path for path in (tmp_path / "config/pacball/keys").glob("other*/root.json"))
    result = pacball.json("doctor", "--from", origin.url, "--root-keys", keys, code=1)
    assert steps(result, origin.url)["catalog"]["level"] == "fail"


def test_a_release_that_is_not_there(pacball, origin, root_keys):
    result = pacball.json("doctor", "--from", origin.url, "--root-keys", root_keys, "--release", "Demo-9-x", code=1)
    assert "is not in the catalog" in steps(result, origin.url)["catalog"]["message"]


def test_an_expired_catalog(pacball, origin, root_keys):
    words = ("doctor", "--from", origin.url, "--root-keys", root_keys)
    later = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 40 * 86_400))
    result = pacball.json(*words, "--as-of", later, code=1)
    found = steps(result, origin.url)["catalog"]
    assert found["level"] == "fail"
    assert "trust refresh" in found["hint"]


def test_what_is_wrong_with_this_machine(pacball, store, root_keys, tmp_path, monkeypatch):
    config = tmp_path / "etc/config.toml"
    (tmp_path / "etc/roots").mkdir(parents=True)
    token = tmp_path / "etc/token"
    token.write_text("s3cret")
    token.chmod(0o644)
    (tmp_path / "etc/roots/bad.json").write_text("{}")
    config.write_text('ca_file = "none.pem"\n[tokens]\n"https://a.example.org" = "token"\n')
    monkeypatch.setenv("XDG_STATE_HOME", str(token))
    found = steps(pacball.json("doctor", code=1), "this machine")
    assert {step: finding["level"] for step, finding in found.items()} == {
        "configuration": "ok", "pinned roots": "fail", "authorities": "fail", "tokens": "fail", "state": "fail",
    }  # fmt: skip
    assert "chmod 600" in found["tokens"]["hint"]
    assert "s3cret" not in str(found)


def test_a_password_that_others_can_read(pacball, tmp_path):
    config = tmp_path / "etc/config.toml"
    config.parent.mkdir()
    config.write_text('[proxy]\nhttps = "http://me:s3cret@proxy:3128"\n')
    config.chmod(0o644)
    result = pacball.json("doctor")
    assert steps(result, "this machine")["configuration"]["level"] == "warn"
    assert (result["warnings"], "s3cret" in str(result)) == (1, False)
    config.chmod(0o600)
    assert pacball.json("doctor")["warnings"] == 0


def test_without_any_source_it_says_so(pacball):
    assert "no source is configured: name one with --from URL" in pacball.text("doctor")


def test_what_is_remembered_of_a_catalog_is_not_forgotten_by_doctor(pacball, origin, store, root_keys, tmp_path, trees):
    """A catalog that went back is named by doctor too, although it works with a copy of the state."""
    old = {path: path.read_bytes() for path in (store / "public/catalog").iterdir()}
    pacball.json("publish", trees[0], "Demo-1.2-x86_64", "--to", store)
    pacball.json("list", "--from", store)
    assert len(pacball.json("list", "--from", store, "--root-keys", root_keys)["releases"]) == 3
    for path in (store / "public/catalog").iterdir():
        if path in old:
            path.write_bytes(old[path])
        elif path.name != "1.root.json":
            os.unlink(path)
    result = pacball.json("doctor", "--from", store, "--root-keys", root_keys, code=1)
    assert "rolled back" in steps(result, str(store))["catalog"]["message"]

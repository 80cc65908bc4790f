"""config.toml, the environment, the command line: what is in force, where it comes from, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from paccli.settings import KEYS, load_settings
from pacstore.amounts import parse_rate
from pacstore.errors import Refused

EVERYTHING = """
sources = ["https://mirror.example.org/pacball", "/srv/store"]
root = "/opt/sw"
root_keys = "keys/root.json"
ca_file = "~/site-ca.pem"

[proxy]
http = "http://proxy.example.org:3128"
https = "http://me:secret@proxy.example.org:3128"
no_proxy = "example.org, 10.0.0.0/8"

[limits]
rate = "20M"
attempts = 3
connect_seconds = 5
stall_seconds = 7.5

[install]
seeds = ["/opt/old", "older"]
share = "hardlink"
owner = "sw:sw"
actions_as = "builder"

[tokens]
"https://mirror.example.org/pacball" = "token"
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PACBALL_SYSTEM_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for key in KEYS:
        for variable in key.variables:
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def system(tmp_path):
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc/config.toml"


@pytest.fixture
def user(tmp_path):
    (tmp_path / "config/pacball").mkdir(parents=True)
    return tmp_path / "config/pacball/config.toml"


def test_nothing_is_set_without_files():
    settings = load_settings()
    assert (settings.sources, settings.root, settings.tokens, settings.files) == ((), None, {}, ())
    assert settings.origin("root") == "default"


def test_everything_that_can_be_set(system):
    system.write_text(EVERYTHING)
    settings = load_settings()
    assert settings.sources == ("https://mirror.example.org/pacball", "/srv/store")
    assert settings.root == "/opt/sw"
    # What a file names is beside it, or in the user's home, wherever the command is run.
    assert settings.root_keys == str(system.parent / "keys/root.json")
    assert settings.ca_file == str(Path(os.environ["HOME"]) / "site-ca.pem")
    assert settings.tokens == {"https://mirror.example.org/pacball": str(system.parent / "token")}
    assert (settings.http_proxy, settings.no_proxy) == ("http://proxy.example.org:3128", "example.org, 10.0.0.0/8")
    assert (settings.rate_bytes_per_second, settings.attempts) == (20_000_000, 3)
    assert settings.actions_as == "builder"
    assert (settings.connect_seconds, settings.stall_seconds) == (5.0, 7.5)
    assert (settings.seeds, settings.owner) == (("/opt/old", str(system.parent / "older")), "sw:sw")
    assert settings.share == "hardlink"
    assert settings.files == (system,)
    assert {settings.origin(key.name) for key in KEYS} == {str(system)}


def test_each_key_alone_is_overridden_by_who_is_nearer(system, user, monkeypatch):
    system.write_text(EVERYTHING)
    user.write_text('root = "/home/me/sw"\n[limits]\nattempts = 9\n[tokens]\n"https://other.example.org" = "/t"\n')
    monkeypatch.setenv("PACBALL_SOURCES", "https://a.example.org, /b")
    monkeypatch.setenv("https_proxy", "")
    monkeypatch.setenv("HTTP_PROXY", "http://other:1")
    settings = load_settings()
    assert settings.sources == ("https://a.example.org", "/b")
    assert settings.root == "/home/me/sw"
    assert (settings.attempts, settings.rate_bytes_per_second) == (9, 20_000_000)
    assert len(settings.tokens) == 2
    assert (settings.http_proxy, settings.https_proxy) == ("http://other:1", None)
    origins = {
        key: settings.origin(key) for key in ("sources", "root", "limits.attempts", "limits.rate", "proxy.https")
    }
    assert origins == {
        "sources": "$PACBALL_SOURCES",
        "root": str(user),
        "limits.attempts": str(user),
        "limits.rate": str(system),
        "proxy.https": "$https_proxy",
    }


def test_small_letters_go_first_and_a_strangers_proxy_is_not_believed(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://big:1")
    assert load_settings().http_proxy == "http://big:1"
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert load_settings().http_proxy is None
    monkeypatch.setenv("http_proxy", "http://small:1")
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    settings = load_settings()
    assert (settings.http_proxy, settings.https_proxy) == ("http://small:1", "http://all:1")


def test_the_old_spelling_of_a_single_source(system):
    system.write_text('source = "https://a.example.org"\n')
    assert load_settings().sources == ("https://a.example.org",)
    system.write_text('source = "https://a.example.org"\nsources = ["/b"]\n')
    with pytest.raises(Refused, match="has both sources and source"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "a is not a setting .*known are sources, root"),
        ("rot = '/x'", "rot is not a setting .did you mean root?"),
        ("[limits]\nrat = '1M'", "limits.rat is not a setting .did you mean limits.rate"),
        ("limits = 3", "limits must be a section: write .limits. in a line of its own, not 3"),
        ("sources = 'https://a'", "sources must be a list of URLs and directories"),
        ("sources = []", "sources must be a list"),
        ("sources = ['/a', 3]", r"sources\[1\] must be a text, not empty, in one line, not 3"),
        ("root = true", "root must be a text, not empty, in one line, not true"),
        ("root = ''", "root must be a text, not empty"),
        ('root = "a\\nb"', r"root must be a text.*not 'a.{1,2}nb'"),
        ("root = ['x']", "root must be a text.*not a list"),
        ("root = 1979-05-27", "root must be a text.*not a date"),
        ("root = '~nobody-of-that-name/x'", "root must be a path; it begins with '~'"),
        ("[limits]\nrate = 20", "limits.rate must be a text"),
        ("[limits]\nrate = '20 apples'", "limits.rate: 20 apples is no rate .write for example 20M"),
        ("[install]\nshare = 'softlink'", "install.share must be one of none, reflink, hardlink, not 'softlink'"),
        ("[limits]\nattempts = true", "limits.attempts must be a whole number from 1 to 100, not true"),
        ("[limits]\nattempts = 0", "limits.attempts must be a whole number"),
        ("[limits]\nstall_seconds = 0.5", "limits.stall_seconds must be a number of seconds from 1 to 3600, not 0.5"),
        ("[limits]\nstall_seconds = nan", "limits.stall_seconds must be a number"),
        ("[install]\nseeds = '/x'", "install.seeds must be a list of directories"),
        ("[install]\nseeds = ['']", r"install.seeds\[0\] must be a text"),
        ("[tokens]\n'https://a' = 3", "tokens.https://a must be a text"),
        ("root = 'a'\nroot = 'b'", "is not TOML"),
        ("=", "is not TOML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(system, user, text, message):
    system.write_text("root = '/opt/sw'")
    user.write_text(text)
    with pytest.raises(Refused, match=message) as caught:
        load_settings()
    assert str(caught.value).startswith(str(user))


def test_files_that_are_no_configuration(system):
    system.write_bytes(b"root = '\xff'")
    with pytest.raises(Refused, match="is not TOML"):
        load_settings()
    system.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(Refused, match="has more than"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1024", 1024),
        ("20M", 20_000_000),
        ("1.5 MB/s", 1_500_000),
        ("800KiB", 819_200),
        ("2G", 2 * 10**9),
        ("3k", 3000),
    ],
)
def test_rates(text, rate):
    assert parse_rate(text, place="--limit-rate") == rate


@pytest.mark.parametrize("text", ["", "1", "-5M", "M", "5X", "1e6", "5M/h", "99999999999999M", "٣M", "5M\n"])
def test_what_is_no_rate(text):
    with pytest.raises(Refused, match="is no rate"):
        parse_rate(text, place="--limit-rate")


def test_the_command_shows_what_is_in_force_but_no_password(pacball, system, user):
    system.write_text(EVERYTHING)
    text = pacball.text("config")
    assert f"root = /opt/sw   [{system}]" in text
    assert f"{user} (is not there)" in text
    assert "http://me:***@proxy.example.org:3128" in text
    assert "root_keys = " in text
    result = pacball.json("config")
    assert result["files"] == [str(system)]
    assert result["settings"]["limits.rate"] == {"value": 20_000_000, "origin": str(system)}
    assert result["settings"]["proxy.https"]["value"] == "http://me:***@proxy.example.org:3128"
    assert "secret" not in text + json.dumps(result)


@pytest.mark.parametrize(
    "lines",
    [
        'sources = ["/opt/a@b", "https://me:secret@mirror.example.org/x"]',
        'sources = ["https://secret@mirror.example.org/x"]',
        '[proxy]\nhttps = "http://me:secret//secret@proxy.example.org:3128"',
        '[proxy]\nhttps = "me:secret@proxy.example.org:3128"',
        '[tokens]\n"https://me:secret@mirror.example.org" = "token"',
    ],
)
def test_no_password_is_shown_wherever_it_stands(pacball, system, lines):
    system.write_text(f'{lines}\n[install]\nowner = "me@site.example"\n')
    text, values = pacball.text("config"), json.dumps(pacball.json("config"))
    assert "secret" not in text + values
    assert "***@" in text
    assert "install.owner = me@site.example " in text
    assert "/opt/a@b" in text or "/opt" not in lines
    assert not [line for line in text.splitlines() if "***@" in line and "default" in line]


def test_no_password_is_in_what_is_wrong_with_it(pacball, system):
    system.write_text('[proxy]\nhttps = "http://me:secret@proxy.example.org\\n"\n')
    done = pacball.run("config")
    assert done.exit_code == 7
    assert "***@proxy.example.org" in done.output
    assert "secret" not in done.output


def test_install_and_list_take_what_is_configured(pacball, system, store, tmp_path):
    system.write_text(f'sources = ["{store}"]\nroot = "{tmp_path / "root"}"\n')
    assert len(pacball.json("list")["releases"]) == 2
    assert pacball.json("install", "Demo-1.0-x86_64")["path"] == str(tmp_path / "root/releases/Demo-1.0-x86_64")
    other = tmp_path / "other"
    assert pacball.json("install", "Demo-1.0-x86_64", "--root", other)["path"].startswith(str(other))
    system.write_text(f'sources = ["{store}"]\n[install]\nseeds = ["none"]\n')
    # One configuration may be that of many machines: a seed that is not on this one is passed over, unlike one that was typed.
    assert pacball.json("install", "Demo-1.0-x86_64", "--root", tmp_path / "third")["already_installed"] is False
    found = pacball.json("install", "Demo-1.0-x86_64", "--root", other, "--seed", tmp_path / "none", code=3)
    assert str(tmp_path / "none") in found["place"]
    system.write_text("surces = []")
    assert pacball.json("list", code=7)["place"] == str(system)

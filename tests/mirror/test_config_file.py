"""pacball.toml, the environment and the command line: what is in force, and that what is wrong is refused in words."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from pacmirror.config import Config
from pacmirror.config_file import KEYS, environment_variable, load_config, shown
from pacmirror.config_rules import check_config, check_files
from pacmirror.hours import RateHours
from pacmirror.toml_file import Found
from pacstore.errors import NotFound, Refused
from pacstore.subscription import Subscription

DESCRIBED = Path(__file__).parents[2] / "deploy/pacball.toml"
COMMENTED = re.compile(r'^#(?=[a-z_]+ = |\[|")', re.MULTILINE)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "pacball.toml"


def load(file, text, environment=None, flags=()):
    file.write_text(text)
    return load_config(file, environment=environment or {}, flags=flags).config


def test_the_described_file_as_it_is_changes_nothing_but_the_store():
    assert load_config(DESCRIBED, environment={}).config == Config(Path("/srv/store"))


def test_the_described_file_has_every_key_and_its_default(file):
    text = COMMENTED.sub("", DESCRIBED.read_text())
    file.write_text(text)
    loaded = load_config(file, environment={})
    assert set(loaded.origins) == {key.name for key in KEYS}
    default = {name: value for name, value, _ in shown(load_config(DESCRIBED, environment={}))}
    given = {name: value for name, value, _ in shown(loaded)}
    assert {name for name in given if given[name] != default[name]} == set(_without_default(text))


def _without_default(text):
    """The keys of which the file says that they have no default: in the comment before them, or before their section."""
    section, comment = "", ""
    for line in text.splitlines():
        if line.startswith("#"):
            comment += line
        elif line.startswith("["):
            section = line.strip("[]") + "."
            if "o default" in comment and section in (
                "upstream.hours.",
                "upstream.tokens.",
                "sync.subscriptions.",
                "scrub.hours.",
            ):
                yield section[:-1]
            comment = comment if section == "upstream.proxy." else ""
        elif line:
            if "o default" in comment and not line.startswith('"') and section != "sync.subscriptions.":
                name = section + line.partition(" =")[0]
                if name != "store":
                    yield name
            comment = comment if section == "upstream.proxy." else ""


def test_values_become_what_they_mean(file):
    config = load(
        file,
        """
        store = "here"
        listen = "[::]:80"
        max_bytes = "2T"
        [upstream]
        urls = ["https://a.example.org/x/"]
        seeds = ["/old", "other"]
        rate = "20M"
        hours = { "08:00-18:00" = "5M", "22:00-06:00" = "unlimited" }
        tokens = { "https://a.example.org" = "token" }
        [sync]
        poll = "5m"
        subscriptions = [{ releases = "Atlas*-1.?-*", keep = 3 }, { releases = "*" }]
        [scrub]
        rate = "unlimited"
        hours = { "00:00-24:00" = "0" }
        [access]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        [limits]
        drain_seconds = 2.5
        """,
    )
    assert config.store == file.parent / "here"
    assert (config.host, config.port, config.quota_bytes) == ("::", 80, 2 * 10**12)
    assert config.upstream.urls == ("https://a.example.org/x",)
    assert config.upstream.seeds == (Path("/old"), file.parent / "other")
    assert config.upstream.rate_bytes_per_second == 20_000_000
    assert config.upstream.hours == (RateHours(480, 1080, 5_000_000), RateHours(1320, 360, None))
    assert config.upstream.tokens == {"https://a.example.org": file.parent / "token"}
    assert config.sync.subscriptions == (Subscription("Atlas*-1.?-*", 3), Subscription("*"))
    assert config.sync.poll_seconds == 300
    assert config.scrub.rate_bytes_per_second is None
    assert config.scrub.hours == (RateHours(0, 0, 0),)
    assert config.access.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.limits.drain_seconds == 2.5


def test_the_environment_goes_before_the_file_and_options_before_both(file):
    environment = {
        "PACBALL_SERVE_UPSTREAM_URLS": "https://b.example.org, https://c.example.org",
        "PACBALL_SERVE_UPSTREAM_RATE": "3M",
        "PACBALL_SERVE_UPSTREAM_HOURS": "08:00-18:00=5M,18:00-08:00=unlimited",
        "PACBALL_SERVE_UPSTREAM_TOKENS": "https://b.example.org=/t",
        "PACBALL_SERVE_SYNC_SUBSCRIPTIONS": "Atlas*=10, *-x86_64-*",
        "PACBALL_SERVE_SCRUB_ENABLED": "false",
        "PACBALL_SERVE_SYNC_PARALLEL": "7",
        "PACBALL_SERVE_LIMITS_DRAIN_SECONDS": "1.5",
        "https_proxy": "http://proxy:3128",
    }
    flags = [Found("upstream.rate", "9M", "--rate")]
    text = 'store = "/s"\n[upstream]\nurls = ["https://a.example.org"]\nrate = "1M"\npeers = ["http://p.example.org"]'
    config = load(file, text, environment, flags)
    assert config.upstream.urls == ("https://b.example.org", "https://c.example.org")
    assert config.upstream.peers == ("http://p.example.org",)
    assert config.upstream.rate_bytes_per_second == 9_000_000
    assert config.upstream.hours == (RateHours(480, 1080, 5_000_000), RateHours(1080, 480, None))
    assert config.upstream.tokens == {"https://b.example.org": Path("/t")}
    assert config.upstream.proxies.https == "http://proxy:3128"
    assert config.sync.subscriptions == (Subscription("Atlas*", 10), Subscription("*-x86_64-*"))
    assert (config.sync.parallel, config.scrub.enabled, config.limits.drain_seconds) == (7, False, 1.5)


def test_every_key_has_a_variable_of_its_own():
    assert len({environment_variable(key) for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stroe = '/s'", "stroe is not a setting .did you mean store"),
        ("[upstream]\nurl = ['https://a']", "upstream.url is not a setting .did you mean upstream.urls"),
        ("[upstraem]\nurls = []", "upstraem is not a setting"),
        ("upstream = 'https://a'", r"upstream must be a section: write \[upstream\]"),
        ("[upstream]\nurls = 'https://a'", "upstream.urls must be a list"),
        ("[upstream]\nurls = ['ftp://a']", r"upstream.urls\[0\]: ftp://a: is not an http or https URL"),
        ("[upstream]\nurls = ['https://me:secret@a']", "may not hold a user or password"),
        ("[upstream]\nrate = 5", "upstream.rate must be a text"),
        ("[upstream]\nrate = '20 apples'", "upstream.rate: 20 apples is no rate"),
        ("[upstream.hours]\n'8-18' = '5M'", "upstream.hours.*no hours of the day.*08:00-18:00"),
        ("[upstream.hours]\n'08:00-18:00' = '100'", "is no rate"),
        ("[upstream]\nhours = ['08:00-18:00']", r"upstream.hours must be a section"),
        ("[sync]\npoll = '0'", "sync.poll must be a time span of at least 1s, not '0'"),
        ("[sync]\ngrace = '7 days'", "sync.grace: 7 days is no time span"),
        ("[sync]\nparallel = 0", "sync.parallel must be a whole number from 1 to 64, not 0"),
        ("[[sync.subscriptions]]\nkeep = 3", r"sync.subscriptions\[0\] must be a section with a pattern"),
        ("[[sync.subscriptions]]\nreleases = '/etc/*'", r"sync.subscriptions\[0\]: /etc/\*: the pattern"),
        ("[[sync.subscriptions]]\nreleases = '*'\nkeeps = 3", r"keeps is not a setting .did you mean .*keep\?"),
        ("[[sync.subscriptions]]\nreleases = '*'\nkeep = 0", r"subscriptions\[0\].keep must be a whole number"),
        ("[scrub]\nenabled = 'yes'", "scrub.enabled must be true or false, not 'yes'"),
        ("[log]\nstyle = 'xml'", "log.style must be one of text, json, not 'xml'"),
        ("[access]\nread = 'everybody'", "access.read must be one of public, token"),
        ("[access]\ntrusted_proxies = ['proxy']", r"access.trusted_proxies\[0\] must be an address or a network"),
        ("[limits]\ndrain_seconds = nan", "limits.drain_seconds must be a number of seconds"),
        ("listen = '8080'", "listen: 8080 is not an address to listen on .write HOST:PORT"),
        ("max_bytes = 'all'", "max_bytes: all is no number of bytes"),
        ("store = ''", "store must be a text"),
        ("store =", "is not TOML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_file_its_key_and_what_would_be_right(file, text, message):
    with pytest.raises(Refused, match=message) as caught:
        load(file, text if "store" in text or "stroe" in text else f"store = '/s'\n{text}" if text[0] != "[" else text)
    assert str(caught.value).startswith(str(file))
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_variables_are_checked_as_strictly(file):
    with pytest.raises(
        Refused, match=r"PACBALL_SERVE_UPSTREAM_URL is not a setting .did you mean PACBALL_SERVE_UPSTREAM_URLS"
    ):
        load(file, "store = '/s'", {"PACBALL_SERVE_UPSTREAM_URL": "https://a"})
    with pytest.raises(Refused, match=r"\$PACBALL_SERVE_SYNC_PARALLEL: sync.parallel must be a whole number"):
        load(file, "store = '/s'", {"PACBALL_SERVE_SYNC_PARALLEL": "many"})
    with pytest.raises(Refused, match="KEY=VALUE"):
        load(file, "store = '/s'", {"PACBALL_SERVE_UPSTREAM_HOURS": "5M"})


def test_without_a_store_or_a_file_it_says_so(file):
    with pytest.raises(Refused, match="no store is given"):
        load(file, "")
    with pytest.raises(NotFound):
        load_config(file.parent / "none.toml", environment={})


MIRROR = "store = '/s'\n{}\n[upstream]\nurls = ['https://a.example.org']\n{}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store = '/s'\ntrusted_root = 'x'", "trusted_root: is for mirrors"),
        ("store = '/s'\nmax_bytes = '1T'", "max_bytes: is for mirrors"),
        ("store = '/s'\nsync.subscriptions = [{releases = '*'}]", "sync.subscriptions: are for mirrors"),
        ("store = '/s'\nrefresh.hours = 3", "the daemon needs a key"),
        ("store = '/s'\ndelivery.rucio.grace = '2d'", "delivery.rucio: names no RSE"),
        ("store = '/s'\ndelivery.rucio.rse = 'site b'", "delivery.rucio.rse: site b is no name of an RSE"),
        ("store = '/s'\ndelivery.rucio = {rse = 'S', scope = 's w'}", "delivery.rucio.scope: s w is no scope"),
        ("store = '/s'\nrefresh.keys = 'k'\ndelivery.rucio.rse = 'S'", "for the stores of other sites than the origin"),
        (MIRROR.format("refresh.keys = 'k'", ""), "a mirror signs nothing"),
        (MIRROR.format("", "tokens = {'https://b' = 't'}"), "https://b is no upstream and no peer"),
        ("store = '/s'\naccess.read = 'token'", "there is no file of tokens"),
        ("store = '/s'\naccess.token_file = 't'", "without effect: everything is public"),
        ("store = '/s'\naccess.status_networks = ['::1']", "without effect: the status is public"),
        (
            "store = '/s'\nlisten = '0.0.0.0:80'\naccess.read = 'token'\naccess.token_file = 't'",
            "tokens would come over plain http to 0.0.0.0:80",
        ),
        (
            "store = '/s'\nlisten = 'example.org:80'\naccess.status = 'token'\naccess.token_file = 't'",
            "over plain http",
        ),
    ],
)
def test_half_a_configuration_is_refused(file, text, message):
    with pytest.raises(Refused, match=message) as caught:
        check_config(load(file, text))
    assert caught.value.hint


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "[::1]:80", "localhost:80", "0.0.0.0:80"])
def test_tokens_may_come_from_this_machine_or_behind_tls(file, listen):
    front = "true" if listen.startswith("0") else "false"
    text = f"store = '/s'\nlisten = '{listen}'\naccess = {{read = 'token', token_file = 't', tls_in_front = {front}}}"
    check_config(load(file, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens = {'https://a.example.org' = 'token'}", "other users may read"),
        ("ca_file = 'none.pem'", "none.pem"),
        ("seeds = ['none']", "upstream.seeds: .*none: is no directory, or cannot be read"),
        ("proxy = {https = 'socks5://x'}", "names no http or https proxy"),
    ],
)
def test_the_files_that_it_names_are_looked_at(file, text, message):
    (file.parent / "token").write_text("abc")
    (file.parent / "token").chmod(0o644)
    config = load(file, MIRROR.format("", text))
    check_config(config)
    with pytest.raises((Refused, NotFound), match=message):
        check_files(config)


def test_the_container_sets_what_there_is(tmp_path):
    text = (DESCRIBED.parent / "Containerfile").read_text()
    settings = dict(re.findall(r"\b(PACBALL_SERVE_[A-Z_]+)=(\S+)", text))
    config = load_config(None, environment=settings).config
    assert (config.store, config.host, config.port, config.log.style) == (Path("/store"), "0.0.0.0", 8080, "json")
    assert config.is_mirror
    named = set(re.findall(r"\bPACBALL_SERVE_[A-Z_]+", text))
    assert named <= {environment_variable(key) for key in KEYS}

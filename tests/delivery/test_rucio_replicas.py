"""What Rucio says of replicas: where it is of use, and nothing else of it."""

from __future__ import annotations

import pytest

from pacmirror.delivery.rucio.replicas import parse_replicas

HEX = "ab" * 32


def row(pfns, name=f"{HEX}.pack", **more):
    return {"scope": "sw", "name": name, "bytes": 10, "pfns": pfns, **more}


def told(pfn, **more):
    return parse_replicas([row({pfn: {"rse": "SITE-A", "type": "DISK", "domain": "wan", **more}})])


@pytest.mark.parametrize(
    ("pfn", "url"),
    [
        ("https://se.example.org/sw/x", "https://se.example.org/sw/x"),
        ("davs://se.example.org:2880/pnfs/a b".replace(" ", "%20"), "https://se.example.org:2880/pnfs/a%20b"),
        ("http://10.0.0.1:8080/x", "http://10.0.0.1:8080/x"),
        ("dav://[fd00::1]:80/x//y", "http://[fd00::1]/x//y"),
        ("https://se.example.org/a..b/.x/...", "https://se.example.org/a..b/.x/..."),
    ],
)
def test_replicas_at_web_servers_are_taken(pfn, url):
    [(endpoint, paths)] = told(pfn).at.items()
    assert [f"{endpoint.origin}{path}" for path in paths.values()] == [url]
    assert endpoint.rse == "SITE-A"


@pytest.mark.parametrize(
    "pfn",
    [
        "file:///etc/passwd",
        "root://se.example.org//x",
        "srm://se.example.org:8443/srm/managerv2?SFN=/x",
        "gopher://x/y",
        "https://user:password@se.example.org/x",
        "https://se.example.org/x?token=secret",
        "https://se.example.org/x#y",
        "https://se.example.org",
        "https:///x",
        "https://se.example.org:99999/x",
        "https://se.example.org:0/x",
        "https://se.example.org/\x1b[31m",
        "https://se.example.org/a b",
        "https://se.example.org/ours/x/../../theirs",
        "https://se.example.org/ours/%2E./theirs",
        "https://se.example.org/ours/%2e%2e%2ftheirs",
        "https://se.example.org/ours/..%5ctheirs",
        "https://se.example.org/ours/.",
        "https://se.example.org/\r\nHost: x",
        "https://bücher.example/x",
        "https://[::1/x",
        "https://[zz]/x",
        "HTTPS://se.example.org/x",
        "https://se.example.org/" + "x" * 5000,
        "",
        7,
    ],
)
def test_what_is_no_plain_url_of_a_web_server_is_passed_over(pfn):
    found = told(pfn)
    assert not found.at
    assert sum(found.passed_over.values()) == 1
    assert found.why_none().isprintable()
    assert "secret" not in found.why_none()
    assert "password" not in found.why_none()


@pytest.mark.parametrize(
    "more", [{"type": "TAPE"}, {"client_extract": True}, {"rse": None}, {"rse": "\x1b[2J"}, {"rse": "A" * 500}]
)
def test_replicas_that_could_not_be_had_at_once_are_passed_over(more):
    found = told("https://se.example.org/x", **more)
    assert not found.at
    assert found.why_none().isprintable()


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"name": 5},
        {"name": "../../x.pack", "pfns": {}},
        {"name": HEX.upper() + ".pack", "pfns": {}},
        {"name": f"{HEX}.sh", "pfns": {}},
    ],
)
def test_files_of_others_in_a_dataset_are_nothing_to_us(odd):
    found = parse_replicas([odd])
    assert not found.lengths
    assert not found.at


@pytest.mark.parametrize("pfns", [None, [], "https://x/y", {"https://x/y": None}, {"https://x/y": "SITE"}])
def test_odd_answers_are_no_replicas(pfns):
    assert not parse_replicas([row(pfns)]).at


def test_absurdly_many_replicas_are_bounded():
    rows = [row({f"https://h{n}.example.org/{'x' * 1000}": {"rse": f"R{n}"} for n in range(5000)})]
    rows += [row({"https://x/y": {"rse": f"R{n}"}}, name=f"{n:064x}.pack") for n in range(5000, 5100)]
    rows += [row({f"gopher{n}://x/y": {"rse": f"R{n}"} for n in range(5000)})]
    found = parse_replicas(rows)
    assert len(found.at) == 1000
    assert len(found.endpoints()) == 64
    assert len(found.passed_over) <= 101
    assert sum(found.passed_over.values()) == 4000 + 100 + 5000
    assert len(found.why_none()) < 2000


def test_near_storage_is_asked_first_then_what_has_most():
    rows = [
        row({"https://few/x": {"rse": "FEW"}, "https://most/x": {"rse": "MOST"}}),
        row({"https://most/y": {"rse": "MOST"}}, name=f"{'cd' * 32}.pack"),
        row({"https://near/x": {"rse": "NEAR", "domain": "lan"}}, name=f"{'ef' * 32}.pack"),
    ]
    assert [one.rse for one in parse_replicas(rows).endpoints()] == ["NEAR", "MOST", "FEW"]

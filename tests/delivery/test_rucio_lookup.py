"""Which datasets of a scope are tried, and in which order; and how a scope is written as a source."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pacmirror.delivery.rucio.lookup import Address, datasets_of, latest
from pacstore.errors import NotFound, Refused
from pacstore.release import Release

NAME = "Demo-1.0-x86_64"
TREE = "0123456789abcdef"
BUNDLE = "ab" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("rucio://sw", Address("sw")),
        ("rucio://sw/", Address("sw")),
        ("rucio://user.me?rse=tier=1%26country=CH", Address("user.me", "tier=1&country=CH")),
        ("rucio://sw?rse=(A|B)\\C&site=CERN-PROD", Address("sw", "(A|B)\\C", "CERN-PROD")),
    ],
)
def test_a_scope_is_written_as_a_source(text, address):
    assert Address.parse(text) == address
    assert str(address) == f"rucio://{address.scope}"


@pytest.mark.parametrize(
    "text",
    [
        "rucio://",
        "rucio://sw/dataset",
        "rucio://sw?rse=",
        "rucio://sw?rack=1",
        "rucio://sw?rse=A&rse=B",
        "rucio://sw?rse=A;B",
        "rucio://sw?rse=A%0aB",
        "rucio://sw?site=a/b",
        "rucio://sw?rse",
        "rucio://sw#x",
        "rucio://user:secret@sw",
        "rucio://" + "x" * 26,
        "rucio://[",
        "rucio://s%77",
        "http://sw",
        "rucio://sw?rse=" + "A" * 501,
    ],
)
def test_what_is_no_scope_is_refused_in_words(text):
    with pytest.raises(Refused) as error:
        Address.parse(text)
    assert "\n" not in str(error.value)
    assert error.value.hint


class Catalogue:
    """What a Rucio says that has these rows of metadata."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows
        self.client = self

    def ask(self, _place, call, **_):
        return call()

    def list_dids(self, _scope, filters, did_type):
        assert did_type == "dataset"
        beginning = filters[0]["name"].rstrip("*")
        return (row["name"] for row in self.rows if str(row["name"]).startswith(beginning))

    def get_metadata_bulk(self, dids, plugin):
        names = [did["name"] for did in dids]
        return [row for row in self.rows if row["name"] in names]


def row(number: int, *, hour: int = 0, name: str = NAME, **more: object) -> dict[str, object]:
    created = datetime(2026, 1, 1, hour, tzinfo=UTC)
    return {"name": f"sw.{name}.b3-{TREE}.p{number}", "created_at": created, "sw_bundle": BUNDLE, **more}


def numbers(found) -> list[int]:
    return [one.number for one in found]


def test_the_newest_placement_is_tried_first_and_what_is_incomplete_or_leaves_last():
    rows = [row(1), row(7, is_open=True), row(3), row(12), row(8, expired_at=datetime(2026, 2, 1, tzinfo=UTC))]
    rows += [row(99, name="Demo-1.0-x86_64-extra"), row(98, name="Demo-1.0-x86_64.b3-x")]
    assert numbers(datasets_of(Catalogue(rows), "sw", Release.parse(NAME))) == [12, 3, 1, 8, 7]


def test_not_more_than_some_are_tried_however_many_there_are():
    assert numbers(datasets_of(Catalogue([row(n) for n in range(3000)]), "sw", Release.parse(NAME))) == list(
        range(2999, 2991, -1)
    )


def test_what_is_not_there_is_not_found_and_the_error_says_what_is():
    with pytest.raises(NotFound, match=r"Demo-2\.0-x86_64"):
        datasets_of(Catalogue([row(1, name="Demo-2.0-x86_64")]), "sw", Release.parse(NAME))
    with pytest.raises(NotFound, match="none of Demo"):
        datasets_of(Catalogue([]), "sw", Release.parse(NAME))


def test_the_latest_catalogs_are_those_of_what_was_registered_last():
    rows = [row(n, hour=n, name=f"Demo-{n}-x") for n in range(6)]
    rows += [row(7, hour=20, sw_bundle="nonsense"), row(8, hour=21, sw_bundle=7), row(9, hour=22, is_open=True)]
    assert numbers(latest(Catalogue(rows), "sw")) == [5, 4, 3]
    but = [str(one.did) for one in latest(Catalogue(rows), "sw")]
    assert numbers(latest(Catalogue(rows), "sw", but=but)) == [2, 1, 0]


@pytest.mark.parametrize("odd", [{}, {"name": None}, {"name": "sw.x"}, {"name": "sw.other.b3-0123456789abcdef.p1"}])
def test_odd_answers_are_passed_over(odd):
    catalogue = Catalogue([row(1, created_at="yesterday")])
    catalogue.get_metadata_bulk = lambda dids, plugin: [odd, *catalogue.rows]
    assert numbers(datasets_of(catalogue, "sw", Release.parse(NAME))) == [1]

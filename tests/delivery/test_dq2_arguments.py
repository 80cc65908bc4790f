"""What scripts for DQ2 give to its verbs is taken as DQ2 took it, or refused with what is wrong."""

import pytest

from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.dq2_arguments import format_guid, listed_files, parse_checksum, parse_lifetime
from pacstore.errors import Refused

GUID = "A1B2C3D4-0000-1111-2222-33334444AAAA"
NO_MORE = {"pfns": (), "events": (), "lumiblocknrs": ()}


def listed(lfns=("x.pack",), guids=(GUID,), sizes=(7,), checksums=("ad:0000ABCD",), **more):
    return listed_files("sw", lfns, guids, sizes, checksums, **{**NO_MORE, **more})


def test_lists_become_files() -> None:
    first, second = listed(
        ("a.pack", "other:b.pack"), (GUID, None), (1, 2), ("ad:0000ABCD", f"md5:{'F' * 32}"), events=(5, 6)
    )
    assert first.fields() == {
        "scope": "sw", "name": "a.pack", "bytes": 1, "adler32": "0000abcd", "meta": {"guid": GUID, "events": 5},
    }  # fmt: skip
    assert second.fields() == {
        "scope": "other", "name": "b.pack", "bytes": 2, "md5": "f" * 32, "meta": {"events": 6}
    }  # fmt: skip
    assert second.lfn == "other:b.pack"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"checksums": ()}, "has 0 entries for 1 LFNs"),
        ({"guids": (GUID, GUID)}, "has 2 entries for 1 LFNs"),
        ({"pfns": ("a", "b")}, "has 2 entries for 1 LFNs"),
        ({"guids": ("1234",)}, "is no GUID"),
        ({"sizes": (-1,)}, "is no size"),
        ({"sizes": ("7",)}, "is no size"),
        ({"sizes": (True,)}, "is no size"),
        ({"sizes": (2**63,)}, "is no size"),
        ({"checksums": ("0000abcd",)}, "is no checksum of DQ2"),
        ({"checksums": ("ad:0000abcd0",)}, "is no checksum of DQ2"),
        ({"checksums": ("md5:0000abcd",)}, "is no checksum of DQ2"),
        ({"checksums": ("ad:0000abcd\n",)}, "is no checksum of DQ2"),
        ({"lfns": ("a+b",)}, "is no name that Rucio takes"),
        ({"lfns": ("x:y:z",)}, "is no name that Rucio takes"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, says) -> None:
    with pytest.raises(Refused, match=says):
        listed(**wrong)


def test_a_file_named_twice_is_refused() -> None:
    with pytest.raises(Refused, match=r"sw:a\.pack: is there twice"):
        listed(("a.pack", "sw:a.pack"), (GUID, GUID), (1, 1), (None, None))


def test_a_missing_checksum_is_none() -> None:
    assert parse_checksum(None, place="x") == parse_checksum("", place="x") == ("", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1 day", 86_400), ("14 days", 14 * 86_400), ("2 days, 01:02:03", 2 * 86_400 + 3723), ("00:00:01", 1)],
)
def test_lifetimes(text, seconds) -> None:
    assert parse_lifetime(text, place="x") == seconds


@pytest.mark.parametrize(
    "text", ["", "0 days", "00:00:00", "5", "5 days01:00:00", "5 days, ", ", 01:00:00", "-1 days", "1 day\n"]
)
def test_what_is_no_lifetime_is_refused(text) -> None:
    with pytest.raises(Refused, match="is no lifetime"):
        parse_lifetime(text, place="x")


@pytest.mark.parametrize("text", [GUID, GUID.lower(), GUID.replace("-", ""), "{" + GUID + "}"])
def test_guids_are_written_as_dq2_did(text) -> None:
    assert format_guid(text) == GUID


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (("x.pack", True, 7, "0000abcd", ""), ""),
        (("x.pack", True, 7, "", "f" * 32), ""),
        (("x.pack", True, 8, "0000abcd", ""), "has 8 bytes in Rucio, not 7"),
        (("x.pack", True, 7, "0000abce", ""), "has the adler32 0000abce in Rucio, not 0000abcd"),
        (("x.pack", False, 7, "0000abcd", ""), "is no file"),
    ],
)
def test_another_file_of_that_name_is_told(known, says) -> None:
    told = listed()[0].differs(FileRecord(*known))
    assert says in told
    assert bool(told) == bool(says)

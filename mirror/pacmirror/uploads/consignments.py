"""Consignments as they go over HTTP (FORMAT.md section 11.1): what an origin says, and what a client makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pacstore.consignment import Consignment
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.errors import Corrupt, PacballError
from pacstore.ledger.checksums import Checksums, Named
from pacstore.limits import MIB
from pacstore.storage import ObjectKind

CONSIGNMENT_BYTES = 64 * MIB
_HEX = re.compile(r"[0-9a-f]+\Z")


def encode_consignment(made: Consignment) -> dict[str, object]:
    """What an origin answers, in JSON's types."""
    objects = [
        {"kind": kind.value, "digest": digest.hex, **_fields(checksums)}
        for (kind, digest), checksums in made.objects.items()
    ]
    pacball = _fields(made.pacball) if made.pacball is not None else None
    return {"number": made.placement_number, "bundle": made.bundle.hex, "objects": objects, "pacball": pacball,
            "is_new": made.is_new}  # fmt: skip


def parse_consignment(data: bytes, *, place: str) -> Consignment:
    """The consignment that an origin answered. Raises Corrupt for what is none."""
    try:
        value = json.loads(data)
        objects = dict(_object(one) for one in value["objects"])
        pacball = None if value["pacball"] is None else _checksums(value["pacball"])
        number, is_new, bundle = value["number"], value["is_new"], Digest.parse(value["bundle"])
    except (PacballError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _strange(place) from error
    if type(number) is not int or type(is_new) is not bool or (ObjectKind.BUNDLE, bundle) not in objects:
        raise _strange(place)
    return Consignment(number, bundle, objects, pacball, is_new)


def _strange(place: str) -> Corrupt:
    return Corrupt("answers what is no answer", place=place, hint="is it an origin of pacball?")


def _fields(checksums: Checksums) -> dict[str, object]:
    return {"length": checksums.length, "adler32": checksums.adler32, "md5": checksums.md5}


def _object(value: Mapping[str, object]) -> tuple[Named, Checksums]:
    return (ObjectKind(str(value["kind"])), Digest.parse(str(value["digest"]))), _checksums(value)


def _checksums(value: Mapping[str, object]) -> Checksums:
    length, adler32, md5 = value["length"], str(value["adler32"]), str(value["md5"])
    if type(length) is not int or not 0 <= length < 1 << 63:
        raise ValueError("a length is none")
    if len(adler32) != 8 or len(md5) != DIGEST_BYTES or not _HEX.match(adler32 + md5):
        raise ValueError("a checksum is none")
    return Checksums(length, adler32, md5)

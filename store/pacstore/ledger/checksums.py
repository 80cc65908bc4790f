"""Checksums of objects, in the ledger: taken once, and true for ever, as an object never changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.ledger.schema import TABLES
from pacstore.storage import ObjectKind

_CHECKSUMS = sa.Table(
    "checksums",
    TABLES,
    sa.Column("digest", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("adler32", sa.String, nullable=False),
    sa.Column("md5", sa.String, nullable=False),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class Checksums:
    """Of an object of `length` bytes; `adler32` in 8 hexadecimal digits, `md5` in 32."""

    length: int
    adler32: str
    md5: str


Named = tuple[ObjectKind, Digest]
"""An object."""


def save(connection: sa.Connection, found: Mapping[Named, Checksums]) -> None:
    """Write the checksums of objects."""
    rows = [
        {"digest": digest.raw, "kind": kind.value, "length": one.length, "adler32": one.adler32, "md5": one.md5}
        for (kind, digest), one in found.items()
    ]
    if rows:
        connection.execute(insert(_CHECKSUMS).on_conflict_do_nothing(), rows)


def find(connection: sa.Connection, wanted: Iterable[Named]) -> dict[Named, Checksums]:
    """The checksums of those of the objects of which they were taken."""
    columns, found = _CHECKSUMS.c, {}
    query = sa.select(columns.length, columns.adler32, columns.md5).where(
        columns.digest == sa.bindparam("object"), columns.kind == sa.bindparam("of_kind")
    )
    for kind, digest in wanted:
        row = connection.execute(query, {"object": digest.raw, "of_kind": kind.value}).one_or_none()
        if row is not None:
            found[kind, digest] = Checksums(*row)
    return found


def forget(connection: sa.Connection, gone: Iterable[Digest]) -> None:
    """Remove what is known of objects with these digests, of any kind."""
    for digest in gone:
        connection.execute(sa.delete(_CHECKSUMS).where(_CHECKSUMS.c.digest == digest.raw))

"""The digests of whole pacballs, in the ledger: taken once, and true for as long as the release's documents and the stub are.

They are found by what alone decides about a pacball's bytes: the release's name, manifest, attributes, and the version of the
stub.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.ledger.schema import TABLES
from pacstore.pacball.digests import PacballDigests, PacballKey
from pacstore.release import Release

_PACBALLS = sa.Table(
    "pacball_digests",
    TABLES,
    sa.Column("release", sa.String, primary_key=True),
    sa.Column("manifest", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sa.Column("attributes", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sa.Column("stub_version", sa.Integer, primary_key=True),
    sa.Column("placement", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    sa.Column("total_bytes", sa.Integer, nullable=False),
    sa.Column("payload_sha256", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("md5", sa.LargeBinary, nullable=False),
    sa.Column("adler32", sa.Integer, nullable=False),
    sa.Column("piece_bytes", sa.Integer, nullable=False),
    sa.Column("pieces", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)


def save(connection: sa.Connection, key: PacballKey, digests: PacballDigests) -> None:
    """Write the digests of the pacball `key`; what was there before is replaced."""
    connection.execute(sa.delete(_PACBALLS).where(*_is(key)))
    connection.execute(
        sa.insert(_PACBALLS).values(
            release=str(key.release),
            manifest=key.manifest.raw,
            attributes=key.attributes.raw,
            stub_version=key.stub_version,
            placement=digests.placement.raw,
            total_bytes=digests.total_bytes,
            payload_sha256=digests.payload_sha256,
            sha256=digests.sha256,
            md5=digests.md5,
            adler32=digests.adler32,
            piece_bytes=digests.piece_bytes,
            pieces=digests.pieces,
        )
    )


def find(connection: sa.Connection, key: PacballKey) -> PacballDigests | None:
    """The digests of the pacball `key`, if they were taken."""
    row = connection.execute(sa.select(_PACBALLS).where(*_is(key))).one_or_none()
    if row is None:
        return None
    return PacballDigests(
        placement=Digest(row.placement),
        total_bytes=row.total_bytes,
        payload_sha256=row.payload_sha256,
        sha256=row.sha256,
        md5=row.md5,
        adler32=row.adler32,
        piece_bytes=row.piece_bytes,
        pieces=row.pieces,
    )


def known(connection: sa.Connection) -> set[PacballKey]:
    """Every pacball whose digests were taken."""
    columns = _PACBALLS.c.release, _PACBALLS.c.manifest, _PACBALLS.c.attributes, _PACBALLS.c.stub_version
    rows = connection.execute(sa.select(*columns))
    return {PacballKey(Release.parse(name), Digest(a), Digest(b), version) for name, a, b, version in rows}


def forget(connection: sa.Connection, keys: Collection[PacballKey]) -> None:
    """Remove what is known of these."""
    for key in keys:
        connection.execute(sa.delete(_PACBALLS).where(*_is(key)))


def _is(key: PacballKey) -> tuple[sa.ColumnElement[bool], ...]:
    columns = _PACBALLS.c
    return (
        columns.release == str(key.release),
        columns.manifest == key.manifest.raw,
        columns.attributes == key.attributes.raw,
        columns.stub_version == key.stub_version,
    )

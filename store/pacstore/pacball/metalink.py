"""Metalink 4 of a pacball (RFC 5854): its digests, those of its pieces, and where it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from pacstore.pacball.digests import PacballDigests, hex_pieces
from pacstore.trust.targets import CatalogRelease

METALINK_TYPE = "application/metalink4+xml"


def encode_metalink(entry: CatalogRelease, name: str, digests: PacballDigests, urls: Sequence[str]) -> bytes:
    """The document for the pacball `name` of a release. `urls`: where it is, the first one to be preferred."""
    release = entry.release
    pieces = "".join(f"      <hash>{digest}</hash>\n" for digest in hex_pieces(digests))
    places = "".join(f'    <url priority="{number}">{escape(url)}</url>\n' for number, url in enumerate(urls, start=1))
    published = datetime.fromtimestamp(entry.published, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'
        "  <generator>pacball</generator>\n"
        f"  <published>{published}</published>\n"
        f"  <file name={quoteattr(name)}>\n"
        f"    <identity>{escape(str(release))}</identity>\n"
        f"    <version>{escape(release.version)}</version>\n"
        f"    <size>{digests.total_bytes}</size>\n"
        f'    <hash type="sha-256">{digests.sha256.hex()}</hash>\n'
        f'    <hash type="md5">{digests.md5.hex()}</hash>\n'
        f'    <pieces type="sha-256" length="{digests.piece_bytes}">\n{pieces}    </pieces>\n'
        f"{places}"
        "  </file>\n"
        "</metalink>\n"
    ).encode()

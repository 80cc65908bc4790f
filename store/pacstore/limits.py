"""Bounds on all that a stranger can make large (FORMAT.md section 9). They are checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class FormatLimits:
    """Bounds of the stored formats; part of FORMAT.md."""

    header_bytes: int = 64 * KIB
    tree_entries: int = 10_000_000
    tree_bytes: int = 2 * GIB
    path_bytes: int = 4_096
    name_bytes: int = 255
    target_bytes: int = 4_095
    manifest_chunks: int = 100_000_000
    manifest_bytes: int = 8 * GIB
    attributes_bytes: int = 8 * GIB
    placement_bytes: int = 8 * GIB
    provenance_bytes: int = 16 * MIB
    bundle_bytes: int = 8 * GIB
    reason_characters: int = 1_000
    frame_plain_bytes: int = 2 * MIB
    frame_bytes: int = 2 * MIB + 64 * KIB
    frame_chunks: int = 4_096
    frame_window_bytes: int = 8 * MIB
    pack_frames: int = 65_536
    pack_bytes: int = 4 * GIB
    table_bytes: int = 256 * MIB
    holdings_bytes: int = 64 * KIB
    store_marker_bytes: int = 4 * KIB
    release_name_bytes: int = 150


@dataclass(frozen=True)
class PackSizes:
    """How a publisher cuts frames and packs; readers do not depend on it.

    `frame_plain_bytes` and `pack_bytes` are targets, reached and slightly passed; `rewrite_share`: an old frame
    of which a release would use less than this share of its plain bytes is not referenced, its wanted chunks are stored again.
    """

    frame_plain_bytes: int = 1 * MIB
    pack_bytes: int = 64 * MIB
    rewrite_share: float = 0.5


LIMITS = FormatLimits()

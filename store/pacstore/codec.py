"""The codec: frames of kind 1, one Zstandard frame each (FORMAT.md section 5.1)."""

from __future__ import annotations

import threading

import zstandard

from pacstore.digest import Bytes
from pacstore.errors import Corrupt, NewerFormat, TooLarge
from pacstore.limits import LIMITS

KIND_ZSTD = 1
DEFAULT_LEVEL = 3
_local = threading.local()


def compress(plain: Bytes, level: int) -> bytes:
    """The frame of kind 1 that holds `plain`. Thread-safe; each thread keeps one compressor a level."""
    key = f"compressor{level}"
    compressor = getattr(_local, key, None)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        setattr(_local, key, compressor)
    data: bytes = compressor.compress(plain)
    return data


def decompress(kind: int, data: Bytes, plain_length: int, *, place: str) -> bytes:
    """The plain bytes of a frame, which must be exactly `plain_length`. `data` need not be trusted.

    Nothing larger than FORMAT.md allows is ever allocated: what a frame declares is compared first, and the decoder is
    then given exactly that size. Raises Corrupt, TooLarge, and NewerFormat for an unknown kind.
    """
    if kind != KIND_ZSTD:
        raise NewerFormat(
            f"a frame is of kind {kind}, which this pacball does not know", place=place, hint="install a newer pacball"
        )
    if plain_length > LIMITS.frame_plain_bytes:
        raise TooLarge(f"a frame of {plain_length} plain bytes is beyond the limit", place=place)
    if plain_length < 1:
        # The decoder would not even look at what a frame without plain bytes consists of, or what follows it.
        raise Corrupt("a frame has no plain bytes", place=place)
    try:
        declared = zstandard.get_frame_parameters(data)
        if (
            declared.content_size != plain_length
            or declared.dict_id
            or declared.window_size > LIMITS.frame_window_bytes
        ):
            raise Corrupt("a frame declares another size, a dictionary or too large a window", place=place)
        plain: bytes = _decompressor().decompress(data, max_output_size=plain_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"a frame cannot be decompressed: {error}", place=place) from error
    if len(plain) != plain_length:
        raise Corrupt(f"a frame has {len(plain)} plain bytes, not {plain_length}", place=place)
    return plain


def _decompressor() -> zstandard.ZstdDecompressor:
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=LIMITS.frame_window_bytes)
        _local.decompressor = decompressor
    return decompressor

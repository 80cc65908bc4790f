"""Exit codes: one table, documented in README.md; nobody else exits."""

from __future__ import annotations

from pacstore.errors import (
    ActionFailed,
    Corrupt,
    NewerFormat,
    NotFound,
    PacballError,
    Refused,
    TooLarge,
    Unavailable,
    Untrusted,
)

OK = 0
DAMAGED = 1
USAGE = 2
INTERRUPTED = 130
FAILED = 70

_CODES: tuple[tuple[type[PacballError], int], ...] = (
    (NotFound, 3),
    (Corrupt, 4),
    (TooLarge, 5),
    (Unavailable, 6),
    (Untrusted, 8),
    (NewerFormat, 9),
    (Refused, 7),
    (ActionFailed, 10),
)


def exit_code(error: PacballError) -> int:
    """The exit code for `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def kind_name(error: PacballError) -> str:
    """The kind of `error` for JSON, for example `not_found`."""
    names = {NotFound: "not_found", Corrupt: "corrupt", TooLarge: "too_large", Unavailable: "unavailable",
             Untrusted: "untrusted", NewerFormat: "newer_format", Refused: "refused",
             ActionFailed: "action_failed"}  # fmt: skip
    return next((name for kind, name in names.items() if isinstance(error, kind)), "failed")

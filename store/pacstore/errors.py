"""The errors of pacball: one root, and a kind for each way in which callers must act differently.

Every message says what is wrong, where, and what to do next. Nothing else is raised on purpose by pacstore or pacmirror;
foreign errors are wrapped where they enter. `mirror/pacmirror/answers.py` maps the kinds to HTTP status, `cli/paccli/exits.py`
to exit codes.
"""

from __future__ import annotations


class PacballError(Exception):
    """Root of all errors that pacball raises on purpose.

    `message` is a sentence; `place` names the object, file or URL concerned; `hint` says what to do next.
    """

    def __init__(self, message: str, *, place: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        # Strangers choose some of the words: names in their files, what their servers answer.
        return printable(f"{text} ({self.hint})" if self.hint else text)


class NotFound(PacballError):
    """It is definitely not there. Never raised because something could not be reached or read."""


class Corrupt(PacballError):
    """Bytes are not what their digest or their format says."""


class TooLarge(PacballError):
    """More than a limit of limits.py, or than what was announced."""


class Unavailable(PacballError):
    """It could not be found out or done now: network, disk, permission. Trying again may help."""


class Refused(PacballError):
    """What was asked for is not allowed, or makes no sense; trying again will not help."""


class ActionFailed(PacballError):
    """A command of the release itself failed, ran out of time, or wrote where it may not. `place` is its log."""


class Untrusted(Refused):
    """Signatures, versions or roots do not allow this to be believed."""


class NewerFormat(Refused):
    """Written by a newer version of pacball."""


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped, safe to print on a terminal."""
    # Nearly all of it is, and this is done for every line of a log.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

"""Users and groups that people name."""

from __future__ import annotations

import grp
import pwd

from pacstore.errors import NotFound, printable


def find_owner(text: str | None) -> tuple[int, int] | None:
    """User and group id of `USER[:GROUP]`, names or numbers; the group of the user where none is named. Raises NotFound."""
    if text is None:
        return None
    user, colon, group = text.partition(":")
    uid, own_group = _user(user)
    if colon:
        return uid, _group(group)
    if own_group is None:
        raise NotFound(
            f"no user has the number {uid}, so its group is not known",
            place="--owner",
            hint=f"name the group too: {uid}:GROUP",
        )
    return uid, own_group


def _user(text: str) -> tuple[int, int | None]:
    try:
        if not _is_number(text):
            found = pwd.getpwnam(text)
            return found.pw_uid, found.pw_gid
    except (KeyError, ValueError) as error:
        hint = "name a user that this machine knows, or a number"
        raise NotFound(f"there is no user {printable(text)}", place="--owner", hint=hint) from error
    try:
        return int(text), pwd.getpwuid(int(text)).pw_gid
    except KeyError:
        return int(text), None


def _group(text: str) -> int:
    if _is_number(text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError) as error:
        hint = "name a group that this machine knows, or a number"
        raise NotFound(f"there is no group {printable(text)}", place="--owner", hint=hint) from error


def _is_number(text: str) -> bool:
    """Whether `text` is a user or group id: the largest 32-bit number means nobody in particular, so it is none."""
    return text.isascii() and text.isdigit() and int(text[:11]) < (1 << 32) - 1

"""Users and groups that people name."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from pacstore.contain.running import User
from pacstore.errors import NotFound, Refused, printable


def check_may_write(store: Path) -> None:
    """Raise Refused where root would work on a store of somebody else: the daemon could neither read nor change what it makes."""
    try:
        owner = os.stat(store / "private").st_uid
    except OSError:  # there is no store, as whoever opens it says
        return
    if os.geteuid() == 0 and owner != 0:
        name, user = _names_of(owner)
        raise Refused(
            f"belongs to {name}: what root makes in it, its daemon could neither read nor change",
            place=printable(str(store)),
            hint=f"run the same command as that user: sudo -u {user} pacball ...",
        )


def _names_of(uid: int) -> tuple[str, str]:
    """A user as people and as sudo know it."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}", f"'#{uid}'"
    return name, name


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


def find_user(text: str | None) -> User:
    """Whom commands of a release are to run as: `text`, a name or number, or this very user where that is not root.

    Raises Refused where root names nobody, or somebody else names another user; NotFound.
    """
    us = os.geteuid()
    if text is None and us == 0:
        hint = "give --actions-as USER, an account that owns nothing; or --actions-as root if you trust the release that much"
        raise Refused("as root, the commands of a release run only as a user that is named", place="--actions-as",
                      hint=hint)  # fmt: skip
    found = _account(str(us) if text is None else text)
    if us not in (0, found.uid):
        raise Refused(f"only root can run commands as {found.name}", place="--actions-as", hint="leave it out")
    return found


def _account(text: str) -> User:
    try:
        found = pwd.getpwuid(int(text)) if _is_number(text) else pwd.getpwnam(text)
    except (KeyError, ValueError) as error:
        if _is_number(text) and int(text) == os.geteuid():
            return User(text, os.geteuid(), os.getegid())
        hint = "name a user that this machine knows"
        raise NotFound(f"there is no user {printable(text)}", place="--actions-as", hint=hint) from error
    return User(found.pw_name, found.pw_uid, found.pw_gid)


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

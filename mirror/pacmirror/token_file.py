"""The tokens that a daemon accepts: a file with what they hash to, never the tokens themselves.

A token is `pacball_ID_SECRET`: the ID names it in lists and logs, the secret has 256 random bits, so that one SHA-256 keeps it:
nobody can try them all. The file belongs to its owner alone (0600). All functions block.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pacstore.durable import staged_file, sync_directory, wrapped, write_all
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, printable
from pacstore.holdings import decode_json, encode_json

FORMAT = 1
KIND = "pacball tokens"
READ = "read"
PUBLISH = "publish"
REPORT = "report"
ADMIN = "admin"
ROLES = (READ, PUBLISH, REPORT, ADMIN)
"""What a token may be for; FORMAT.md section 11.1 says what each of them allows."""
_BYTES = 1 << 20
_MOST = 2_000
_TOKEN = re.compile(r"pacball_([0-9a-f]{8})_[0-9a-f]{64}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_LINES = 100
_LINE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,149}\Z")
_HINT = "restore the file, or remove it and make new tokens"


@dataclass(frozen=True)
class Token:
    """What is kept of a token: for whom (`name`), what it allows (`role`), and times in seconds since 1970; None is for ever.

    `lines`: the only projects to which it may publish; empty for no such limit.
    """

    id: str
    name: str
    role: str
    sha256: str
    created: int
    expires: int | None = None
    lines: tuple[str, ...] = ()

    def may_publish(self, project: str) -> str:
        """Why it may not publish releases of this project; empty if it may."""
        if self.role not in (PUBLISH, ADMIN):
            return f"this token is for the role {self.role}, and does not allow to publish"
        if self.lines and project not in self.lines:
            return f"this token is not for the line {printable(project)}"
        return ""


def create_token(
    file: Path, *, name: str, role: str, now: float, expires: int | None, lines: Sequence[str] = ()
) -> tuple[Token, str]:
    """Add a token to `file`, made if it is missing; what is kept, and the token itself, which nobody can be told again.

    Raises Refused for a name, role or line that there cannot be, or a name that is taken; or as `read_tokens`.
    """
    if not _NAME.match(name):
        hint = "take letters, digits, '.', '_', '@' and '-', at most 64"
        raise Refused("is no name for a token", place=printable(name[:80]), hint=hint)
    if role not in ROLES:
        raise Refused("is not a role", place=printable(role[:80]), hint=f"known are {', '.join(ROLES)}")
    _check_lines(role, lines)
    with _changing(file) as found:
        if any(token.name == name for token in found):
            hint = "revoke it first, or take another name"
            raise Refused("there is a token of this name already", place=name, hint=hint)
        if len(found) >= _MOST:
            raise TooLarge(f"holds {_MOST} tokens already", place=str(file), hint="revoke some")
        number = secrets.token_hex(4)
        text = f"pacball_{number}_{secrets.token_hex(32)}"
        token = Token(number, name, role, _hash(text), int(now), expires, tuple(lines))
        _write(file, [*found, token])
    return token, text


def _check_lines(role: str, lines: Sequence[str]) -> None:
    if lines and role != PUBLISH:
        raise Refused("only tokens of the role publish are limited to lines", place=role, hint="leave out --line")
    for line in lines:
        if not _LINE.match(line):
            hint = "a line is the PROJECT of its releases, such as AtlasOffline"
            raise Refused("is no name of a line", place=printable(line[:80]), hint=hint)
    if len(lines) > _LINES:
        raise TooLarge(
            f"names more than {_LINES} lines", place="--line", hint="make several tokens, or one without a limit"
        )


def revoke_token(file: Path, name: str) -> Token:
    """Take the token of that name, or id, out of `file`. Raises NotFound if there is none; or as `read_tokens`."""
    with _changing(file) as found:
        gone = [token for token in found if name in (token.name, token.id)]
        if not gone:
            raise NotFound("there is no such token", place=printable(name[:80]), hint="pacball token list shows all")
        _write(file, [token for token in found if token not in gone])
    return gone[0]


def read_tokens(file: Path) -> list[Token]:
    """What is kept. Raises NotFound, Unavailable, Refused if others may read or change the file, Corrupt."""
    with wrapped(file), open(file, "rb") as opened:
        if os.fstat(opened.fileno()).st_mode & 0o077:
            hint = f"chmod 600 {shlex.quote(str(file))}"
            raise Refused("other users may read or change this file of tokens", place=str(file), hint=hint)
        data = opened.read(_BYTES + 1)
    return _decode(data, str(file))


def find_token(tokens: Sequence[Token], text: str, *, now: float) -> Token | None:
    """The token that `text` is, unless it has expired. Takes as long for wrong secrets as for the right one."""
    match = _TOKEN.match(text)
    number = match[1] if match else ""
    kept = next((token for token in tokens if token.id == number), None)
    same = hmac.compare_digest(_hash(text), kept.sha256 if kept is not None else _hash("none"))
    if kept is None or not same or (kept.expires is not None and now >= kept.expires):
        return None
    return kept


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _read_or_none(file: Path) -> list[Token]:
    try:
        return read_tokens(file)
    except NotFound:
        return []


@contextlib.contextmanager
def _changing(file: Path) -> Iterator[list[Token]]:
    """What is kept; nobody else changes it meanwhile: a token that is revoked must not come back."""
    with wrapped(file.parent):
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with wrapped(file.parent):
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield _read_or_none(file)
    finally:
        os.close(directory)


def _write(file: Path, tokens: Sequence[Token]) -> None:
    entries: list[object] = [_fields(token) for token in tokens]
    data = encode_json({"format": FORMAT, "kind": KIND, "tokens": entries})
    with wrapped(file), staged_file(file.parent, mode=0o600) as (descriptor, temporary):
        write_all(descriptor, data)
        if os.geteuid() == 0:  # who makes tokens as root does so for the daemon's user
            owner = os.stat(file) if file.exists() else os.stat(file.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fsync(descriptor)
        os.replace(temporary, file)
        sync_directory(file.parent)


def _fields(token: Token) -> dict[str, object]:
    """As an entry of the file: without what older versions do not know, where it says nothing."""
    return {key: value for key, value in asdict(token).items() if key != "lines" or value}


def _decode(data: bytes, place: str) -> list[Token]:
    document = decode_json(data, limit=_BYTES, place=place)
    entries = document.get("tokens")
    if document.get("format") != FORMAT or document.get("kind") != KIND or not isinstance(entries, list):
        raise Corrupt("is no file of tokens that this version knows", place=place, hint=_HINT)
    try:
        return [_token(entry) for entry in entries]
    except (ValueError, TypeError) as error:
        raise Corrupt(f"holds what is no token: {error}", place=place, hint=_HINT) from error


def _token(entry: object) -> Token:
    if not isinstance(entry, dict):
        raise TypeError("an entry is no object")
    lines = entry.get("lines", [])
    if not isinstance(lines, list) or not all(isinstance(line, str) and _LINE.match(line) for line in lines):
        raise ValueError("a line is none")
    token = Token(**{**entry, "lines": tuple(lines)})
    texts = (token.id, token.name, token.role, token.sha256)
    times = (token.created, 0 if token.expires is None else token.expires)
    if not all(isinstance(text, str) for text in texts) or not all(type(time) is int for time in times):
        raise ValueError("a field has another type")
    if not _HASH.match(token.sha256) or not _NAME.match(token.name) or token.role not in ROLES:
        raise ValueError("a field has another form")
    return token

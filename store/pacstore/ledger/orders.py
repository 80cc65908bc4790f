"""Orders: what people have said by command, subscriptions and pins, in a small file beside the ledger as well.

All else in a ledger can be found out again; so whoever begins a ledger where there is none takes the orders from this file. It is
replaced in the transaction that changes them, and where a crash comes between the two, when a daemon starts.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacstore.backends.directory import read_bounded
from pacstore.durable import replace_file
from pacstore.errors import Corrupt, NotFound, PacballError
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.ledger import pins, subscriptions
from pacstore.ledger.pins import Pin
from pacstore.limits import MIB
from pacstore.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from pacstore.database import Database

ORDERS_NAME = "orders.json"
FORMAT = 1
_BYTES = 64 * MIB


@contextmanager
def changing(ledger: Database) -> Iterator[sa.Connection]:
    """Like `ledger.writing`, for who changes subscriptions or pins."""
    with ledger.writing() as connection:
        yield connection
        _save(connection, path_beside(ledger.path))


def save(ledger: Database) -> None:
    """Let the file say what the ledger says. Raises Unavailable."""
    path = path_beside(ledger.path)
    with ledger.reading() as connection:
        if encode(connection) == _read(path):
            return
    # Looked up again: somebody may change them now.
    with changing(ledger):
        pass


def load(connection: sa.Connection, ledger: Path) -> None:
    """Write the orders beside the `ledger` into it, if there are any. Raises Corrupt or NewerFormat for what are none."""
    path = path_beside(ledger)
    data = _read(path)
    if not data:
        return
    value = decode_json(data, limit=_BYTES, place=str(path))
    check_format(value, FORMAT, str(path))
    try:
        _apply(connection, value)
    except (PacballError, KeyError, TypeError, ValueError) as error:
        hint = "mend it or move it away; then what was subscribed to and pinned by command must be said again"
        raise Corrupt(f"is not what pacball wrote: {error}", place=str(path), hint=hint) from error


def encode(connection: sa.Connection) -> bytes:
    """The orders in the ledger as the bytes of the file; none, if nobody has said anything."""
    subscribed = [
        {"keep": one.keep, "pattern": one.pattern, "made_at": made_at}
        for one, made_at in subscriptions.dated(connection)
    ]
    pinned = [
        {"made_at": pin.made_at, "name": pin.name, "owner": pin.owner, "reason": pin.reason, "until": pin.until}
        for pin in pins.listed(connection, now=0.0)
    ]
    return encode_json({"format": FORMAT, "pins": pinned, "subscriptions": subscribed}) if subscribed or pinned else b""


def path_beside(ledger: Path) -> Path:
    """Where the orders of the ledger at that path are."""
    return ledger.with_name(ORDERS_NAME)


def _apply(connection: sa.Connection, value: dict[str, object]) -> None:
    for one in _rows(value, "subscriptions"):
        subscription = Subscription(one["pattern"], one["keep"])  # type: ignore[arg-type]
        subscriptions.add(connection, subscription, now=_moment(one["made_at"]))
    for one in _rows(value, "pins"):
        until = None if one["until"] is None else _moment(one["until"])
        name, owner, reason = (str(one[key]) for key in ("name", "owner", "reason"))
        pins.add(connection, Pin(name, owner, reason, until, _moment(one["made_at"])))


def _rows(value: dict[str, object], key: str) -> list[dict[str, object]]:
    rows = value[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"its {key} are no list of objects")
    return rows


def _moment(value: object) -> float:
    if type(value) not in (int, float):
        raise ValueError("a time is no number")
    return float(value)  # type: ignore[arg-type]


def _save(connection: sa.Connection, path: Path) -> None:
    data = encode(connection)
    # An empty file says as much as none, and is as durable as any.
    if data != _read(path):
        # Commands may be root's: the daemon, which is not, is to read it, too.
        replace_file(path, data, staging=path.parent, mode=0o644)


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _BYTES)
    except NotFound:
        return b""

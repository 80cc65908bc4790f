"""Pages for people: what is here, in plain HTML without scripts. All links are relative, so any proxy may stand in front."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from pacmirror.files import CHANGING
from pacstore.errors import printable
from pacstore.pacball.stub import file_name
from pacstore.tree import EntryKind
from pacstore.trust.clock import date

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pacstore.pacball.opened import OpenedRelease, Place
    from pacstore.trust.targets import CatalogRelease

_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_NOTHING = "No release is whole here. A mirror offers only those that it holds whole: those that it is subscribed to."


def index_page(entries: Iterable[CatalogRelease], *, left_out: int) -> web.Response:
    """The pacballs that can be had here."""
    rows = []
    for entry in entries:
        name = file_name(entry.release, entry.tree_digest)
        withdrawn = f"<br>WITHDRAWN: {_shown(entry.withdrawal.reason)}" if entry.withdrawal else ""
        rows.append(
            f'<tr><td><a href="../pacballs/{quote(name)}">{escape(name)}</a>{withdrawn}</td>'
            f'<td><a href="../pacballs/{quote(name)}.meta4">metalink</a></td>'
            f'<td><a href="../files/{quote(str(entry.release))}/">files</a></td>'
            f"<td>{_size(entry.total_bytes)}</td><td>{date(entry.published)}</td></tr>"
        )
    text = "Releases as one self-installing file each: sh FILE" if rows else _NOTHING
    return _page("Pacballs", text, rows, left_out)


def directory_page(opened: OpenedRelease, path: bytes, places: Sequence[Place], *, left_out: int) -> web.Response:
    """What lies in a directory of a release."""
    rows = ['<tr><td><a href="../">../</a></td><td></td></tr>']
    for place in places:
        name = place.path.rpartition(b"/")[2]
        slash = "/" if place.kind is EntryKind.DIRECTORY else ""
        after = ""
        if place.kind is EntryKind.SYMLINK:
            after = f" -&gt; {_shown(opened.target(place).decode('utf-8', 'backslashreplace'))}"
        size = _size(place.size) if place.file >= 0 else ""
        # "./", since a name may look like the scheme of a URL.
        link = f'<a href="./{quote(name)}{slash}">{_shown(name.decode("utf-8", "backslashreplace"))}{slash}</a>'
        rows.append(f"<tr><td>{link}{after}</td><td>{size}</td></tr>")
    title = f"{opened.entry.release}/{path.decode('utf-8', 'backslashreplace')}"
    return _page(title, "", rows, left_out)


def _page(title: str, text: str, rows: Iterable[str], left_out: int) -> web.Response:
    more = f"<p>{left_out} more are not listed here.</p>\n" if left_out else ""
    intro = f"<p>{escape(text)}</p>\n" if text else ""
    body = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_shown(title)}</title></head>\n<body><h1>{_shown(title)}</h1>\n{intro}"
        "<table>\n" + "\n".join(rows) + f"\n</table>\n{more}</body></html>\n"
    )
    headers = {"Cache-Control": CHANGING, "Content-Security-Policy": _POLICY}
    return web.Response(text=body, content_type="text/html", charset="utf-8", headers=headers)


def _shown(text: str) -> str:
    return escape(printable(text))


def _size(count_bytes: int) -> str:
    value, units = float(count_bytes), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"

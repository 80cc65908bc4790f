"""Where a change waits: the newest of numbered documents, beside the catalog but never public.

A change is replaced by *creating* the document with the next number, so of two writers who started from the same one, one must
start again, and nothing that waits is lost. An empty change says that nothing waits.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable
from pacstore.storage import DocumentKind
from pacstore.trust.chain import create_document
from pacstore.trust.change import CHANGE_BYTES, Change

if TYPE_CHECKING:
    from pacstore.storage import DocumentStorage

_SUFFIX = ".change.json"
_ATTEMPTS = 100
_KEPT = 2
_PLACE = "private/catalog"


class Pending:
    """What waited when this object was made, and the place to keep something else instead. Raises as `read_pending` does.

    Without `drafts` nothing waits, and nothing can.
    """

    def __init__(self, drafts: DocumentStorage | None) -> None:
        self._drafts = drafts
        self._number, self.change = read_pending(drafts) if drafts is not None else (0, Change())
        self._stored = self._before = self.change.encode()

    def check(self, change: Change) -> None:
        """Raise Refused if `change` cannot be kept here, since nothing can."""
        if change and self._drafts is None:
            roles = ", ".join(sorted(change.roles))
            hint = "name a directory with all keys that must sign: --keys DIR"
            raise Refused("the keys here do not suffice, and nothing can wait here", place=roles, hint=hint)

    def secure(self, change: Change) -> bool:
        """Keep what is about to be committed, if anything can be kept here: so that a crash on the way can be made good."""
        return self._drafts is None or self.keep(change)

    def keep(self, change: Change) -> bool:
        """Keep `change`, durably, in the place of what waited; False if another writer has replaced that meanwhile.

        Raises Refused where nothing can be kept, TooLarge for what nobody could read.
        """
        self.check(change)
        data = change.encode()
        if data != self._stored and self._drafts is not None:
            if not replace_pending(self._drafts, self._number, change):
                return False
            self._number, self._stored = self._number + 1, data
        return True

    def again(self) -> Pending:
        """What waits now; but what was waiting before, as long as nobody else has replaced what was secured here."""
        now = Pending(self._drafts)
        if now._number == self._number:
            now.change = Change.parse(self._before, place=_PLACE)
            now._before = self._before
        return now


def read_pending(drafts: DocumentStorage) -> tuple[int, Change]:
    """The number of the newest change, 0 if there never was one, and the change. Raises Corrupt, NewerFormat, Unavailable."""
    for _ in range(_ATTEMPTS):
        numbers = _numbers(drafts)
        if not numbers:
            return 0, Change()
        name = f"{numbers[-1]}{_SUFFIX}"
        with suppress(NotFound):
            data = drafts.get(DocumentKind.CATALOG, name, limit=CHANGE_BYTES)
            try:
                return numbers[-1], Change.parse(data, place=f"{_PLACE}/{name}")
            except Corrupt as error:
                hint = "restore it from a backup; or remove it, and propose anew what waited there"
                raise Corrupt(error.message, place=error.place, hint=hint) from error
    raise Unavailable("the pending change is replaced by others all the time", place=_PLACE, hint="try again")


def replace_pending(drafts: DocumentStorage, number: int, change: Change) -> bool:
    """Put `change` in the place of the one with `number`, durably; False if another writer has replaced that meanwhile."""
    data = change.encode()
    if len(data) > CHANGE_BYTES:
        hint = "get what waits signed, or drop some of it: pacball trust drop ROLE"
        message = f"what waits would take {len(data)} bytes, more than {CHANGE_BYTES}"
        raise TooLarge(message, place=_PLACE, hint=hint)
    if not create_document(drafts, f"{number + 1}{_SUFFIX}", data):
        return False
    numbers = _numbers(drafts)
    if numbers[-1:] != [number + 1]:
        # The name was free again only because others had gone further on.
        drafts.remove(DocumentKind.CATALOG, f"{number + 1}{_SUFFIX}")
        return False
    # The one before stays, so that who is a step behind finds the name taken, and need not rely on the listing.
    for old in numbers[:-_KEPT]:
        drafts.remove(DocumentKind.CATALOG, f"{old}{_SUFFIX}")
    return True


def _numbers(drafts: DocumentStorage) -> list[int]:
    try:
        names = list(drafts.names(DocumentKind.CATALOG))
    except NotFound:
        # A store that nobody has written to since this version knows no drafts.
        return []
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isdecimal())

"""Tables: rows of words for people, each column as wide as its widest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Iterator[str]:
    """The lines of a table; the columns with the numbers `right` end flush."""
    widths = [max(len(row[at]) for row in (titles, *rows)) for at in range(len(titles))]
    for row in (titles, *rows):
        cells = [
            word.rjust(width) if at in right else word.ljust(width)
            for at, (word, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()

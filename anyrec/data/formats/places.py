"""The place of a value in its source, as faults name it: a JSON pointer, a line of a file, or a row of a table."""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

Pointer = Callable[[int], str]
"""Row to the place of one column's value."""
Place = Callable[[int, str], str]
"""Row and column name (`user_id`, `text.title`) to the place of that value."""


def json_place(part: str) -> Place:
    """Return the places of the rows of one of a document's three lists, as JSON pointers."""

    def place(row: int, column: str) -> str:
        group, dot, name = column.partition(".")
        keys = (group, name) if dot else (group,)
        return f"/{part}/{row}" + "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys if key)

    return place


def table_place(name: str) -> Place:
    """Return the places of the rows of a table, counted from 1. name: of the file or the part."""
    return lambda row, column: f"{name} row {row + 1}" + (f", column '{column}'" if column else "")


class LinePlace:
    """Lines of a text file. A second pass finds them when the first fault needs one.

    Attributes:
        name: The name of the file.
        read: Returns the whole file, which is read again rather than kept.
        separator: The separator of a CSV file; empty for JSON Lines.
        width: The number of cells of a CSV row; rows with more or fewer are not part of the table.
        before: Lines before the first row of a CSV file.
        quote: The quote around cells; None for none.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], bytes],
        separator: str = "",
        width: int = 0,
        before: int = 0,
        quote: str | None = '"',
    ):
        self.name, self.read, self.separator, self.width = name, read, separator, width
        self.before, self.quote = before, quote

    def __call__(self, row: int, column: str) -> str:
        line = self.lines[row] if row < len(self.lines) else row + 1
        return f"{self.name} line {line}" + (f", column '{column}'" if column else "")

    @cached_property
    def lines(self) -> list[int]:
        """The line on which each row begins."""
        if not self.separator:
            return [number for number, line in enumerate(self.read().split(b"\n"), 1) if line.strip()]
        return [line for line, cells in self._csv_rows if cells == self.width]

    @property
    def ragged(self) -> list[tuple[int, int]]:
        """The line and the number of cells of each CSV row that has more or fewer cells than the header."""
        return [(line, cells) for line, cells in self._csv_rows if cells != self.width]

    @cached_property
    def _csv_rows(self) -> list[tuple[int, int]]:
        """The line and the number of cells of each row except empty lines."""
        text = io.StringIO(self.read().decode("utf-8", "replace"), newline="")
        for _ in range(self.before):
            text.readline()
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        reader = csv.reader(text, delimiter=self.separator, quotechar=self.quote, quoting=quoting)
        first = 1 + self.before
        rows, begins = [], first
        try:
            for cells in reader:
                if cells:
                    rows.append((begins, len(cells)))
                begins = reader.line_num + first
        except csv.Error:  # a cell is longer than the csv module accepts: later rows get no line of their own
            pass
        return rows


@dataclass(frozen=True)
class Origin:
    """Where the records of one side come from.

    Attributes:
        ids: (rows,) The ids in the order of the source.
        place: Where each row is in the source.
    """

    ids: pa.ChunkedArray
    place: Place

    def where(self, record: object, column: str) -> str:
        """Return the place of a column's value in the record with an id."""
        return self.place(pc.index(self.ids, record).as_py(), column)


def place_among(parts: Sequence[tuple[int, Place]]) -> Place:
    """Return the places of the rows of several tables, one after the other.

    Args:
        parts: The number of rows of each table, and their places.
    """
    if len(parts) == 1:
        return parts[0][1]
    starts = list(accumulate((rows for rows, _ in parts), initial=0))

    def place(row: int, column: str) -> str:
        number = min(bisect_right(starts, row), len(parts)) - 1
        return parts[number][1](row - starts[number], column)

    return place


def column_of(place: Place, column: str) -> Pointer:
    """Return the places of one column's values."""
    return lambda row: place(row, column)

"""Short descriptions of objects as HTML, which notebooks show instead of the text of `repr`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MOST_ROWS = 20
"""Rows of a table that are shown."""


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], total: int | None = None) -> str:
    """Return a table as HTML, in which every text of the data is escaped.

    Args:
        caption: Title above the table.
        header: Names of the columns.
        rows: The cells of each row. Rows after the first `MOST_ROWS` are only counted.
        total: Number of rows of the table, if `rows` are only the first ones.
    """
    listed = list(rows)
    lines = [_row("th", header), *(_row("td", row) for row in listed[:MOST_ROWS])]
    hidden = (len(listed) if total is None else total) - MOST_ROWS
    below = f"<p>and {hidden:,} more rows</p>" if hidden > 0 else ""
    return f"<p><b>{escape(caption)}</b></p><table>{''.join(lines)}</table>{below}"


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_text(cell))}</{tag}>" for cell in cells) + "</tr>"


def _text(cell: object) -> str:
    """Return a cell as a text: floats with four digits, whole numbers with separators."""
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return "" if cell is None else str(cell)

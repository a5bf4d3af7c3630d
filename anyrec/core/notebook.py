"""Short descriptions of objects as HTML, which notebooks show instead of the text of `repr`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS, MOST_CHARACTERS = 20, 120
"""Rows of a table that are shown, and characters of a cell."""
RESULTS = ({"item_id", "score"}, {"user_id", "score"}, {"user_id", "embedding"}, {"item_id", "embedding"})
"""Columns by which a table is one of results: lists, scores of pairs, embeddings."""


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


def html_of_results(table: pa.Table) -> str | None:
    """Return a table of results as HTML; None for other tables, which notebooks show as text."""
    if not any(columns <= set(table.column_names) for columns in RESULTS):
        return None
    users = len(table.column("user_id").unique()) if "user_id" in table.column_names else None
    return html_of_table(f"{len(table):,} rows" + (f" of {users:,} users" if users is not None else ""), table)


def html_of_table(caption: str, table: pa.Table) -> str:
    """Return the first rows of an Arrow table as HTML. Ids are shown as they are, without separators."""
    first = table.slice(0, MOST_ROWS).to_pylist()
    rows = [[str(value) if name.endswith("_id") else value for name, value in row.items()] for row in first]
    return html_table(caption, table.column_names, rows, len(table))


def show_results_as_html() -> None:
    """Let notebooks show the tables that `recommend`, `similar`, `search`, `score` and `embed_users` return as HTML.

    These are Arrow tables, which have no HTML of their own. Outside IPython nothing is done.
    """
    shell = getattr(builtins, "get_ipython", lambda: None)()
    if shell is not None:
        formatters = shell.display_formatter.formatters
        formatters["text/html"].for_type_by_name("pyarrow.lib", "Table", html_of_results)


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(_text(cell))}</{tag}>" for cell in cells) + "</tr>"


def _text(cell: object) -> str:
    """Return a cell as a text: floats with four digits, whole numbers with separators, long texts cut off."""
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, list) and all(isinstance(one, float) for one in cell):
        cell = ", ".join(f"{one:.3f}" for one in cell[:MOST_ROWS])
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    text = "" if cell is None else str(cell)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"

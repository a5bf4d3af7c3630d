"""SQLite databases, through the ADBC driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault, MissingDependency
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.queries import (
    BATCH,
    database_file,
    file_version,
    projected,
    query_errors,
    query_of,
    query_rows,
    quoted,
    wanted_columns,
)

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Cursor

EXAMPLES = {"integer": "0", "real": "0.5", "text": "''", "blob": "x''"}
"""A value of each type in SQL. A column of NULL alone is read as text."""
TABLES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
MOST_MIXED = 1000
"""Rows of a rarer type that are named."""


class Sqlite(Provider):
    """Tables and queries of an SQLite file: shop.sqlite, sqlite:///shop.db."""

    type = "sqlite"
    schemes = "sqlite"
    endings = ".sqlite .sqlite3 .db .db3"

    def tables(self, table: TableConfig, access: Access) -> list[str]:
        """Return the names of the tables and views."""
        with ExitStack() as opened:
            return _opened(database_file(table, access), opened)[1]

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Run a query in a transaction that cannot change the file."""
        path = database_file(table, access)
        name, version = str(path), file_version(path)
        with ExitStack() as opened:
            cursor, tables = _opened(path, opened)
            with query_errors(name, tables, table.table):
                query = query_of(table, tables)
                cursor.execute(query)
                names = [one[0] for one in cursor.description or ()]
                wanted = wanted_columns(names, access, name)
                types, mixed = _types(cursor, query, wanted)
                examples = ", ".join(f"{EXAMPLES[types[one]]} AS {quoted(one)}" for one in wanted) or "NULL"
                rows = projected(query, [quoted(one) for one in wanted])
                cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH)})
                cursor.execute(f"SELECT {examples} UNION ALL SELECT * FROM (\n{rows}\n)")
                reader = cursor.fetch_record_batch()
            held = opened.pop_all()

        def batches() -> Iterator[pa.RecordBatch]:
            first = 1  # the examples
            with held, query_errors(name, tables):
                for batch in reader:
                    yield batch.slice(first)
                    first = 0

        found = query_rows(reader.schema, batches(), names, table, version)
        found.mixed = mixed
        return found


def _opened(path: Path, opened: ExitStack) -> tuple[Cursor, list[str]]:
    """Return a cursor on a read-only connection, and the tables. opened: Closes both."""
    try:
        from adbc_driver_sqlite import dbapi
    except ImportError:
        raise MissingDependency("adbc-driver-sqlite", "sql", "Reading SQLite") from None
    with path.open("rb") as file:
        _check_header(file.read(16), str(path))
    with query_errors(str(path), []):
        connection = opened.enter_context(dbapi.connect(f"file:{quote(str(path.absolute()))}?mode=ro"))
        cursor = opened.enter_context(connection.cursor())
        cursor.execute(TABLES)
        return cursor, [row[0] for row in cursor.fetchall()]


def _check_header(start: bytes, name: str) -> None:
    if start.startswith(b"SQLite format 3\0"):
        return
    hint = "Set `database` to duckdb:///FILE." if start[8:12] == b"DUCK" else "Check the path."
    raise DataError(Fault(name, "this is no SQLite database.", hint, "unreadable"))


def _types(cursor: Cursor, query: str, names: list[str]) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Return the type of each column, and the rows of rarer types of those of several types, which are texts.

    Cells of SQLite have types, columns do not. The driver takes a column's type from the first rows, and fails at the
    first cell that is of another one. So the types of all cells are found first, and a row of those types goes ahead.
    The first and the last of a column's types by name suffice, and take half the time of counting each.
    """
    types: dict[str, str] = {}
    mixed: dict[str, list[int]] = {}
    if not names:
        return types, mixed
    kinds = [
        f"{end}(typeof({one})) FILTER (WHERE {one} IS NOT NULL)" for one in map(quoted, names) for end in ("min", "max")
    ]
    cursor.execute(projected(query, kinds))
    found = list(cursor.fetchone() or ())
    for name, first, last in zip(names, found[::2], found[1::2], strict=True):
        if (first, last) == ("integer", "real"):
            types[name] = "real"
        else:
            types[name] = first if first is not None and first == last else "text"
            if first != last:
                mixed[name] = _rarer(cursor, query, quoted(name))
    return types, mixed


def _rarer(cursor: Cursor, query: str, column: str) -> list[int]:
    """Return the rows of a column that are not of its most frequent type."""
    numbered = f"SELECT row_number() OVER () - 1 AS n, typeof({column}) AS t FROM (\n{query}\n)"
    common = f"SELECT t FROM ({numbered}) WHERE t <> 'null' GROUP BY t ORDER BY count(*) DESC LIMIT 1"
    cursor.execute(f"SELECT n FROM ({numbered}) WHERE t <> 'null' AND t <> ({common}) LIMIT {MOST_MIXED}")
    return [row[0] for row in cursor.fetchall()]

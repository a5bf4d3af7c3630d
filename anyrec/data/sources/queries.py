"""Queries of databases: which query reads a table, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import AnyrecError, DataError, Fault, did_you_mean
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Rows
from anyrec.data.sources.open_table import shown, title_of

BATCH = 1 << 16
"""Rows of a batch."""
READS = ("select", "with", "values", "table", "from")
"""First words of queries that only read. `from` is DuckDB's."""
FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(\w*)", re.DOTALL)
NO_TABLE = re.compile(r"no such table|relation .* does not exist|Table with name .* does not exist", re.IGNORECASE)
READ_ONLY = re.compile(r"read-?only", re.IGNORECASE)
PREFIX = re.compile(
    r"^(?:[A-Z_]+: )?(?:\[\w+\] )?(?:Failed to [\w ]*(?:'.*?')?: )?(?:could not begin COPY: )?(?:ERROR: +)?", re.DOTALL
)
"""What the drivers write before the message of the database."""


def query_of(table: TableConfig, tables: list[str]) -> str:
    """Return the query that reads a table.

    Args:
        table: With `query` or `table`.
        tables: The tables of the database, for messages.

    Raises:
        DataError: If neither is given, or the query does more than read.
    """
    if table.table is not None:
        return "SELECT * FROM " + ".".join(map(quoted, table.table.split(".")))
    if not (table.query or "").strip():
        hint = f"Set `query` or `table`. {did_you_mean('', tables)}"
        raise DataError(Fault(shown(table), "a database needs a query or the name of a table.", hint, "no query"))
    query = re.sub(r"[;\s]+\Z", "", table.query or "")
    found = FIRST_WORD.match(query)
    if found is not None and found[1].lower() not in READS:
        raise changes_data(shown(table), f"it begins with '{found[1][:20]}'")
    return query


def changes_data(name: str, why: str) -> DataError:
    """Return the error of a query that does more than read."""
    what = f"the query does not only read: {why}."
    return DataError(Fault(name, what, "Write one SELECT; the data are never changed.", "query"))


def projected(query: str, columns: list[str]) -> str:
    """Return a query of some columns of another one, which are written as SQL, in the same order of the rows."""
    return f"SELECT {', '.join(columns) or 'NULL'} FROM (\n{query}\n) AS anyrec_rows"


def quoted(name: str) -> str:
    """Return the name of a table or column in quotes."""
    return '"' + name.replace('"', '""') + '"'


def wanted_columns(names: list[str], access: Access, name: str) -> list[str]:
    """Return the columns of a query that are used. Raises DataError if two have one name."""
    doubled = sorted({one for one in names if names.count(one) > 1})
    if doubled:
        what = f"the query returns several columns called '{doubled[0]}'."
        raise DataError(Fault(name, what, "Name the columns, and give each another name with AS.", "query"))
    return [one for one in names if access.columns is None or one in access.columns]


def query_rows(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], names: list[str], table: TableConfig, version: str
) -> Rows:
    """Return the rows of a query. names: All its columns. version: What identifies its content."""
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    return Rows(reader, title_of(table), version, names=names)


@contextmanager
def query_errors(name: str, tables: list[str], table: str | None = None) -> Iterator[None]:
    """Turn errors of a database into DataError.

    Args:
        name: Place of the database.
        tables: Its tables.
        table: The table that is read, if there is no query.
    """
    try:
        yield
    except AnyrecError:
        raise
    except Exception as error:  # each driver has errors of its own, which share no class
        if type(error).__module__ == "builtins" and not isinstance(error, OSError):
            raise
        text = message_of(error)
        if READ_ONLY.search(text):
            raise changes_data(name, text) from None
        if NO_TABLE.search(text):
            missing = re.search(r"[\"']([^\"']+)[\"']|(?:table:?|name) ([\w.]+)", text)
            called = table or (missing and (missing[1] or missing[2])) or ""
            hint = did_you_mean(called, tables) or "The database holds no tables."
            raise DataError(Fault(name, f"there is no table '{called}' in this database.", hint, "no table")) from None
        raise DataError(Fault(name, f"the database refuses the query: {text}.", "", "query")) from None


def message_of(error: Exception) -> str:
    """Return the message of a driver's error in one line, without the query that it repeats."""
    text = PREFIX.sub("", str(error).split("\nQuery was")[0].split("\nquery:")[0].split(" SQLSTATE:")[0].strip())
    lines = [line.strip() for line in text.splitlines()]
    lines = lines[: lines.index("")] if "" in lines else lines
    return " ".join(line for line in lines if line.strip(" ^")).rstrip(".") or type(error).__name__


def database_file(table: TableConfig, access: Access) -> Path:
    """Return the file of a database on this machine. sqlite:///shop.db is relative, sqlite:////data/shop.db is not.

    Raises:
        DataError: If there is none, or several are named.
    """
    if len(table.places) != 1:
        raise DataError(Fault(shown(table), "a table is read from one database.", "Name one file.", "no file"))
    place = table.places[0]
    parts = parse_address(place)
    path = access.root / Path(parts.path.removeprefix("/") if parts.scheme else place).expanduser()
    if not path.is_file():
        raise DataError(Fault(str(path), "there is no such file.", "Check the path.", "no file"))
    return path


def file_version(path: Path) -> str:
    """Return size and time of a database file and of its journal."""
    parts = [path, *(path.with_name(path.name + end) for end in ("-wal", ".wal"))]
    return "; ".join(f"{one.stat().st_size} bytes, {one.stat().st_mtime_ns}" for one in parts if one.is_file())

"""DuckDB databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import MissingDependency
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.open_table import shown
from anyrec.data.sources.queries import (
    BATCH,
    changes_data,
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
    from duckdb import DuckDBPyConnection

TABLES = "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal"


class DuckDB(Provider):
    """Tables and queries of a DuckDB file: shop.duckdb, duckdb:///shop.duckdb; duckdb:// for a query of files."""

    type = "duckdb"
    schemes = "duckdb"
    endings = ".duckdb .ddb"

    def tables(self, table: TableConfig, access: Access) -> list[str]:
        """Return the names of the tables and views."""
        with ExitStack() as opened:
            return _opened(table, access, opened)[1]

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Run a query on a connection that cannot change the file.

        Without `data.allow_urls` the query can open nothing but the database.
        """
        name = shown(table)
        with ExitStack() as opened:
            connection, tables, version = _opened(table, access, opened)
            import duckdb

            with query_errors(name, tables, table.table):
                query = query_of(table, tables)
                kinds = [one.type for one in connection.extract_statements(query)]
                if kinds != [duckdb.StatementType.SELECT]:
                    raise changes_data(name, f"it is {' and '.join(one.name for one in kinds) or 'empty'}")
                names = [one[0] for one in connection.execute(f"DESCRIBE (\n{query}\n)").fetchall()]
                wanted = wanted_columns(names, access, name)
                reader = connection.sql(projected(query, [quoted(one) for one in wanted])).to_arrow_reader(BATCH)
            held = opened.pop_all()

        def batches() -> Iterator[pa.RecordBatch]:
            with held, query_errors(name, tables):
                yield from reader

        return query_rows(reader.schema, batches(), names, table, version)


def _opened(table: TableConfig, access: Access, opened: ExitStack) -> tuple[DuckDBPyConnection, list[str], str]:
    """Return a read-only connection, the tables, and the version of the file. opened: Closes the connection."""
    try:
        import duckdb
    except ImportError:
        raise MissingDependency("duckdb", "sql", "Reading DuckDB") from None
    in_memory = [parse_address(place).rest for place in table.places] == [""]
    if in_memory:
        access.check_remote("a DuckDB query of files")
    path = None if in_memory else database_file(table, access)
    settings: dict[str, str | bool | int | float | list[str]] = {"enable_external_access": access.allow_urls}
    if path is None:
        settings["file_search_path"] = str(access.root.absolute())
    with query_errors(shown(table), []):
        connection = duckdb.connect(str(path or ":memory:"), read_only=path is not None, config=settings)
        opened.enter_context(connection)
        tables = [row[0] for row in connection.execute(TABLES).fetchall()]
    return connection, tables, file_version(path) if path is not None else ""

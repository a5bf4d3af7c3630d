"""PostgreSQL, through the ADBC driver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pyarrow as pa

from anyrec.core.config.sources import TableConfig
from anyrec.core.errors import DataError, Fault, MissingDependency
from anyrec.core.secrets import parse_address
from anyrec.data.sources.contract import Access, Provider, Rows
from anyrec.data.sources.open_table import shown
from anyrec.data.sources.queries import (
    message_of,
    projected,
    query_errors,
    query_of,
    query_rows,
    quoted,
    wanted_columns,
)

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Cursor

SECONDS = 10
"""Time limit of connecting, unless the address or PGCONNECT_TIMEOUT sets another."""
TABLES = """
SELECT CASE table_schema WHEN current_schema() THEN '' ELSE table_schema || '.' END || table_name
FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
EXACT_DIGITS = 18
"""Digits that every int8 holds."""
REFUSED = re.compile(r"authentication failed|no password supplied|role .* does not exist|no pg_hba.conf entry|SSL")
ABSENT = re.compile(r"database .* does not exist")


class PostgreSQL(Provider):
    """Tables and queries of PostgreSQL: postgresql://user@host/database."""

    type = "postgresql"
    schemes = "postgresql postgres"
    remote = True

    def tables(self, table: TableConfig, access: Access) -> list[str]:
        """Return the names of the tables and views that the user may read."""
        with ExitStack() as opened:
            return _opened(table, access, opened)[1]

    def open(self, table: TableConfig, access: Access) -> Rows:
        """Run a query in a transaction that cannot change the database, and sees it as it is at one moment."""
        name = shown(table)
        with ExitStack() as opened:
            cursor, tables = _opened(table, access, opened)
            with query_errors(name, tables):
                cursor.execute("SELECT CAST(txid_current_snapshot() AS text)")
                snapshot = (cursor.fetchone() or ("",))[0]
            with query_errors(name, tables, table.table):
                query = query_of(table, tables)
                columns = cursor.adbc_execute_schema(query)
                wanted = wanted_columns(columns.names, access, name)
                cursor.execute(projected(query, [_readable(columns.field(one)) for one in wanted]))
                reader = cursor.fetch_record_batch()
            held = opened.pop_all()

        def batches() -> Iterator[pa.RecordBatch]:
            with held, query_errors(name, tables):
                yield from reader

        return query_rows(reader.schema, batches(), columns.names, table, f"snapshot {snapshot}")


def _opened(table: TableConfig, access: Access, opened: ExitStack) -> tuple[Cursor, list[str]]:
    """Return a cursor in a read-only transaction, and the tables. opened: Closes both."""
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise MissingDependency("adbc-driver-postgresql", "sql", "Reading PostgreSQL") from None
    name = shown(table)
    address = _address(access.address(table.places[0]), name)
    try:
        connection = opened.enter_context(dbapi.connect(address))
    except dbapi.Error as error:
        raise _not_connected(error, name) from None
    with query_errors(name, []):
        cursor = opened.enter_context(connection.cursor())
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(TABLES)
        return cursor, [row[0] for row in cursor.fetchall()]


def _address(text: str, name: str) -> str:
    """Return an address as the driver reads it: percent-encoded, and with a time limit of connecting."""
    parts = parse_address(text)
    if not parts.scheme:
        what = "this is no address of PostgreSQL."
        raise DataError(Fault(name, what, "Write postgresql://user@host:5432/database.", "address"))
    user = quote(unquote(parts.user), safe="")
    secret = f":{quote(unquote(parts.password), safe='')}" if parts.password is not None else ""
    limited = "PGCONNECT_TIMEOUT" in os.environ or any(key == "connect_timeout" for key, _ in parts.parameters)
    limit = "" if limited else f"{'&' if '?' in parts.rest else '?'}connect_timeout={SECONDS}"
    return f"postgresql://{user}{secret}{'@' if user or secret else ''}{parts.rest}{limit}"


def _not_connected(error: Exception, name: str) -> DataError:
    text = message_of(error).partition(" Is the server running")[0]
    if REFUSED.search(text):
        hint = "Set PGUSER and PGPASSWORD, or add the server to ~/.pgpass."
        return DataError(Fault(name, f"the database refuses the connection: {text}.", hint, "credentials"))
    if ABSENT.search(text):
        return DataError(Fault(name, f"{text}.", "Check the name after the last slash.", "no database"))
    hint = "Check host and port, and whether the server runs and can be reached from here."
    return DataError(Fault(name, f"the database cannot be reached: {text}.", hint, "unreachable"))


def _readable(field: pa.Field) -> str:
    """Return the SQL of a column, as a number or a text if the driver returns it in a form that cannot be read.

    A numeric with decimals becomes the nearest float, which is what the same number in a text file becomes. Without
    decimals it stays exact, since it can be an id.
    """
    kind = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    name = quoted(field.name)
    if kind == "numeric":
        digits, decimals = divmod(int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1")) - 4, 1 << 16)
        exact = digits > 0 and not decimals
        target = ("int8" if digits <= EXACT_DIGITS else "text") if exact else "float8"
        return f"CAST({name} AS {target}) AS {name}"
    if kind == "money":
        return f"CAST(CAST({name} AS numeric) AS float8) AS {name}"
    if kind == "interval" or (isinstance(field.type, pa.OpaqueType) and field.type.storage_type != pa.string()):
        return f"CAST({name} AS text) AS {name}"
    return name

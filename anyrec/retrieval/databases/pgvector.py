"""PostgreSQL with the extension pgvector: a table of ids, vectors and records, written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Literal as OneOf

import numpy as np
import pyarrow as pa
from pydantic import Field

from anyrec.core.errors import MissingDependency
from anyrec.core.params import Params as Options
from anyrec.core.types import JsonObject
from anyrec.data.ids import Id
from anyrec.retrieval.vector_database import VectorDatabase

if TYPE_CHECKING:
    from typing import LiteralString

    from psycopg import Connection
    from psycopg.sql import Composable, Composed

PAGE = 10_000
"""Ids that are read in one request."""
MOST_INDEXED = 2000
"""Dimensions that an index of pgvector can have; vectors with more are searched by comparing each."""
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
CREATE = "CREATE TABLE {table} (item_id {of} PRIMARY KEY, vector vector({dim}) NOT NULL, record jsonb NOT NULL)"


class PgVector(VectorDatabase):
    """A PostgreSQL server with pgvector. User and password are in PGUSER and PGPASSWORD, or in ~/.pgpass."""

    type = "pgvector"
    schemes = "postgresql postgres"

    class Params(Options):
        """Options of the vector database `pgvector`."""

        index: OneOf["hnsw", "none"] = Field(
            default="hnsw", description="The index that is built for searches, or `none` to compare every vector."
        )
        timeout: int = Field(default=10, ge=1, le=86_400, description="Seconds to wait for a connection.")

    params: Params
    _dim: int
    _connection: Connection

    def open(self, kind: pa.DataType, dim: int) -> None:
        try:
            import psycopg
            from pgvector.psycopg import register_vector
            from psycopg.sql import SQL, Literal
        except ImportError:
            raise MissingDependency("pgvector", "pgvector", "Storing vectors in PostgreSQL") from None
        self._dim, of = dim, "text" if pa.types.is_string(kind) else "bigint"
        wanted = {"item_id": of, "vector": f"vector({dim})", "record": "jsonb"}
        address = f"postgresql://{self.target.server}/{self.target.place}"
        with self._errors():
            self._connection = psycopg.connect(address, connect_timeout=self.params.timeout)
            self.opened.callback(self._connection.close)
            self._run("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(self._connection)
            found = dict(self._connection.execute(COLUMNS, [f'"{self.target.collection}"']).fetchall())
            if not found:
                self._run(CREATE, of=SQL(of), dim=Literal(dim))
        if found and wanted.items() - found.items():
            shown = ", ".join(f"{name} {found.get(name, '(missing)')}" for name in wanted)
            expected = ", ".join(f"{name} {one}" for name, one in wanted.items())
            raise self.mismatch(f"the table has {shown}; {expected} are expected")

    def upsert(self, ids: list[Id], vectors: np.ndarray, records: list[JsonObject]) -> None:
        from psycopg.types.json import Jsonb

        statement = """INSERT INTO {table} (item_id, vector, record) VALUES (%s, %s, %s)
            ON CONFLICT (item_id) DO UPDATE SET vector = excluded.vector, record = excluded.record"""
        rows = zip(ids, vectors, map(Jsonb, records), strict=True)
        with self._errors(), self._connection.cursor() as cursor:
            cursor.executemany(self._sql(statement), rows)

    def stored(self) -> Iterator[list[Id]]:
        with self._connection.cursor("stored") as cursor:
            with self._errors():
                cursor.execute(self._sql("SELECT item_id FROM {table}"))
            while True:
                with self._errors():
                    page = cursor.fetchmany(PAGE)
                if not page:
                    return
                yield [row[0] for row in page]

    def remove(self, ids: list[Id]) -> None:
        with self._errors():
            self._run("DELETE FROM {table} WHERE item_id = ANY(%s)", [ids])

    def finish(self) -> None:
        """Build the index, and make the new vectors visible at once; searches before see the old ones."""
        with self._errors():
            if self.params.index == "hnsw" and self._dim <= MOST_INDEXED:
                self._run("CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw (vector vector_ip_ops)")
            self._connection.commit()

    def search(self, query: np.ndarray, k: int) -> list[tuple[Id, float]]:
        with self._errors():
            found = self._run("SELECT item_id, -(vector <#> %s) FROM {table} ORDER BY vector <#> %s LIMIT %s",
                              [query, query, k])  # fmt: skip
        return found

    def _sql(self, statement: LiteralString, **parts: Composable) -> Composed:
        from psycopg import sql

        name = self.target.collection
        names = {"table": sql.Identifier(name), "index": sql.Identifier(f"{name[:55]}_vector")}
        return sql.SQL(statement).format(**names, **parts)

    def _run(self, statement: LiteralString, values: list[object] | None = None, **parts: Composable) -> list[tuple]:
        cursor = self._connection.execute(self._sql(statement, **parts), values)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of the server and of the connection as InputError."""
        import psycopg

        try:
            yield
        except psycopg.errors.UndefinedFile as error:
            raise self.unusable(error, "Install pgvector on the server (postgresql-NN-pgvector).") from None
        except psycopg.OperationalError as error:
            raise self.unusable(error, "Check the address, PGUSER and PGPASSWORD.") from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise self.unusable(error, "Ask for the rights to create the extension and the table.") from None
        except psycopg.Error as error:
            raise self.unusable(error, "Look into the server's log.") from None

"""Milvus, and the local files of Milvus Lite: a collection with the item's id as its key and the record in fields."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from anyrec.core.errors import Fault, InputError, MissingDependency
from anyrec.core.params import Params as Options
from anyrec.core.types import JsonObject
from anyrec.data.ids import Id
from anyrec.retrieval.vector_database import VectorDatabase, from_environment

if TYPE_CHECKING:
    from pymilvus import DataType, MilvusClient

ITEM, VECTOR = "item_id", "vector"
LONGEST_ID = 65_535
"""Bytes that a key of Milvus can have."""
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
PAGE = 10_000
"""Ids that are read or removed in one request."""


def literal(item: Id) -> str:
    """Return an id as conditions of Milvus write it."""
    return str(item) if isinstance(item, int) else f'"{item.translate(ESCAPES)}"'


class MilvusVectors(VectorDatabase):
    """A Milvus server, or a local file of Milvus Lite. The token is in the environment variable MILVUS_TOKEN."""

    type = "milvus"
    schemes = "milvus"

    class Params(Options):
        """Options of the vector database `milvus`."""

        tls: bool = Field(default=False, description="Connect by https.")
        timeout: int = Field(default=60, ge=1, le=86_400, description="Seconds to wait for an answer.")

    params: Params
    _client: MilvusClient

    def open(self, kind: pa.DataType, dim: int) -> None:
        try:
            from pymilvus import DataType, MilvusClient
        except ImportError:
            raise MissingDependency("pymilvus", "milvus", "Storing vectors in Milvus") from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are raised as well
        name, of = self.target.collection, DataType.VARCHAR if pa.types.is_string(kind) else DataType.INT64
        with self._errors():
            self._client = MilvusClient(self._address(), token=from_environment("MILVUS_TOKEN") or "",
                                        db_name=self.target.place if self.target.server else "",
                                        timeout=self.params.timeout)  # fmt: skip
            self.opened.callback(self._client.close)
            if not self._client.has_collection(name):
                self._create(name, of, dim)
            about = cast("JsonObject", self._client.describe_collection(name))
            fields = {one["name"]: one for one in about["fields"]}
            self._client.load_collection(name)
        if not {ITEM, VECTOR} <= set(fields) or not fields[ITEM].get("is_primary"):
            raise self.mismatch(f"the collection has the fields {', '.join(fields)}; {ITEM} and {VECTOR} are expected")
        if int(fields[VECTOR]["params"]["dim"]) != dim:
            raise self.mismatch(
                f"the collection has vectors of {fields[VECTOR]['params']['dim']} dimensions, not {dim}"
            )
        if fields[ITEM]["type"] != of:
            raise self.mismatch(f"the collection has ids of another type than the model, whose ids are {kind}")

    def upsert(self, ids: list[Id], vectors: np.ndarray, records: list[JsonObject]) -> None:
        rows = zip(ids, vectors, records, strict=True)
        with self._errors():
            self._client.upsert(
                self.target.collection, [{**record, ITEM: one, VECTOR: vector} for one, vector, record in rows]
            )

    def stored(self) -> Iterator[list[Id]]:
        """Yield pages in the order of the keys. The client's own iterator does not escape quotes in keys."""
        condition = ""
        while True:
            with self._errors():
                page = self._client.query(
                    self.target.collection,
                    filter=condition,
                    limit=PAGE,
                    output_fields=[ITEM],
                    consistency_level="Strong",
                    iterator="True",
                )
            if not page:
                return
            yield [row[ITEM] for row in page]
            condition = f"{ITEM} > {literal(page[-1][ITEM])}"

    def remove(self, ids: list[Id]) -> None:
        for start in range(0, len(ids), PAGE):
            listed = ", ".join(map(literal, ids[start : start + PAGE]))
            with self._errors():
                self._client.delete(self.target.collection, filter=f"{ITEM} in [{listed}]")

    def finish(self) -> None:
        with self._errors():
            self._client.flush(self.target.collection)

    def search(self, query: np.ndarray, k: int) -> list[tuple[Id, float]]:
        with self._errors():
            (found,) = self._client.search(
                self.target.collection, [query], limit=k, output_fields=[ITEM], consistency_level="Strong"
            )
        return [(one[ITEM], one["distance"]) for one in found]

    def _address(self) -> str:
        """Return the address of the server or the path of the file, as the client reads it."""
        if self.target.server:
            return f"{'https' if self.params.tls else 'http'}://{self.target.server}"
        path = Path(self.target.place)
        if path.suffix != ".db":
            hint = "Write milvus:FILE.db/COLLECTION, or milvus://HOST:19530/COLLECTION."
            raise InputError(Fault(str(path), "the name of a file of Milvus Lite ends in .db.", hint, "address"))
        os.makedirs(path.parent, exist_ok=True)
        return str(path)

    def _create(self, name: str, of: DataType, dim: int) -> None:
        """Create the collection, whose records have any fields."""
        from pymilvus import DataType

        schema = self._client.create_schema(enable_dynamic_field=True, auto_id=False)
        length = {"max_length": LONGEST_ID} if of == DataType.VARCHAR else {}
        schema.add_field(ITEM, of, is_primary=True, **length)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        index = self._client.prepare_index_params()
        kind = "AUTOINDEX" if self.target.server else "FLAT"
        index.add_index(VECTOR, index_type=kind, metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of the server, of the file and of the connection as InputError."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            denied = "auth" in str(error.message).lower()
            hint = "Set MILVUS_TOKEN to user:password or a token." if denied else ""
            raise self.unusable(error.message, **({"hint": hint} if hint else {})) from None
        except OSError as error:
            raise self.unusable(error) from None

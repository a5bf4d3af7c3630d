"""Qdrant: a collection of points, each with its item's record as the payload."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import Field

from anyrec.core.errors import MissingDependency
from anyrec.core.params import Params as Options
from anyrec.core.types import JsonObject
from anyrec.data.ids import Id
from anyrec.retrieval.vector_database import VectorDatabase, from_environment

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

ITEM = "item_id"
"""Key of the payload that holds the id of the item."""
NAMES = uuid.UUID("6f1c2f1e-3d0b-5f0a-9a51-7b1f6b6f5c55")
"""Namespace of the ids of points for items whose id is a text or negative."""
PAGE = 10_000
"""Ids that are read in one request."""


def point_id(item: Id) -> int | str:
    """Return the id of an item's point: the item's id if it is a whole number from 0, else a UUID made from it.

    Qdrant has no other ids. The payload holds the item's id in any case.
    """
    return item if isinstance(item, int) and item >= 0 else str(uuid.uuid5(NAMES, f"{type(item).__name__} {item}"))


class QdrantVectors(VectorDatabase):
    """A Qdrant server. The key is in the environment variable QDRANT_API_KEY."""

    type = "qdrant"
    schemes = "qdrant"

    class Params(Options):
        """Options of the vector database `qdrant`."""

        tls: bool = Field(default=False, description="Connect by https.")
        timeout: int = Field(default=60, ge=1, le=86_400, description="Seconds to wait for an answer.")

    params: Params
    _client: QdrantClient

    def open(self, kind: pa.DataType, dim: int) -> None:
        try:
            from qdrant_client import QdrantClient, models
        except ImportError:
            raise MissingDependency("qdrant-client", "qdrant", "Storing vectors in Qdrant") from None
        name, shape = self.target.collection, models.VectorParams(size=dim, distance=models.Distance.DOT)
        url = f"{'https' if self.params.tls else 'http'}://{self.target.server}"
        with self._errors():
            self._client = QdrantClient(
                url=url,
                api_key=from_environment("QDRANT_API_KEY"),
                timeout=self.params.timeout,
                check_compatibility=False,
            )
            self.opened.callback(self._client.close)
            if not self._client.collection_exists(name):
                self._client.create_collection(name, vectors_config=shape)
                return
            found = self._client.get_collection(name).config.params.vectors
        if not isinstance(found, models.VectorParams) or (found.size, found.distance) != (dim, shape.distance):
            raise self.mismatch(f"the collection has other vectors ({found}) than {dim} dimensions by dot product")
        first = next(self.stored(1), [])
        if first and isinstance(first[0], str) != pa.types.is_string(kind):
            raise self.mismatch(f"the collection has ids like {first[0]!r}, and the model's ids are {kind}")

    def upsert(self, ids: list[Id], vectors: np.ndarray, records: list[JsonObject]) -> None:
        from qdrant_client import models

        points = models.Batch(
            ids=[point_id(one) for one in ids],
            vectors=vectors.tolist(),
            payloads=[{**record, ITEM: one} for one, record in zip(ids, records, strict=True)],
        )
        with self._errors():
            self._client.upsert(self.target.collection, points, wait=True)

    def stored(self, page: int = PAGE) -> Iterator[list[Id]]:
        offset = None
        while True:
            with self._errors():
                points, offset = self._client.scroll(
                    self.target.collection, limit=page, offset=offset, with_payload=[ITEM]
                )
            if any(ITEM not in (point.payload or {}) for point in points):
                raise self.mismatch(f"the collection has points without the payload {ITEM}")
            yield [point.payload[ITEM] for point in points if point.payload]
            if offset is None:
                return

    def remove(self, ids: list[Id]) -> None:
        with self._errors():
            self._client.delete(self.target.collection, [point_id(one) for one in ids], wait=True)

    def search(self, query: np.ndarray, k: int) -> list[tuple[Id, float]]:
        with self._errors():
            found = self._client.query_points(
                self.target.collection, query=query.tolist(), limit=k, with_payload=[ITEM]
            )
        return [(point.payload[ITEM], point.score) for point in found.points if point.payload]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of the server and of the connection as InputError."""
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:
            raise self.unusable(error.source) from None
        except UnexpectedResponse as error:
            denied = error.status_code in (401, 403)
            hint = "Set QDRANT_API_KEY." if denied else "Look into the server's log."
            raise self.unusable(f"{error.status_code} {error.reason_phrase} {error.content[:200]!r}", hint) from None
        except (ApiException, OSError) as error:
            raise self.unusable(error) from None

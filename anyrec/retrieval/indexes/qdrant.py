"""A Qdrant server, for item sets that outgrow one machine: the server stores the vectors and answers the queries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import ConfigError, Fault, InputError, MissingDependency, ModelError
from anyrec.core.outside import Outside
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.retrieval.index import Index
from anyrec.retrieval.results import SearchResult

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

FILE = "qdrant.json"
MAX_IDS = 20_000
"""The most points that a filter names, 150 KB with each query. Beyond it the search asks for more than it needs."""
QUERIES = 64
"""Queries of one request to the server."""


class Qdrant(Index):
    """Search on a Qdrant server, or without `url` in its client's small stand-in within this process.

    Each build fills a collection of its own, named `collection-<hash of the vectors>`. Then the alias `collection` is
    moved to it, and the collection that it stood for is deleted, so that no search sees half of either. Needs Qdrant
    1.16 or newer. Qdrant's own local files are not used, because they are pickles.
    """

    type = "qdrant"
    filters = True
    can_remove = True

    class Params(Options):
        """Options of the index `qdrant`."""

        url: Annotated[str | None, Outside("an address")] = Field(
            default=None,
            pattern=r"^https?://[^@\s]+$",
            description="The server, as http://localhost:6333; null searches within this process, for up to 20,000 "
            "items.",
        )
        api_key_env: Annotated[str | None, Outside("an environment variable")] = Field(
            default=None, pattern=r"^\w+$", description="Environment variable that holds the server's API key."
        )
        collection: str = Field(
            default="anyrec", pattern=r"^[\w.-]{1,200}$", description="Alias of the collection on the server."
        )
        connectivity: int = Field(default=16, ge=2, le=512, description="Neighbours of each vector in the graph (m).")
        expansion_add: int = Field(
            default=100, ge=4, le=10_000, description="Candidates kept while a vector is added (ef_construct)."
        )
        expansion_search: int = Field(
            default=128,
            ge=1,
            le=100_000,
            description="Candidates kept in a search (hnsw_ef): more find more and take longer.",
        )
        int8: bool = Field(default=False, description="Search int8 copies of the vectors, which are kept in memory.")
        on_disk: bool = Field(default=False, description="The server keeps the float32 vectors on disk.")
        batch_size: int = Field(default=1000, ge=1, le=100_000, description="Vectors of one upload request.")
        timeout: int = Field(default=60, ge=1, le=86_400, description="Seconds to wait for an answer.")

    params: Params
    _client: QdrantClient
    _name: str
    """The collection."""
    _state: str
    """A hash of the options, the vectors and all changes since the build. The server stores it with the collection."""

    @classmethod
    def options_for_another(cls, options: JsonObject, name: str, registry: Registry) -> JsonObject:
        collection = options.get("collection", cls.Params.model_fields["collection"].default)
        return {**options, "collection": f"{collection}.{name}"[:200]}

    def check(self) -> None:
        self._open()
        with self._server_errors():
            self._behind_alias()

    def _build(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self._open()
        self._state = _hash(json.dumps(self.params.model_dump(exclude={"url", "api_key_env"})).encode(), vectors)
        self._name = f"{self.params.collection}-{self._state}"
        with self._server_errors():
            former = self._behind_alias()
            if self._standing() == (self._state, len(vectors)):
                return
            self._client.delete_collection(self._name)
            self._create_collection()
            self._upload(rows, vectors)
            self._client.update_collection(self._name, metadata={"state": self._state})
            self._move_alias()
            if former and former != self._name:
                self._client.delete_collection(former)

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        with self._server_errors():
            self._upload(rows, vectors)
            self._record_change(b"add", rows, vectors)

    def _remove(self, rows: np.ndarray) -> None:
        with self._server_errors():
            self._client.delete(self._name, points_selector=rows.tolist(), wait=True)
            self._record_change(b"remove", rows)

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        from qdrant_client import models

        only, width = self._filter(allowed), k
        if allowed is not None and only is None:
            # Too many points to name: ask for as many as hold k allowed ones on average, a fifth more and a few for
            # chance.
            width = min(self.store.count, int(1.2 * k * self.store.count / allowed.sum()) + 16)
        search = models.SearchParams(hnsw_ef=max(self.params.expansion_search, width)) if self.params.url else None
        rows, scores = SearchResult.empty(len(queries), width)
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES].tolist()
            asked = [models.QueryRequest(query=query, limit=width, filter=only, params=search) for query in part]
            with self._server_errors():
                answers = self._client.query_batch_points(self._name, asked)
            for line, answer in enumerate(answers, start):
                found = [(int(point.id), point.score) for point in answer.points]
                rows[line, : len(found)] = [row for row, _ in found]
                scores[line, : len(found)] = [score for _, score in found]
        rows[rows >= len(self.store)] = -1  # added by another process meanwhile
        if allowed is not None and only is None:
            rows[(rows >= 0) & ~allowed[rows]] = -1
        return SearchResult(rows, scores)

    def _save(self, folder: Path) -> None:
        """Write only the name of the collection: the server keeps the vectors."""
        (folder / FILE).write_text(json.dumps({"collection": self._name, "state": self._state}) + "\n")

    def _load(self, folder: Path) -> None:
        if self.params.url is None:
            vectors = self._inner(self.store.vectors)
            self._build(vectors, np.arange(len(vectors)))
            gone = np.flatnonzero(self.store.keys < 0)
            if len(gone):
                self._remove(gone)
            return
        saved = json.loads((folder / FILE).read_text())
        self._open()
        self._name, self._state = saved["collection"], saved["state"]
        with self._server_errors():
            standing = self._standing()
        if standing != (self._state, self.store.count):
            what = "does not exist" if standing is None else "holds other vectors than this index"
            fault = f"the collection '{self._name}' {what}."
            raise ModelError(Fault(self.params.url, fault, "Build the index again.", "foreign index"))

    def _bytes(self) -> int:
        """An estimate of the memory on the server: one byte or four for a number, four for a neighbour."""
        numbers = self.inner_dim * (1 if self.params.int8 else 4)
        return self.store.count * (numbers + 8 * self.params.connectivity)

    def _open(self) -> None:
        """Connect to the server, or create the stand-in."""
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise MissingDependency("qdrant-client", "qdrant", "The index 'qdrant'") from None
        if self.params.url is None:
            self._client = QdrantClient(":memory:")
            return
        key = None
        if self.params.api_key_env is not None:
            key = os.environ.get(self.params.api_key_env)
            if not key:
                what = f"the environment variable {self.params.api_key_env} is not set."
                raise ConfigError(Fault("/index/api_key_env", what, "Set it to the server's API key.", "missing key"))
        with self._server_errors():
            self._client = QdrantClient(
                url=self.params.url, api_key=key, timeout=self.params.timeout, check_compatibility=False
            )

    def _create_collection(self) -> None:
        from qdrant_client import models

        size, int8 = self.inner_dim, None
        if self.params.int8:
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            int8 = models.ScalarQuantization(scalar=scalar)
        self._client.create_collection(
            self._name,
            vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT, on_disk=self.params.on_disk),
            hnsw_config=models.HnswConfigDiff(m=self.params.connectivity, ef_construct=self.params.expansion_add),
            quantization_config=int8,
        )

    def _behind_alias(self) -> str | None:
        """Return the collection that the alias stands for; None if the alias does not exist.

        Raises:
            ConfigError: If the name belongs to a collection, or to an alias, that was not created here.
        """
        name = self.params.collection
        aliases = {alias.alias_name: alias.collection_name for alias in self._client.get_aliases().aliases}
        former = aliases.get(name)
        taken = former is None and self._client.collection_exists(name)
        if taken or (former is not None and not former.startswith(f"{name}-")):
            what = f"'{name}' exists already and was not created here."
            raise ConfigError(Fault("/index/collection", what, "Choose another name.", "foreign collection"))
        return former

    def _move_alias(self) -> None:
        from qdrant_client import models

        move = models.CreateAlias(collection_name=self._name, alias_name=self.params.collection)
        self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=move)])

    def _standing(self) -> tuple[str | None, int] | None:
        """The state and the number of vectors of the collection; None if it does not exist."""
        if not self._client.collection_exists(self._name):
            return None
        metadata = self._client.get_collection(self._name).config.metadata or {}
        return metadata.get("state"), self._client.count(self._name, exact=True).count

    def _upload(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        ids = rows.tolist()
        self._client.upload_collection(self._name, vectors, ids=ids, batch_size=self.params.batch_size, wait=True)

    def _record_change(self, what: bytes, *arrays: np.ndarray) -> None:
        self._state = _hash(self._state.encode() + what, *arrays)
        self._client.update_collection(self._name, metadata={"state": self._state})

    def _filter(self, allowed: np.ndarray | None) -> models.Filter | None:
        """Return a filter that names the allowed or the excluded points; None if both are more than MAX_IDS."""
        from qdrant_client import models

        if allowed is None:
            return None
        points = np.flatnonzero(allowed)
        if len(points) <= MAX_IDS:
            return models.Filter(must=models.HasIdCondition(has_id=[*points.tolist()]))
        points = np.flatnonzero(~allowed & (self.store.keys >= 0))
        if len(points) <= MAX_IDS:
            return models.Filter(must_not=models.HasIdCondition(has_id=[*points.tolist()]))
        return None

    @contextmanager
    def _server_errors(self) -> Iterator[None]:
        """Raise errors of the server and of the connection as InputError."""
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        where = self.params.url or "qdrant"
        try:
            yield
        except ResponseHandlingException as error:
            hint = "Is the server running, and can it be reached from here?"
            raise InputError(Fault(where, f"Qdrant does not answer: {error.source}.", hint, "no server")) from None
        except UnexpectedResponse as error:
            hint = "Set api_key_env." if error.status_code in (401, 403) else "Look into the server's log."
            what = f"Qdrant refuses: {error.status_code} {error.reason_phrase}."
            raise InputError(Fault(where, what, hint, "server's refusal")) from None
        except (ApiException, OSError) as error:
            raise InputError(Fault(where, f"Qdrant cannot be used: {error}.", kind="no server")) from None


def _hash(first: bytes, *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(first)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]

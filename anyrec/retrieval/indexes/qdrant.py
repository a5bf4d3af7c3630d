"""A Qdrant server, for catalogues that outgrow one machine: vectors are sent there, queries are answered there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from anyrec.core.contracts import Params as Options
from anyrec.core.errors import ConfigError, Fault, InputError, MissingDependency, ModelError
from anyrec.core.outside import Outside
from anyrec.retrieval.index import Index, SearchResult

FILE = "qdrant.json"
MOST_IDS = 20_000
"""A filter names at most so many points, sent with each query: 150 KB; beyond it more is asked for than is needed."""
QUERIES = 64


class Qdrant(Index):
    """Ask a Qdrant server, or without `url` its small stand-in within this process.

    Every build fills a collection of its own, named `collection-<hash of the vectors>`; then the alias `collection` is moved to it and the
    one it stood for is dropped: who searches meanwhile never sees half of it. Needs Qdrant 1.16 or newer. Nothing is kept in Qdrant's own
    local files, which are pickles.
    """

    type = "qdrant"
    filters = True
    can_remove = True

    class Params(Options):
        url: Annotated[str | None, Outside("an address")] = Field(
            default=None,
            pattern=r"^https?://[^@\s]+$",
            description="The server, as http://localhost:6333; null searches within this process, for up to 20,000 items.",
        )
        api_key_env: Annotated[str | None, Outside("an environment variable")] = Field(
            default=None, pattern=r"^\w+$", description="Environment variable that holds the server's API key."
        )
        collection: str = Field(
            default="anyrec", pattern=r"^[\w.-]{1,200}$", description="Alias of the collection on the server."
        )
        connectivity: int = Field(default=16, ge=2, le=512, description="Neighbours of each vector in the graph (m).")
        expansion_add: int = Field(
            default=100, ge=4, le=10_000, description="Candidates kept while a vector is put in (ef_construct)."
        )
        expansion_search: int = Field(
            default=128, ge=1, le=100_000, description="Candidates kept in a search (hnsw_ef): more find more, slower."
        )
        int8: bool = Field(default=False, description="Search among int8 copies of the vectors, held in memory.")
        on_disk: bool = Field(default=False, description="The server keeps the float32 vectors on disk.")
        batch_size: int = Field(default=1000, ge=1, le=100_000, description="Vectors sent at a time.")
        timeout: int = Field(default=60, ge=1, le=86_400, description="Seconds to wait for an answer.")

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        from qdrant_client import models

        self._open()
        self._state = _hash(json.dumps(self.params.model_dump(exclude={"url", "api_key_env"})).encode(), vectors)
        self._name = f"{self.params.collection}-{self._state}"
        with self._told():
            old = self._behind_alias()
            if self._standing() == (self._state, len(vectors)):
                return
            self._client.delete_collection(self._name)
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(
                    size=self.inner_dim, distance=models.Distance.DOT, on_disk=self.params.on_disk
                ),
                hnsw_config=models.HnswConfigDiff(m=self.params.connectivity, ef_construct=self.params.expansion_add),
                quantization_config=models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
                )
                if self.params.int8
                else None,
            )
            self._upload(keys, vectors)
            self._client.update_collection(self._name, metadata={"state": self._state})
            move = models.CreateAlias(collection_name=self._name, alias_name=self.params.collection)
            self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=move)])
            if old and old != self._name:
                self._client.delete_collection(old)

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        with self._told():
            self._upload(keys, vectors)
            self._changed(b"add", keys, vectors)

    def _remove(self, keys: np.ndarray) -> None:
        with self._told():
            self._client.delete(self._name, points_selector=keys.tolist(), wait=True)
            self._changed(b"remove", keys)

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        from qdrant_client import models

        only, width = self._filter(allowed), k
        if allowed is not None and only is None:
            width = min(self.store.count, int(1.2 * k * self.store.count / allowed.sum()) + 16)
        search = models.SearchParams(hnsw_ef=max(self.params.expansion_search, width)) if self.params.url else None
        keys = np.full((len(queries), width), -1)
        scores = np.full((len(queries), width), -np.inf, np.float32)
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES].tolist()
            asked = [models.QueryRequest(query=query, limit=width, filter=only, params=search) for query in part]
            with self._told():
                answers = self._client.query_batch_points(self._name, asked)
            for row, answer in enumerate(answers, start):
                found = [(int(point.id), point.score) for point in answer.points]
                keys[row, : len(found)] = [key for key, _ in found]
                scores[row, : len(found)] = [score for _, score in found]
        keys[keys >= len(self.store)] = -1  # added by another process meanwhile
        if allowed is not None and only is None:
            keys[(keys >= 0) & ~allowed[keys]] = -1
        return SearchResult(keys, scores)

    def _save(self, folder: Path) -> None:
        """Only where the vectors are: the server keeps them."""
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
        with self._told():
            standing = self._standing()
        if standing != (self._state, self.store.count):
            what = "is not there" if standing is None else "holds other vectors than this index"
            raise ModelError(
                Fault(
                    self.params.url, f"the collection '{self._name}' {what}.", "Build the index anew.", "foreign index"
                )
            )

    def _bytes(self) -> int:
        """On the server, about: a number takes one byte or four, a neighbour four."""
        numbers = self.inner_dim * (1 if self.params.int8 else 4)
        return self.store.count * (numbers + 8 * self.params.connectivity)

    def _open(self) -> None:
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
        with self._told():
            self._client = QdrantClient(
                url=self.params.url, api_key=key, timeout=self.params.timeout, check_compatibility=False
            )

    def _behind_alias(self) -> str | None:
        """The collection that the alias stands for. Raises ConfigError where the name is that of something of another's."""
        name = self.params.collection
        aliases = {alias.alias_name: alias.collection_name for alias in self._client.get_aliases().aliases}
        old = aliases.get(name)
        taken = old is None and self._client.collection_exists(name)
        if taken or (old is not None and not old.startswith(f"{name}-")):
            what = f"'{name}' is there already and was not made here."
            raise ConfigError(Fault("/index/collection", what, "Choose another name.", "foreign collection"))
        return old

    def _standing(self) -> tuple[str | None, int] | None:
        """The state and the number of vectors of the collection; None where there is none."""
        if not self._client.collection_exists(self._name):
            return None
        metadata = self._client.get_collection(self._name).config.metadata or {}
        return metadata.get("state"), self._client.count(self._name, exact=True).count

    def _upload(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        ids = keys.tolist()
        self._client.upload_collection(self._name, vectors, ids=ids, batch_size=self.params.batch_size, wait=True)

    def _changed(self, what: bytes, *arrays: np.ndarray) -> None:
        self._state = _hash(self._state.encode() + what, *arrays)
        self._client.update_collection(self._name, metadata={"state": self._state})

    def _filter(self, allowed: np.ndarray | None) -> Any:
        """By whichever is fewer, the points allowed or those barred; None where both are too many to name."""
        from qdrant_client import models

        if allowed is None:
            return None
        may, barred = np.flatnonzero(allowed), np.flatnonzero(~allowed & (self.store.keys >= 0))
        points: Any = (may if len(may) <= MOST_IDS else barred).tolist()
        if len(points) > MOST_IDS:
            return None
        named = models.HasIdCondition(has_id=points)
        return models.Filter(must=named) if len(may) <= MOST_IDS else models.Filter(must_not=named)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the server, as an InputError."""
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

"""Indexes of other vectors of a model's items than those of its score: for similar items, for search by text or image.

They are of the same type and options as the model's own index. One that takes time to build is kept in the model's
folder, next to the vectors of searches.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.errors import InputError, ModelError
from anyrec.core.types import JsonObject
from anyrec.core.unit_vectors import unit_rows
from anyrec.data.hashing import hash_stream
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.best_items import with_added
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.item_index import ItemIndex
from anyrec.retrieval.model_index import component_of, is_exhaustive
from anyrec.retrieval.results import SearchResult

FOLDER = "search"


@dataclass(frozen=True)
class VectorIndex:
    """An index of those items of a model that have a vector, and items that were added to the model since.

    Attributes:
        items: The index; its keys are positions in `rows`.
        rows: (n,) item rows, ascending.
        described: Type and options of the index.
        first: Row of the first added item.
        added: (added, dim) vectors of the added items, which are compared one by one; of norm 1 or zero if the index
            orders by cosine.
    """

    items: ItemIndex
    rows: np.ndarray
    described: JsonObject
    first: int
    added: np.ndarray

    def with_added(self, vectors: np.ndarray) -> VectorIndex:
        """Return this index with further items. vectors: (added, dim), in the order of their rows."""
        own = unit_rows(vectors) if self.items.index.metric == "cosine" else vectors
        return replace(self, added=np.concatenate([self.added, own]))

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """Return (n, dim), the vectors of items; only for an index of all items."""
        own, more = self.items.index.store.vectors, rows >= self.first
        found = own[np.where(more, 0, rows)]
        found[more] = self.added[rows[more] - self.first]
        return found

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, exclude: Pairs | None = None
    ) -> SearchResult:
        """Find the k nearest items of each query: (queries, k) item rows and scores.

        Args:
            queries: (queries, dim); of norm 1 if the index orders by cosine.
            k: The number of items for each query.
            allowed: (items,) bool, the items that may be found; None for all.
            exclude: (pairs,) rows of queries, ascending, and (pairs,) item rows that the query must not find. Only for
                an index of all items.
        """
        mask = None if allowed is None else allowed[self.rows]
        keys, scores = self.items.search(queries, k, mask, None if exclude is None else _below(exclude, self.first))
        found = SearchResult(np.where(keys < 0, -1, self.rows[keys]), scores)
        if not len(self.added):
            return found
        described = np.ones(self.first + len(self.added), bool)
        if self.items.index.metric == "dot":
            described[self.first :] = self.added.any(1)
        may = described if allowed is None else described & allowed
        return with_added(found, queries, self.added, self.first, may, exclude)


def vector_index(model: FittedModel, name: str, vectors: np.ndarray, metric: Metric) -> VectorIndex:
    """Return an index of item vectors: read from the model's folder, or built, and kept there.

    Args:
        model: The model, to which no items were added (`VectorIndex.with_added`).
        name: A name for the vectors, distinct for each kind of vectors of a model.
        vectors: (items, dim) float32; items whose vector is zero are left out if the metric is "dot".
        metric: What the score of an item is.
    """
    component = component_of(model)
    rows = np.arange(len(vectors)) if metric == "cosine" else np.flatnonzero(vectors.any(1))
    ids = model.dataset.ids("item").take(pa.array(rows))
    described = component.model_dump(mode="json")
    cls = model.registry.get("index", component.type, "/index/type")
    options = cls.options_for_another(component.options(), name, model.registry)
    other = Component.model_validate({"type": component.type, **options})
    kept = vectors if len(rows) == len(vectors) else vectors[rows]

    def with_items(items: ItemIndex) -> VectorIndex:
        return VectorIndex(items, rows, described, len(vectors), vectors[:0])

    def build(of_vectors: str) -> ItemIndex:
        return ItemIndex.build(other, model.registry, ids, kept, metric=metric, model=of_vectors, measured=False)

    place = None if model.directory is None else model.directory / FOLDER / f"{name}.index"
    if place is None or place.is_symlink() or place.parent.is_symlink() or is_exhaustive(model, component):
        return with_items(build(""))
    content = hashlib.sha256(np.ascontiguousarray(kept).data).hexdigest()
    known = [content, hash_stream(pa.table({"id": ids})), metric, other.model_dump(mode="json")]
    of_vectors = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    try:
        items = ItemIndex.load(place, model.registry, of_vectors, model.context.trusted)
    except ModelError:
        items = build(of_vectors)
        with suppress(InputError):  # a folder that cannot be written only makes the next search slower
            items.save(place)
    return with_items(items)


def _below(pairs: Pairs, first: int) -> Pairs:
    """Return the pairs whose items are below a row."""
    inside = pairs[1] < first
    return pairs[0][inside], pairs[1][inside]

"""Indexes of other vectors of a model's items than those of its score: for similar items, for search by text or image.

They are of the same type and options as the model's own index. One that takes time to build is kept in the model's
folder, next to the vectors of searches.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from anyrec.core.config import Component
from anyrec.core.errors import InputError, ModelError
from anyrec.core.types import JsonObject
from anyrec.data.hashing import hash_stream
from anyrec.model.fitted import FittedModel
from anyrec.retrieval.exhaustive import exhaustive_index
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.item_index import ItemIndex
from anyrec.retrieval.model_index import component_of, is_exhaustive
from anyrec.retrieval.results import SearchResult

FOLDER = "search"


@dataclass(frozen=True)
class VectorIndex:
    """An index of those items of a model that have a vector.

    Attributes:
        items: The index; its keys are positions in `rows`.
        rows: (n,) item rows, ascending.
        described: Type and options of the index.
    """

    items: ItemIndex
    rows: np.ndarray
    described: JsonObject

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> SearchResult:
        """Find the k nearest items of each query: (queries, k) item rows and scores.

        Args:
            queries: (queries, dim).
            k: The number of items for each query.
            allowed: (items,) bool, the items that may be found; None for all.
        """
        keys, scores = self.items.search(queries, k, None if allowed is None else allowed[self.rows])
        return SearchResult(np.where(keys < 0, -1, self.rows[keys]), scores)


def vector_index(model: FittedModel, name: str, vectors: np.ndarray, metric: Metric, identity: str = "") -> VectorIndex:
    """Return an index of item vectors: read from the model's folder, or built, and kept there.

    Args:
        model: The model. If items were added to it, all vectors are compared instead, as these items come and go.
        name: A name for the vectors, distinct for each kind of vectors of a model.
        vectors: (items, dim) float32; items whose vector is zero are left out if the metric is "dot".
        metric: What the score of an item is.
        identity: Text that changes if the vectors of this model and these items do.
    """
    component = component_of(model)
    if model.widened and not is_exhaustive(model, component):
        component = Component(type=exhaustive_index(model.registry).type)
    rows = np.arange(len(vectors)) if metric == "cosine" else np.flatnonzero(vectors.any(1))
    ids = model.dataset.ids("item").take(pa.array(rows))
    described = component.model_dump(mode="json")
    cls = model.registry.get("index", component.type, "/index/type")
    other = Component.model_validate({"type": component.type, **cls.options_for_another(component.options(), name)})

    def build(of_model: str) -> ItemIndex:
        kept = vectors if len(rows) == len(vectors) else vectors[rows]
        return ItemIndex.build(other, model.registry, ids, kept, metric=metric, model=of_model, measured=False)

    place = None if model.directory is None else model.directory / FOLDER / f"{name}.index"
    if place is None or place.is_symlink() or place.parent.is_symlink() or is_exhaustive(model, component):
        return VectorIndex(build(""), rows, described)
    known = [model.model_id, hash_stream(pa.table({"id": ids})), metric, identity, other.model_dump(mode="json")]
    of_vectors = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    try:
        items = ItemIndex.load(place, model.registry, of_vectors, model.context.trusted)
    except ModelError:
        items = build(of_vectors)
        with suppress(InputError):  # a folder that cannot be written only makes the next search slower
            items.save(place)
    return VectorIndex(items, rows, described)

"""Items similar to given items: by the model's own similarity, or by the cosine of item vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from anyrec.model.fitted import SIMILAR, FittedModel
from anyrec.model.result_tables import with_index
from anyrec.retrieval.model_index import scanned
from anyrec.retrieval.vector_index import VectorIndex, vector_index

NAME = "similar"
"""Name of the index of cosines in the model's folder."""


def similar(model: FittedModel, items: Sequence[object] | pa.Array, k: int) -> pa.Table:
    """Return the k items most similar to each of `items`: query_id, item_id, score, rank (from 1).

    The metadata of the table name the index (`anyrec.model.result_tables.index_of`). It has the type and the options of
    the model's index, but orders by cosine.

    Args:
        model: The model.
        items: Ids that the model knows.
        k: Items for each; at most as many as there are others.

    Raises:
        DataError: For unknown ids.
        InputError: For a model without embeddings or a similarity of its own.
    """
    rows = model.rows_of("item", items)
    own = model.similar_items(rows)
    if own is not None:
        scores = torch.from_numpy(own.copy())
        scores[torch.arange(len(rows)), torch.from_numpy(rows)] = -torch.inf
        best = torch.sort(scores, dim=1, descending=True, stable=True)
        return with_index(_as_table(model, rows, best.indices.numpy(), best.values.numpy(), k), scanned(model))
    index = _index(model)
    keys, scores = index.search(index.vectors_of(rows), k, exclude=(np.arange(len(rows)), rows))
    return with_index(_as_table(model, rows, keys, scores, k), index.described)


def _index(model: FittedModel) -> VectorIndex:
    """Return the index of cosines: that of the items before any were added, and the vectors of the added ones."""
    if model.base is None:
        return model.computed.get(SIMILAR, lambda: vector_index(model, NAME, model.embeddings("item"), "cosine"))
    index = _index(model.base)
    return model.computed.get(SIMILAR, lambda: index.with_added(model.embeddings_from("item", index.first)))


def _as_table(model: FittedModel, rows: np.ndarray, places: np.ndarray, scores: np.ndarray, k: int) -> pa.Table:
    """Return the table of `similar`.

    Args:
        model: The model that knows the items.
        rows: (queries,) rows of the given items.
        places: (queries, at least k) rows of the items found, best first.
        scores: Their scores, same shape.
        k: Items for each query.
    """
    k = min(k, len(model.dataset.items) - 1)
    ids = model.dataset.ids("item")
    return pa.table(
        {
            "query_id": ids.take(pa.array(np.repeat(rows, k))),
            "item_id": ids.take(pa.array(places[:, :k].reshape(-1))),
            "score": pa.array(scores[:, :k].reshape(-1)),
            "rank": pa.array(np.tile(np.arange(1, k + 1), len(rows))),
        }
    )

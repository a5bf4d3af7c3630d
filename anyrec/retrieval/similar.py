"""Items similar to given items: by the model's own similarity, or by the cosine of item vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from anyrec.model.fitted import SIMILAR, FittedModel
from anyrec.retrieval.exhaustive import exhaustive_index
from anyrec.retrieval.index import Index


def similar(model: FittedModel, items: Sequence[object] | pa.Array, k: int) -> pa.Table:
    """Return the k items most similar to each of `items`: query_id, item_id, score, rank (from 1).

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
        return _as_table(model, rows, best.indices.numpy(), best.values.numpy(), k)
    index = model.computed.get(SIMILAR, lambda: _cosine_index(model))
    keys, scores = index.search(index.store.vectors[rows], k, exclude=(np.arange(len(rows)), rows))
    return _as_table(model, rows, keys, scores, k)


def _cosine_index(model: FittedModel) -> Index:
    """An exact index of the items' vectors by cosine."""
    vectors = model.embeddings("item")
    index = exhaustive_index(model.registry)(vectors.shape[1], "cosine")
    index.build(vectors)
    return index


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

"""Neighbours of the user's latest items: by common users, by order, or by item vectors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import nn

from anyrec.data.order import time_order
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import CELLS_AT_A_TIME, top_k
from anyrec.pipeline.candidate_lists import is_listable, listable_items, lists_of_pairs
from anyrec.pipeline.contracts import Lists, Request, Source


class ItemToItem(Source):
    """Retrieves the neighbours of the user's latest items.

    An item's score is the sum of its similarities to the latest items, where the similarity to an item halves with each
    `half_life` later items. The similarity of two items, by `by`:

    - `together`: users who had both / sqrt(users of one * users of the other).
    - `next`: users who had the second within `within` items after the first, the n-th item counting 1/n, divided by the
      same root. An item that a user had repeatedly counts at its last time.
    - `vectors`: the cosine of the item vectors, at least 0.
    """

    type = "item_to_item"

    class Params(Source.Params):
        by: Literal["together", "next", "vectors"] = Field("together", description="Similarity of items.")
        latest: int = Field(
            10, ge=1, le=100_000, description="Number of the user's latest items whose neighbours are retrieved."
        )
        neighbours: int = Field(100, ge=1, le=100_000, description="Number of most similar items kept for each item.")
        half_life: float = Field(
            5.0, gt=0, le=1e9, description="Number of later items after which an item counts half."
        )
        within: int = Field(3, ge=1, le=1000, description="Maximum distance in interactions, for `next`.")

    params: Params

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        if self.params.by == "vectors":
            self.items, self.likeness = _nearest(model, self.params.neighbours)
            return
        dataset = model.dataset
        users, items = dataset.user_rows[rows], dataset.item_rows[rows]
        size = len(dataset.items)
        if self.params.by == "together":
            matrix = _binary(users, items, len(dataset.users), size)
            counts = (matrix.T @ matrix).tocsr()
        else:
            order = time_order(dataset, rows)
            counts = _follows(dataset.user_rows[order], dataset.item_rows[order], size, self.params.within)
        root = np.sqrt(np.maximum(np.bincount(items, minlength=size), 1))
        counts.setdiag(0)
        counts = sparse.diags(1 / root) @ counts @ sparse.diags(1 / root)
        self.items, self.likeness = _strongest(counts.tocsr(), self.params.neighbours)

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        rows, latest, ago = request.events
        known = (ago < self.params.latest) & (latest < len(self.items))  # items added after training have no neighbours
        rows, latest, ago = rows[known], latest[known], ago[known]
        items = self.items[latest]
        scores = self.likeness[latest] * 0.5 ** (ago / self.params.half_life)[:, None]
        owners = np.repeat(rows, items.shape[1])
        items, scores = items.ravel(), scores.ravel()
        listable = is_listable(items, listable_items(request, allowed), owners)
        return lists_of_pairs(owners[listable], items[listable], scores[listable], len(request.rows), k)

    def state(self) -> dict[str, np.ndarray]:
        return {"items": self.items, "likeness": self.likeness}

    def check_restored(self, model: FittedModel) -> None:
        items, count = self.items, len(model.dataset.items)
        fits = (
            items.ndim == 2 and items.shape == self.likeness.shape and items.dtype.kind == "i" and len(items) <= count
        )
        if not fits or not -1 <= items.min(initial=-1) <= items.max(initial=-1) < count:
            raise ValueError(f"expected neighbours of at most {count} items, by row")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.items, self.likeness = state["items"], state["likeness"]


def _binary(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> sparse.csr_matrix:
    """Return (users, items) with 1 for each pair."""
    matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), (num_users, num_items))
    matrix.data[:] = 1
    return matrix


def _follows(users: np.ndarray, items: np.ndarray, size: int, within: int) -> sparse.csr_matrix:
    """Return (items, items): how often the second item follows the first, counting 1/n if it is the n-th after it.

    Args:
        users: (pairs,) user rows, grouped by user and in the order of time.
        items: (pairs,) item rows.
        size: The number of items.
        within: The maximum n.
    """
    total = sparse.csr_matrix((size, size), dtype=np.float32)
    for step in range(1, within + 1):
        same = users[step:] == users[:-step]
        first, second = items[:-step][same], items[step:][same]
        total = total + sparse.csr_matrix((np.full(len(first), 1 / step, np.float32), (first, second)), (size, size))
    return total.tocsr()


def _strongest(counts: Any, k: int) -> tuple[np.ndarray, np.ndarray]:  # a csr_matrix; scipy has no type stubs
    """Return (items, k) the columns of the k greatest values of each row, and the values; -1 and 0 past the end.

    Ties are in the order of the columns.
    """
    counts.eliminate_zeros()
    size, width = counts.shape
    offsets, columns, data = np.asarray(counts.indptr), np.asarray(counts.indices), np.asarray(counts.data)
    rows = np.repeat(np.arange(size), np.diff(offsets))
    order = np.lexsort((columns, -data, rows))
    place = np.arange(len(rows)) - offsets[rows]
    k = min(k, width)
    kept = place < k
    items = np.full((size, k), -1, np.int32)
    values = np.zeros(items.shape, np.float32)
    items[rows[kept], place[kept]] = columns[order][kept]
    values[rows[kept], place[kept]] = data[order][kept]
    return items, values


def _nearest(model: FittedModel, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (items, k) the nearest items of each item by the cosine of their vectors, and the cosines, at least 0."""
    with torch.inference_mode():
        vectors = nn.functional.normalize(model.vectors("item", model.representations("item")), dim=1)
        k = min(k, len(vectors) - 1)
        found = []
        for rows in torch.arange(len(vectors), device=vectors.device).split(max(1, CELLS_AT_A_TIME // len(vectors))):
            scores = vectors[rows] @ vectors.T
            scores[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
            found.append(top_k(scores, k))
    values, items = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return items.astype(np.int32), np.maximum(values, 0).astype(np.float32)

"""Items like those that the user had last: by the items' vectors, or by who had both."""

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
    """The neighbours of the user's latest items: by who had both, by what follows what, or by the cosine of item vectors.

    An item's score is the sum over the latest items of its likeness to each, halved for each `half_life` items since.
    `together`: users who had both / sqrt(users of the one x users of the other). `next`: the number of users who had the item
    within the next `within` items, the n-th counting 1/n, over the same root; a user's item counts where it was last had.
    """

    type = "item_to_item"

    class Params(Source.Params):
        by: Literal["together", "next", "vectors"] = Field("together", description="What makes items alike.")
        latest: int = Field(10, ge=1, le=100_000, description="Latest items of the user whose neighbours are brought.")
        neighbours: int = Field(100, ge=1, le=100_000, description="Most similar items kept for each item.")
        half_life: float = Field(5.0, gt=0, le=1e9, description="Items since, after which one counts half.")
        within: int = Field(3, ge=1, le=1000, description="Interactions looked ahead (next).")

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
        near = (ago < self.params.latest) & (latest < len(self.items))  # items that came later have no neighbours yet
        rows, latest, ago = rows[near], latest[near], ago[near]
        items = self.items[latest]
        scores = self.likeness[latest] * 0.5 ** (ago / self.params.half_life)[:, None]
        owners = np.repeat(rows, items.shape[1])
        items, scores = items.ravel(), scores.ravel()
        shown = is_listable(items, listable_items(request, allowed), owners)
        return lists_of_pairs(owners[shown], items[shown], scores[shown], len(request.rows), k)

    def state(self) -> dict[str, np.ndarray]:
        return {"items": self.items, "likeness": self.likeness}

    def check_restored(self, model: FittedModel) -> None:
        items, count = self.items, len(model.dataset.items)
        fits = (
            items.ndim == 2 and items.shape == self.likeness.shape and items.dtype.kind == "i" and len(items) <= count
        )
        if not fits or not -1 <= items.min(initial=-1) <= items.max(initial=-1) < count:
            raise ValueError(f"neighbours of at most {count} items, by row, were expected")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.items, self.likeness = state["items"], state["likeness"]


def _binary(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> Any:
    matrix = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), (num_users, num_items))
    matrix.data[:] = 1
    return matrix


def _follows(users: np.ndarray, items: np.ndarray, size: int, within: int) -> Any:
    """(items, items) csr: how often the second came after the first, 1/n where it was the n-th after. users, items: in order of time."""
    total = sparse.csr_matrix((size, size), dtype=np.float32)
    for step in range(1, within + 1):
        same = users[step:] == users[:-step]
        first, second = items[:-step][same], items[step:][same]
        total = total + sparse.csr_matrix((np.full(len(first), 1 / step, np.float32), (first, second)), (size, size))
    return total.tocsr()


def _strongest(counts: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(items, k) the k greatest of each row and their values; -1 and 0 past the end. Equal ones by item."""
    counts.eliminate_zeros()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((counts.indices, -counts.data, rows))
    place = np.arange(len(rows)) - counts.indptr[rows]
    k = min(k, counts.shape[1])
    near = place < k
    items = np.full((counts.shape[0], k), -1, np.int32)
    values = np.zeros(items.shape, np.float32)
    items[rows[near], place[near]] = counts.indices[order][near]
    values[rows[near], place[near]] = counts.data[order][near]
    return items, values


def _nearest(model: FittedModel, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(items, k) the nearest of each item by the cosine of their vectors, and the cosines; those below 0 count 0."""
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

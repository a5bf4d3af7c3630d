"""Ranking metrics over the whole catalogue, from the rank of every held-out item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

METRICS = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")


@dataclass(frozen=True)
class Pairs:
    """User-item pairs grouped by user (CSR): user u's items are `items[offsets[u]:offsets[u + 1]]`."""

    items: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(user_rows: np.ndarray, item_rows: np.ndarray, num_users: int) -> Pairs:
        """Distinct pairs, each user's items sorted."""
        keys = np.unique(user_rows.astype(np.int64) << 32 | item_rows.astype(np.int64))
        users = keys >> 32
        return Pairs(keys & 0xFFFFFFFF, np.searchsorted(users, np.arange(num_users + 1)))

    def take(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For `users: (batch,)`, the pairs as (position in the batch, item), both (pairs,)."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) + np.repeat(self.offsets[users] - starts, lengths)
        return np.repeat(np.arange(len(users)), lengths), self.items[positions]

    def counts(self) -> np.ndarray:
        """(users,) number of items of each user."""
        return np.diff(self.offsets)


def target_ranks(
    score: Callable[[np.ndarray], Tensor],
    targets: Pairs,
    exclude: Pairs | None,
    rankable: np.ndarray | None = None,
    batch_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each held-out item among all items its user may be shown: (targets,) users, (targets,) ranks from 1.

    score: rows of users (batch,) -> (batch, items) scores.
    exclude: items left out for each user (what they trained on); a target always stays in.
    rankable: (items,) bool, items that may be ranked at all.
    Ties: an item that scores the same as the target counts half a place. A score that is not a number ranks last.
    """
    users = np.flatnonzero(targets.counts())
    all_users, all_ranks = [], []
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        scores = torch.nan_to_num(score(batch).float(), nan=-torch.inf)
        rows, items = (torch.from_numpy(part).to(scores.device) for part in targets.take(batch))
        wanted = scores[rows, items]
        if rankable is not None:
            scores[:, torch.from_numpy(~rankable).to(scores.device)] = -torch.inf
        if exclude is not None:
            scores[tuple(torch.from_numpy(part).to(scores.device) for part in exclude.take(batch))] = -torch.inf
        scores[rows, items] = wanted
        all_users.append(batch[rows.cpu().numpy()])
        all_ranks.append(_ranks(scores, rows, wanted).cpu().numpy())
    if not all_users:
        return np.empty(0, np.int64), np.empty(0)
    return np.concatenate(all_users), np.concatenate(all_ranks)


def _ranks(scores: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
    """scores: (batch, items); the rank of score `wanted[i]` in row `rows[i]`: 1 + greater + half of the other equals."""
    if len(rows) <= 4 * len(scores):  # a comparison of whole rows is cheaper than sorting them while targets are few
        above, equal = [], []
        for block, value in zip(rows.split(1024), wanted.split(1024), strict=True):
            lines = scores.index_select(0, block)
            above.append((lines > value[:, None]).sum(1))
            equal.append((lines == value[:, None]).sum(1))
        greater, same = torch.cat(above), torch.cat(equal)
    else:
        ordered = scores.sort(dim=1).values
        lines, value = ordered.index_select(0, rows), wanted[:, None]
        greater = scores.shape[1] - torch.searchsorted(lines, value, right=True).squeeze(1)
        same = scores.shape[1] - torch.searchsorted(lines, value).squeeze(1) - greater
    return 1.0 + greater.double() + (same.double() - 1) / 2


def ranking_metrics(users: np.ndarray, ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """Means over users of each metric at each k, as {"ndcg@10": ...}; users without a held-out item are left out.

    users, ranks: (targets,) as `target_ranks` gives them. With m held-out items and those of rank <= k the hits:
    recall = hits / m; precision = hits / k; hit_rate = 1 if any hit; mrr = 1 / (best rank) if it is a hit;
    ndcg = sum of 1 / log2(rank + 1) over hits, divided by its greatest possible value (min(m, k) hits at the top);
    map = sum over hits of (hits at or above it / its rank), divided by min(m, k).
    """
    if not len(users):
        return {}
    order = np.lexsort((ranks, users))
    ranks = ranks[order]
    _, group, count = np.unique(users[order], return_inverse=True, return_counts=True)
    place = np.arange(len(ranks)) - np.repeat(np.cumsum(count) - count, count) + 1
    gains = 1 / np.log2(ranks + 1)
    best = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks) + 2)))])
    metrics = {}

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(group, values, minlength=len(count))

    for k in ks:
        hit = ranks <= k
        hits = total(hit.astype(float))
        top = np.minimum(count, k)
        per_user = {
            "ndcg": total(gains * hit) / best[top],
            "recall": hits / count,
            "precision": hits / k,
            "hit_rate": (hits > 0).astype(float),
            "map": total(np.where(hit, place / ranks, 0.0)) / top,
            "mrr": total(np.where(hit & (place == 1), 1 / ranks, 0.0)),
        }
        metrics.update({f"{name}@{k}": float(value.mean()) for name, value in per_user.items()})
    return metrics

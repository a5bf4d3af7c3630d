"""Scores and top-K lists in blocks of bounded memory."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from anyrec.core.time_limit import check_time

Ranked: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Lists as flat arrays (entries,): user row, item row, score, and rank from 1."""
CELLS_AT_A_TIME = 1 << 24
"""Numbers held at the same time while scoring: 64 MiB of float32."""


class Scorer(Protocol):
    """Scores representations of users against representations of items: `TwoTower` or `ClassicalScorer`."""

    @property
    def device(self) -> torch.device:
        """The device of the computation."""
        ...

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Return match scores (batch, items).

        Args:
            users: (batch, ...) representations of users.
            items: (items, ...) representations shared by all users, or (batch, items, ...) each user's own.
        """
        ...

    def pair_width(self, items: Tensor) -> int:
        """Return how many numbers `score` holds for each user-item pair while it computes."""
        ...


def score_blocks(scorer: Scorer, users: Tensor, items: Tensor) -> Tensor:
    """Score all users against all items.

    Items are scored in blocks, which bounds the memory of an interaction that has a vector for each pair.

    Args:
        scorer: Scores users against items.
        users: (users, ...) representations.
        items: (items, ...) representations.

    Returns:
        (users, items) scores.
    """
    block = max(1, CELLS_AT_A_TIME // max(1, scorer.pair_width(items) * len(users)))
    if block >= len(items):
        return scorer.score(users, items)
    parts = []
    for part in items.split(block):
        check_time()
        parts.append(scorer.score(users, part))
    return torch.cat(parts, 1)


def rank_rows(
    scorer: Scorer,
    users: Tensor,
    items: Tensor,
    k: int,
    exclude: tuple[np.ndarray, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
) -> Ranked:
    """Rank the items for each user.

    Users are ranked in blocks of bounded memory. Equal scores are ordered by item row.

    Args:
        scorer: Scores users against items.
        users: (users, ...) representations.
        items: (items, ...) representations.
        k: Items for each user.
        exclude: User rows, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) or (users, items) bool, the items that may be listed; by default all.

    Returns:
        The lists as flat arrays (entries,): user row, item row, score, and rank from 1. A user with fewer than k
        eligible items gets all of them.
    """
    block = max(1, CELLS_AT_A_TIME // max(1, len(items)))
    blocks = []
    excluded = None if allowed is None else torch.from_numpy(~allowed).to(items.device)
    for start in range(0, len(users), block):
        check_time()
        scores = score_blocks(scorer, users[start : start + block], items).float().clone()
        if excluded is not None:
            scores.masked_fill_(excluded if excluded.dim() == 1 else excluded[start : start + block], -torch.inf)
        if exclude is not None:
            low, high = np.searchsorted(exclude[0], [start, start + block])
            rows = torch.from_numpy(exclude[0][low:high] - start).to(items.device)
            scores[rows, torch.from_numpy(exclude[1][low:high]).to(items.device)] = -torch.inf
        best, chosen = top_k(scores, min(k, len(items)))
        best, chosen = best.cpu().numpy(), chosen.cpu().numpy()
        rows, places = np.nonzero(best > -np.inf)
        blocks.append((rows + start, chosen[rows, places], best[rows, places], places + 1))
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    rows, chosen, best, ranks = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return rows, chosen, best, ranks


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k largest scores of each row.

    Args:
        scores: (rows, items).
        k: Number of scores, at most `items`.

    Returns:
        Values and positions (rows, k), in descending order of value; equal values are ordered by position. `torch.topk`
        alone does not guarantee that order, nor which of the values equal to the last it takes.
    """
    best = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    values, places = best.values[:, :k], best.indices[:, :k]
    if best.values.shape[1] > k > 0:  # value k + 1 shows whether the last value is tied
        last = values[:, -1]
        tied = ((last == best.values[:, k]) & (last > -torch.inf)).nonzero().squeeze(1)
        if len(tied):
            places[tied] = _first_of_equal(scores[tied], last[tied].unsqueeze(1), k)
    places = torch.sort(places, dim=1).values
    values = scores.gather(1, places)
    descending = torch.sort(values, dim=1, descending=True, stable=True)
    return descending.values, places.gather(1, descending.indices)


def _first_of_equal(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Return (rows, k), positions of the scores above `last: (rows, 1)` and of the first scores equal to it."""
    greater, equal = scores > last, scores == last
    room = k - greater.sum(1, keepdim=True)
    return (greater | (equal & (equal.cumsum(1) <= room))).nonzero()[:, 1].view(-1, k)

"""Top-K lists in NumPy, in blocks of bounded memory, with the order of ties of `anyrec.model.scoring`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Lists: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Lists as flat arrays (entries,): user row, item row, score, and rank from 1."""
CELLS_AT_A_TIME = 1 << 24
"""Numbers held at the same time while scoring: 64 MiB of float32."""


def ranked(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    users: np.ndarray,
    items: np.ndarray,
    k: int,
    width: int = 1,
    exclude: tuple[np.ndarray, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
) -> Lists:
    """Rank the items for each user. Equal scores are ordered by item row.

    Args:
        score: Returns (users, items) scores of vectors of users and of items.
        users: (users, ...) vectors.
        items: (items, ...) vectors.
        k: Items for each user.
        width: Numbers that `score` holds for each pair.
        exclude: User rows, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) bool, the items that may be listed; None for all.

    Returns:
        The lists. A user with fewer than k eligible items gets all of them.
    """
    many = max(1, CELLS_AT_A_TIME // max(1, len(items)))
    blocks = []
    for start in range(0, len(users), many):
        scores = _scores(score, users[start : start + many], items, width)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if exclude is not None:
            low, high = np.searchsorted(exclude[0], [start, start + many])
            scores[exclude[0][low:high] - start, exclude[1][low:high]] = -np.inf
        values, places = top_k(scores, min(k, len(items)))
        rows, ranks = np.nonzero(values > -np.inf)
        blocks.append((rows + start, places[rows, ranks], values[rows, ranks], ranks + 1))
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    rows, places, values, ranks = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return rows, places, values, ranks


def _scores(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], users: np.ndarray, items: np.ndarray, width: int
) -> np.ndarray:
    """Return (users, items) float32 scores, computed for blocks of items."""
    size = max(1, CELLS_AT_A_TIME // max(1, width * len(users)))
    parts = [score(users, items[start : start + size]) for start in range(0, len(items), size)]
    return np.concatenate([np.empty((len(users), 0), np.float32), *parts], 1).astype(np.float32, copy=False)


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k largest scores of each row.

    Args:
        scores: (rows, items).
        k: Number of scores, at most `items`.

    Returns:
        Values and positions (rows, k), in descending order of value; equal values are ordered by position.
    """
    rows, items = scores.shape
    if not k or not rows:
        return np.empty((rows, k), scores.dtype), np.empty((rows, k), np.int64)
    last = np.partition(scores, items - k, axis=1)[:, items - k, None]  # the k-th largest
    greater, equal = scores > last, scores == last
    room = k - greater.sum(1, keepdims=True)
    kept = greater | (equal & (np.cumsum(equal, 1) <= room))  # of the values equal to the last, the first
    places = np.nonzero(kept)[1].reshape(rows, k)
    values = np.take_along_axis(scores, places, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)

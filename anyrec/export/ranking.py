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
    score: Callable[[np.ndarray], np.ndarray],
    users: int,
    items: int,
    k: int,
    exclude: tuple[np.ndarray, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
) -> Lists:
    """Rank the items for each user. Equal scores are ordered by item row.

    Args:
        score: Returns (rows, items) float32, the scores of all items for some of the users, by their rows.
        users: Number of users.
        items: Number of items.
        k: Items for each user.
        exclude: User rows, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) bool, the items that may be listed; None for all.

    Returns:
        The lists. A user with fewer than k eligible items gets all of them.
    """
    many = max(1, CELLS_AT_A_TIME // max(1, items))
    blocks = []
    for start in range(0, users, many):
        scores = score(np.arange(start, min(start + many, users)))
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if exclude is not None:
            low, high = np.searchsorted(exclude[0], [start, start + many])
            scores[exclude[0][low:high] - start, exclude[1][low:high]] = -np.inf
        values, places = top_k(scores, min(k, items))
        rows, ranks = np.nonzero(values > -np.inf)
        blocks.append((rows + start, places[rows, ranks], values[rows, ranks], ranks + 1))
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    rows, places, values, ranks = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return rows, places, values, ranks


def score_blocks(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], users: np.ndarray, items: np.ndarray, width: int
) -> np.ndarray:
    """Return (users, items) float32 scores, computed for blocks of items.

    Args:
        score: Returns (users, items) scores of vectors of users and of items.
        users: (users, ...) vectors.
        items: (items, ...) vectors.
        width: Numbers that `score` holds for each pair.
    """
    size = max(1, CELLS_AT_A_TIME // max(1, width * len(users)))
    parts = [score(users, items[start : start + size]) for start in range(0, len(items), size)]
    return np.concatenate([np.empty((len(users), 0), np.float32), *parts], 1).astype(np.float32, copy=False)


def score_pairs(
    score: Callable[[np.ndarray], np.ndarray], users: np.ndarray, items: np.ndarray, size: int
) -> np.ndarray:
    """Return (pairs,) float32, the scores of pairs by a score that is computed for all items of a user.

    Args:
        score: As for `ranked`.
        users: (pairs,) user rows.
        items: (pairs,) item rows.
        size: Number of items.
    """
    distinct, place = np.unique(users, return_inverse=True)
    order = np.argsort(place, kind="stable")
    found, ends = np.empty(len(users), np.float32), np.searchsorted(place[order], np.arange(len(distinct) + 1))
    many = max(1, CELLS_AT_A_TIME // max(1, size))
    for start in range(0, len(distinct), many):
        stop = min(start + many, len(distinct))
        pairs = order[ends[start] : ends[stop]]
        found[pairs] = score(distinct[start:stop])[place[pairs] - start, items[pairs]]
    return found


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

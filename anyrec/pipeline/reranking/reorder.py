"""What rules do with lists: move entries to the front, change scores by an amount that means the same for every model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anyrec.pipeline.contracts import Lists

if TYPE_CHECKING:
    from anyrec.pipeline.conditions.features import Values


def rearranged(lists: Lists, order: np.ndarray) -> Lists:
    """order: (users, length) places of the entries in their new order; what is past the end stays there."""
    return Lists(np.take_along_axis(lists.items, order, 1), np.take_along_axis(lists.scores, order, 1))


def chosen_first(lists: Lists, chosen: np.ndarray) -> Lists:
    """The entries `chosen: (users, k)` (places, -1 for none) in that order, then the others in theirs."""
    users, length = lists.items.shape
    rank = np.broadcast_to(np.arange(length) + chosen.shape[1], (users, length)).copy()
    rows, columns = np.nonzero(chosen >= 0)
    rank[rows, chosen[rows, columns]] = columns
    rank[lists.items < 0] += 2 * length + chosen.shape[1]
    return rearranged(lists, np.argsort(rank, axis=1, kind="stable"))


def marked_first(lists: Lists, marked: np.ndarray) -> Lists:
    """The entries where `marked: (users, length)` bool in their order, then the others in theirs."""
    return rearranged(lists, np.argsort(~marked, axis=1, kind="stable"))


def rescored(lists: Lists, change: np.ndarray) -> Lists:
    """The lists by score plus `change: (users, length)` standard deviations of the user's own candidates' scores; ties keep their order.

    So an amount means the same whatever the scale or the sign of a model's scores; a factor f adds ln f, that is, it
    multiplies the candidate's odds in the softmax of the standardised scores.
    """
    there = lists.items >= 0
    scores = np.where(there, lists.scores + spread(lists) * change, -np.inf).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    return rearranged(Lists(lists.items, scores), order)


def spread(lists: Lists) -> np.ndarray:
    """(users, 1) standard deviation of each user's candidates' scores; 1 where they are all the same."""
    there = lists.items >= 0
    count = np.maximum(there.sum(1, keepdims=True), 1)
    scores = np.where(there, lists.scores, 0).astype(np.float64)
    mean = scores.sum(1, keepdims=True) / count
    found = np.sqrt((np.where(there, scores - mean, 0) ** 2).sum(1, keepdims=True) / count)
    return np.where(found > 1e-9 * (1 + np.abs(mean)), found, 1.0)


def relevance(lists: Lists) -> np.ndarray:
    """(users, length) float64 scores scaled to [0, 1] over each user's candidates; 1 where they are all the same, 0 past the end."""
    there = lists.items >= 0
    low = np.where(there, lists.scores, np.inf).min(1, initial=np.inf, keepdims=True)
    high = np.where(there, lists.scores, -np.inf).max(1, initial=-np.inf, keepdims=True)
    width = np.where(high > low, high - low, 1.0)
    found = np.where(high > low, (np.where(there, lists.scores, 0) - np.where(high > low, low, 0)) / width, 1.0)
    return np.where(there, found, 0.0)


def distinct_items(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """(distinct,) item rows of the lists, ascending, and (users, length) the place of each entry among them; 0 past the end."""
    there = lists.items >= 0
    items, place = np.unique(lists.items[there], return_inverse=True)
    places = np.zeros(lists.items.shape, np.int64)
    places[there] = place
    return items, places


def values_at(values: Values, lists: Lists) -> np.ndarray:
    """(users, length) float64 the one value of each candidate, NaN where it has none. values: of all items."""
    if not lists.items.size:
        return np.empty(lists.items.shape)
    return np.where(lists.items >= 0, values.single()[lists.items], np.nan)


def codes_at(values: Values, lists: Lists) -> np.ndarray:
    """(users, length, most) int64 places among the values' names that each candidate has, -1 past the end. values: of all items."""
    items, places = distinct_items(lists)
    if not len(items):
        return np.full((*lists.items.shape, 1), -1)
    codes = values.take(items).padded()[places]
    codes[lists.items < 0] = -1
    return codes

"""Operations of rules on lists: move entries to the front, change scores relative to their spread, look up values."""

from __future__ import annotations

import numpy as np

from anyrec.pipeline.conditions.features import Values
from anyrec.pipeline.contracts import Lists


def rearranged(lists: Lists, order: np.ndarray) -> Lists:
    """Reorder lists. order: (users, length) the old place of each entry."""
    return Lists(np.take_along_axis(lists.items, order, 1), np.take_along_axis(lists.scores, order, 1))


def chosen_first(lists: Lists, chosen: np.ndarray) -> Lists:
    """Move entries to the front, in the order of `chosen: (users, k)` (places, -1 for none); the others keep theirs."""
    users, length = lists.items.shape
    rank = np.broadcast_to(np.arange(length) + chosen.shape[1], (users, length)).copy()
    rows, columns = np.nonzero(chosen >= 0)
    rank[rows, chosen[rows, columns]] = columns
    rank[lists.items < 0] += 2 * length + chosen.shape[1]
    return rearranged(lists, np.argsort(rank, axis=1, kind="stable"))


def marked_first(lists: Lists, marked: np.ndarray) -> Lists:
    """Move the entries with `marked: (users, length)` bool to the front; both groups keep their order."""
    return rearranged(lists, np.argsort(~marked, axis=1, kind="stable"))


def rescored(lists: Lists, change: np.ndarray) -> Lists:
    """Add to scores and sort lists by the result; ties keep their order.

    The change is in standard deviations of the user's own candidates' scores, so its effect depends neither on the
    scale nor on the sign of a model's scores. Adding ln f multiplies a candidate's odds in the softmax of the
    standardised scores by f.

    Args:
        lists: (users, length).
        change: (users, length), or broadcast to it.
    """
    filled = lists.items >= 0
    scores = np.where(filled, lists.scores + spread(lists) * change, -np.inf).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    return rearranged(Lists(lists.items, scores), order)


def spread(lists: Lists) -> np.ndarray:
    """Return (users, 1) the standard deviation of each user's candidates' scores; 1 if they are all equal."""
    filled = lists.items >= 0
    count = np.maximum(filled.sum(1, keepdims=True), 1)
    scores = np.where(filled, lists.scores, 0).astype(np.float64)
    mean = scores.sum(1, keepdims=True) / count
    found = np.sqrt((np.where(filled, scores - mean, 0) ** 2).sum(1, keepdims=True) / count)
    return np.where(found > 1e-9 * (1 + np.abs(mean)), found, 1.0)


def relevance(lists: Lists) -> np.ndarray:
    """Return (users, length) float64, scores scaled to [0, 1] over each user's candidates.

    They are 1 if all scores of a user are equal, and 0 past the end of a list.
    """
    filled = lists.items >= 0
    low = np.where(filled, lists.scores, np.inf).min(1, initial=np.inf, keepdims=True)
    high = np.where(filled, lists.scores, -np.inf).max(1, initial=-np.inf, keepdims=True)
    width = np.where(high > low, high - low, 1.0)
    found = np.where(high > low, (np.where(filled, lists.scores, 0) - np.where(high > low, low, 0)) / width, 1.0)
    return np.where(filled, found, 0.0)


def distinct_items(lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Return (distinct,) item rows, ascending, and (users, length) each entry's place in them, 0 past the end."""
    filled = lists.items >= 0
    items, place = np.unique(lists.items[filled], return_inverse=True)
    places = np.zeros(lists.items.shape, np.int64)
    places[filled] = place
    return items, places


def values_at(values: Values, lists: Lists) -> np.ndarray:
    """Return (users, length) float64, the single value of each entry, NaN for a missing one. values: of all items."""
    if not lists.items.size:
        return np.empty(lists.items.shape)
    return np.where(lists.items >= 0, values.single()[lists.items], np.nan)


def codes_at(values: Values, lists: Lists) -> np.ndarray:
    """Return (users, length, n) int64, each entry's texts as places in `values.names`, -1 past the end.

    Args:
        values: The values of all items.
        lists: (users, length).
    """
    items, places = distinct_items(lists)
    if not len(items):
        return np.full((*lists.items.shape, 1), -1)
    codes = values.take(items).padded()[places]
    codes[lists.items < 0] = -1
    return codes

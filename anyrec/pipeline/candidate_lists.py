"""Operations on lists that sources and stages share: build them from pairs, filter, sort and merge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anyrec.model.scoring import top_k
from anyrec.pipeline.contracts import Lists, Request, Rule

DENSE_RATIO = 16
"""`lists_of_pairs` uses a dense (users, items) table if at least one in this many of its cells has a pair."""


@dataclass(frozen=True)
class Merged:
    """Candidates of several sources, ordered by their best place in any source.

    Attributes:
        items: (users, n) int64 item rows, -1 past the end of a list.
        places: (sources, users, n) int32 place of each candidate in each source, from 0; -1 if the source did not
            return it.
        scores: (sources, users, n) float32 score of each candidate in each source; 0 if the source did not return it.
    """

    items: np.ndarray
    places: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """What the first stage retrieved, in the model's order.

    Attributes:
        lists: (users, n) items and the model's scores.
        places: (sources, users, n) int32 place in each source, from 0; -1 if the source did not return the item.
        scores: (sources, users, n) float32 score in each source; 0 if the source did not return the item.
    """

    lists: Lists
    places: np.ndarray
    scores: np.ndarray

    def head(self, n: int) -> Candidates:
        """Return the first n of each list."""
        lists = Lists(self.lists.items[:, :n], self.lists.scores[:, :n])
        return Candidates(lists, self.places[..., :n], self.scores[..., :n])


def empty_lists(users: int) -> Lists:
    """Return lists of length 0 for a number of users."""
    return Lists(np.empty((users, 0), np.int64), np.empty((users, 0), np.float32))


def lists_of_ranks(rows: np.ndarray, items: np.ndarray, scores: np.ndarray, ranks: np.ndarray, users: int) -> Lists:
    """Build lists from flat entries.

    Args:
        rows: (entries,) request row of each entry.
        items: (entries,) item rows.
        scores: (entries,) scores.
        ranks: (entries,) ranks from 1, distinct within a list.
        users: The number of lists.
    """
    width = int(ranks.max(initial=0))
    lists = Lists(np.full((users, width), -1), np.full((users, width), -np.inf, np.float32))
    lists.items[rows, ranks - 1], lists.scores[rows, ranks - 1] = items, scores
    return lists


def lists_of_pairs(rows: np.ndarray, items: np.ndarray, scores: np.ndarray, users: int, k: int) -> Lists:
    """Return the k best of each user's pairs, equal scores in the order of item rows.

    The scores of repeated pairs are added. Pairs with a score that is not above 0 are left out.

    Args:
        rows: (pairs,) request row of each pair.
        items: (pairs,) item rows.
        scores: (pairs,) finite scores.
        users: The number of lists.
        k: The maximum length of a list.
    """
    if not (scores > 0).all():
        rows, items, scores = rows[scores > 0], items[scores > 0], scores[scores > 0]
    if not len(rows):
        return empty_lists(users)
    width = int(items.max()) + 1
    if len(rows) * DENSE_RATIO > users * width:  # a dense table takes a tenth of the time of sorting
        table = np.bincount(rows * width + items, scores, users * width).reshape(users, width).astype(np.float32)
        values, places = top_k(torch.from_numpy(table), min(k, width))
        found = values.numpy() > 0
        return Lists(np.where(found, places.numpy(), -1), np.where(found, values.numpy(), -np.inf).astype(np.float32))
    keys, place = np.unique(rows.astype(np.int64) * width + items, return_inverse=True)
    total = np.bincount(place, scores, minlength=len(keys)).astype(np.float32)
    rows, items = keys // width, keys % width
    order = np.lexsort((items, -total, rows))
    rows, items, total = rows[order], items[order], total[order]
    first = np.searchsorted(rows, np.arange(users))
    ranks = np.arange(len(rows)) - first[rows] + 1
    best = ranks <= k
    return lists_of_ranks(rows[best], items[best], total[best], ranks[best], users)


def listable_items(request: Request, allowed: np.ndarray | None) -> np.ndarray | None:
    """Combine a mask with the pairs that the request excludes.

    Args:
        request: The request.
        allowed: (items,) or (users, items) bool; None for all items.

    Returns:
        (items,) or (users, items) bool; None if every item may be listed.
    """
    if request.exclude is None or not len(request.exclude[0]):
        return allowed
    shape = len(request.rows), len(request.items)
    mask = np.ones(shape, bool) if allowed is None else np.broadcast_to(allowed, shape).copy()
    mask[request.exclude] = False
    return mask


def first_listable(order: np.ndarray, users: int, k: int, allowed: np.ndarray | None) -> np.ndarray:
    """Return the first k items of a shared order that each user may be shown.

    Only a prefix of the order is examined; its length doubles until every user has k items.

    Args:
        order: (items,) item rows, best first.
        users: The number of users.
        k: The number of items for each user.
        allowed: (items,) or (users, items) bool; None for all items.

    Returns:
        (users, <= k) item rows, -1 past the end.
    """
    length = min(len(order), 2 * k)
    while True:
        head = order[:length]
        if allowed is None or allowed.ndim == 1:
            found = head if allowed is None else head[allowed[head]]
            if length == len(order) or len(found) >= k:
                return np.tile(found[:k], (users, 1))
            length = min(len(order), 2 * length)
            continue
        mask = allowed[:, head]
        if length == len(order) or (mask.sum(1) >= k).all():
            lists = Lists(np.tile(head, (users, 1)), np.zeros(mask.shape, np.float32))
            return keep(lists, mask, k).items
        length = min(len(order), 2 * length)


def is_listable(items: np.ndarray, allowed: np.ndarray | None, rows: np.ndarray | None = None) -> np.ndarray:
    """Return which entries are items and allowed.

    Args:
        items: (users, n) item rows, or (pairs,) with `rows`; -1 for no item.
        allowed: (items,) or (users, items) bool; None for all items.
        rows: (pairs,) request row of each entry.

    Returns:
        bool, in the shape of `items`.
    """
    filled = items >= 0
    if allowed is None:
        return filled
    index = np.where(filled, items, 0)
    if allowed.ndim == 1:
        return filled & allowed[index]
    return filled & (np.take_along_axis(allowed, index, 1) if rows is None else allowed[rows, index])


def keep(lists: Lists, kept: np.ndarray, k: int) -> Lists:
    """Return the first k entries of each list for which `kept: (users, n)` is True, in their order."""
    if kept.all():
        return Lists(lists.items[:, :k], lists.scores[:, :k])
    places = np.cumsum(kept, 1) - 1
    rows, columns = np.nonzero(kept & (places < k))
    ranks = places[rows, columns] + 1
    return lists_of_ranks(rows, lists.items[rows, columns], lists.scores[rows, columns], ranks, len(kept))


def best_of(lists: Lists, scores: np.ndarray, k: int) -> Lists:
    """Return the k entries with the highest new `scores: (users, n)`; ties keep their order."""
    scores = np.where(lists.items >= 0, scores, -np.inf).astype(np.float32)
    order = descending(scores)[:, :k]
    items, scores = np.take_along_axis(lists.items, order, 1), np.take_along_axis(scores, order, 1)
    return Lists(np.where(scores > -np.inf, items, -1), scores)


def descending(scores: np.ndarray) -> np.ndarray:
    """Return (users, n) the places of `scores: (users, n)` from the highest to the lowest; ties keep their order."""
    return torch.sort(torch.from_numpy(scores), dim=1, descending=True, stable=True).indices.numpy()


def merge(retrieved: Sequence[Lists], k: int, num_items: int) -> Merged:
    """Merge the lists of several sources by each candidate's best place in any of them.

    Of candidates at equal places, the one from the source that is named first comes first. No list is sorted: entry
    (place, source) has the code place * sources + source, so the columns of all sources in the order of their codes
    are in the final order, and of an item's several entries the one with the lowest code is kept.

    Args:
        retrieved: The lists of each source.
        k: The maximum number of candidates for each user.
        num_items: The number of items in the catalogue.
    """
    sources = len(retrieved)
    if sources == 1:
        items = retrieved[0].items[:, :k]
        filled = items >= 0
        places = np.where(filled, np.arange(items.shape[1], dtype=np.int32), -1).astype(np.int32)
        return Merged(items, places[None], np.where(filled, retrieved[0].scores[:, :k], 0)[None])
    tables = [place_table(lists, num_items) for lists in retrieved]
    widths = [lists.items.shape[1] for lists in retrieved]
    place = np.concatenate([np.arange(width) for width in widths]).astype(np.int32)
    source = np.repeat(np.arange(sources), widths)
    order = np.lexsort((source, place))
    code = (place * sources + source)[order]  # (columns,)
    items = np.concatenate([lists.items for lists in retrieved], 1)[:, order]  # (users, columns)
    lowest = np.full(items.shape, np.iinfo(np.int32).max, np.int32)  # the lowest code of each entry's item
    for number, table in enumerate(tables):
        found = np.take_along_axis(table, items, 1)
        np.minimum(lowest, np.where(found >= 0, found * sources + number, lowest), out=lowest)
    first = (items >= 0) & (lowest == code)
    merged = keep(Lists(items, np.zeros(items.shape, np.float32)), first, k).items
    places = np.stack([np.take_along_axis(table, merged, 1) for table in tables])
    scores = np.zeros(places.shape, np.float32)
    for number, lists in enumerate(retrieved):
        if lists.scores.shape[1]:
            own = np.take_along_axis(lists.scores, np.maximum(places[number], 0), 1)
            scores[number] = np.where(places[number] >= 0, own, 0)
    return Merged(merged, places, scores)


def place_table(lists: Lists, num_items: int) -> np.ndarray:
    """Return (users, items + 1) int32 the place of each item in each list, -1 if it is not listed.

    The last column is always -1, so that item row -1 (no item) can be looked up.
    """
    table = np.full((len(lists.items), num_items + 1), -1, np.int32)
    places = np.broadcast_to(np.arange(lists.items.shape[1], dtype=np.int32), lists.items.shape)
    np.put_along_axis(table, lists.items, places, 1)
    table[:, -1] = -1
    return table


def checked_mask(rule: Rule, request: Request) -> np.ndarray | None:
    """Return a filter's mask. Raises ValueError unless it is None or a bool array of (items,) or (users, items)."""
    mask = rule.allowed(request)
    if mask is None:
        return None
    mask, items, users = np.asarray(mask), len(request.items), len(request.rows)
    if mask.dtype != bool or mask.shape not in ((items,), (users, items)):
        raise ValueError(f"its mask is {mask.dtype} {mask.shape}; expected bool ({items},) or ({users}, {items})")
    return mask


def checked(lists: Lists, request: Request, listable: np.ndarray | None) -> Lists:
    """Return lists of a component without gaps and without items that may not be listed. Raises ValueError."""
    if lists.items.shape != lists.scores.shape or len(lists.items) != len(request.rows):
        raise ValueError(f"items are {lists.items.shape} and scores {lists.scores.shape} for {len(request.rows)} users")
    if lists.items.max(initial=-1) >= len(request.items):
        raise ValueError(f"an item row is {lists.items.max()}, and there are {len(request.items)} items")
    return keep(lists, is_listable(lists.items, listable), lists.items.shape[1])

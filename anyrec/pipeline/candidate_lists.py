"""What sources and stages do with lists: make them of pairs, drop what is not wanted, merge several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from anyrec.model.scoring import top_k
from anyrec.pipeline.contracts import Lists, Request

FULL = 16
"""Pairs for each so many cells of (users, items) that make a table of all cells worth while."""


class Merged(NamedTuple):
    """Candidates of several sources. items: (users, n) int64 item rows, -1 past the end, by their best place in any source.

    places: (sources, users, n) int32 place of each in each source, from 0, -1 where the source did not bring it.
    scores: (sources, users, n) float32 its score there, 0 where not brought.
    """

    items: np.ndarray
    places: np.ndarray
    scores: np.ndarray


def empty_lists(users: int) -> Lists:
    return Lists(np.empty((users, 0), np.int64), np.empty((users, 0), np.float32))


def lists_of_ranks(rows: np.ndarray, items: np.ndarray, scores: np.ndarray, ranks: np.ndarray, users: int) -> Lists:
    """Lists of flat entries: row of the user, row of the item, score, rank from 1."""
    width = int(ranks.max(initial=0))
    made = Lists(np.full((users, width), -1), np.full((users, width), -np.inf, np.float32))
    made.items[rows, ranks - 1], made.scores[rows, ranks - 1] = items, scores
    return made


def lists_of_pairs(rows: np.ndarray, items: np.ndarray, scores: np.ndarray, users: int, k: int) -> Lists:
    """The k best of each user's pairs, best first, equal scores by item row; the scores of a pair that comes more than once are added.

    rows: (pairs,) row of the user; items: (pairs,); scores: (pairs,) finite; pairs of a score that is not above 0 are left out.
    """
    if not (scores > 0).all():
        rows, items, scores = rows[scores > 0], items[scores > 0], scores[scores > 0]
    if not len(rows):
        return empty_lists(users)
    width = int(items.max()) + 1
    if len(rows) * FULL > users * width:  # most cells hold something: adding in place is a tenth of the work of sorting
        table = np.bincount(rows * width + items, scores, users * width).reshape(users, width).astype(np.float32)
        values, places = top_k(torch.from_numpy(table), min(k, width))
        there = values.numpy() > 0
        return Lists(np.where(there, places.numpy(), -1), np.where(there, values.numpy(), -np.inf).astype(np.float32))
    keys, place = np.unique(rows.astype(np.int64) * width + items, return_inverse=True)
    total = np.bincount(place, scores, minlength=len(keys)).astype(np.float32)
    rows, items = keys // width, keys % width
    order = np.lexsort((items, -total, rows))
    rows, items, total = rows[order], items[order], total[order]
    first = np.searchsorted(rows, np.arange(users))
    ranks = np.arange(len(rows)) - first[rows] + 1
    near = ranks <= k
    return lists_of_ranks(rows[near], items[near], total[near], ranks[near], users)


def open_to(request: Request, allowed: np.ndarray | None) -> np.ndarray | None:
    """(items,) or (users, items) bool: `allowed` less what the request excludes; None where anything may be shown."""
    if request.exclude is None or not len(request.exclude[0]):
        return allowed
    shape = len(request.rows), len(request.items)
    found = np.ones(shape, bool) if allowed is None else np.broadcast_to(allowed, shape).copy()
    found[request.exclude] = False
    return found


def first_open(order: np.ndarray, users: int, k: int, allowed: np.ndarray | None) -> np.ndarray:
    """(users, <= k) the first k of `order: (items,)` that each user may be shown, -1 past the end.

    Only as much of the order is looked at as users need.
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
        shown = allowed[:, head]
        if length == len(order) or (shown.sum(1) >= k).all():
            lists = Lists(np.tile(head, (users, 1)), np.zeros(shown.shape, np.float32))
            return keep(lists, shown, k).items
        length = min(len(order), 2 * length)


def is_open(items: np.ndarray, allowed: np.ndarray | None, rows: np.ndarray | None = None) -> np.ndarray:
    """Which entries are items (not -1) and allowed: bool, in the shape of `items`, (users, n), or (pairs,) with the user `rows` of each."""
    there = items >= 0
    if allowed is None:
        return there
    known = np.where(there, items, 0)
    if allowed.ndim == 1:
        return there & allowed[known]
    return there & (np.take_along_axis(allowed, known, 1) if rows is None else allowed[rows, known])


def keep(lists: Lists, kept: np.ndarray, k: int) -> Lists:
    """The first k entries of each list where `kept: (users, n)`, in their order."""
    if kept.all():
        return Lists(lists.items[:, :k], lists.scores[:, :k])
    places = np.cumsum(kept, 1) - 1
    rows, columns = np.nonzero(kept & (places < k))
    ranks = places[rows, columns] + 1
    return lists_of_ranks(rows, lists.items[rows, columns], lists.scores[rows, columns], ranks, len(kept))


def best_of(lists: Lists, scores: np.ndarray, k: int) -> Lists:
    """The k entries with the greatest of `scores: (users, n)`, equal ones in their order; with those scores."""
    scores = np.where(lists.items >= 0, scores, -np.inf).astype(np.float32)
    order = descending(scores)[:, :k]
    items, scores = np.take_along_axis(lists.items, order, 1), np.take_along_axis(scores, order, 1)
    return Lists(np.where(scores > -np.inf, items, -1), scores)


def descending(scores: np.ndarray) -> np.ndarray:
    """(users, n) the places of `scores: (users, n)` from the greatest to the least, equal ones in their order."""
    return torch.sort(torch.from_numpy(scores), dim=1, descending=True, stable=True).indices.numpy()


def merge(brought: Sequence[Lists], k: int, num_items: int) -> Merged:
    """The first k candidates by their best place in any of the sources; equal places go to the source named first.

    No sorting: the entries of all sources, place by place, are in that order, and of an item's entries the first counts.
    """
    sources = len(brought)
    if sources == 1:
        items = brought[0].items[:, :k]
        there = items >= 0
        places = np.where(there, np.arange(items.shape[1], dtype=np.int32), -1).astype(np.int32)
        return Merged(items, places[None], np.where(there, brought[0].scores[:, :k], 0)[None])
    tables = [_table(lists, num_items) for lists in brought]
    widths = [lists.items.shape[1] for lists in brought]
    place = np.concatenate([np.arange(width) for width in widths]).astype(np.int32)
    source = np.repeat(np.arange(sources), widths)
    order = np.lexsort((source, place))
    code = (place * sources + source)[order]
    items = np.concatenate([lists.items for lists in brought], 1)[:, order]
    first = np.full(items.shape, np.iinfo(np.int32).max, np.int32)
    for number, table in enumerate(tables):
        there = np.take_along_axis(table, items, 1)
        np.minimum(first, np.where(there >= 0, there * sources + number, first), out=first)
    own = (items >= 0) & (first == code)
    merged = keep(Lists(items, np.zeros(items.shape, np.float32)), own, k).items
    places = np.stack([np.take_along_axis(table, merged, 1) for table in tables])
    scores = np.zeros(places.shape, np.float32)
    for number, lists in enumerate(brought):
        if lists.scores.shape[1]:
            here = np.take_along_axis(lists.scores, np.maximum(places[number], 0), 1)
            scores[number] = np.where(places[number] >= 0, here, 0)
    return Merged(merged, places, scores)


def _table(lists: Lists, num_items: int) -> np.ndarray:
    """(users, items + 1) int32 the place of each item in each list, -1 where it is not; the last column is that of no item."""
    table = np.full((len(lists.items), num_items + 1), -1, np.int32)
    places = np.broadcast_to(np.arange(lists.items.shape[1], dtype=np.int32), lists.items.shape)
    np.put_along_axis(table, lists.items, places, 1)
    table[:, -1] = -1
    return table

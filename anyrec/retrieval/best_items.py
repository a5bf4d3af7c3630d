"""The best items of users by a model's score: through its index, or by scoring all items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from anyrec.model.blended import BlendedModel
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records
from anyrec.model.result_tables import with_index
from anyrec.model.scoring import CELLS_AT_A_TIME, Ranked, rank_rows
from anyrec.retrieval.blend_candidates import best_of_blend
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.item_index import ItemIndex
from anyrec.retrieval.model_index import item_index, used_index
from anyrec.retrieval.results import SearchResult


@torch.inference_mode()
def best_items(
    model: FittedModel, users: Tensor, k: int, exclude: Pairs | None = None, allowed: np.ndarray | None = None
) -> Ranked:
    """Find the k best items of each user, by the index of the model if it has one.

    Users whose scores are not those of a vector, and items that were added after the index was built, are scored
    exactly.

    Args:
        model: The model.
        users: (users, ...) representations.
        k: Items for each user.
        exclude: Rows of users, ascending, and item rows (pairs,) of the pairs to leave out.
        allowed: (items,) or (users, items) bool, the items that may be listed; None for all.

    Returns:
        The lists as `rank_rows` returns them. A user with fewer than k eligible items gets all of them.
    """
    index = item_index(model)
    if index is None:
        return rank_rows(model.scorer, users, model.representations("item"), k, exclude, allowed)
    if isinstance(model, BlendedModel):
        return best_of_blend(model, index, users, k, exclude, allowed)
    apart = model.without_vector(users)
    if not apart.any():
        return _by_index(model, index, users, k, exclude, allowed)
    parts = []
    for chosen in (np.flatnonzero(~apart), np.flatnonzero(apart)):
        part = users[torch.from_numpy(chosen).to(users.device)]
        own = allowed if allowed is None or allowed.ndim == 1 else allowed[chosen]
        pairs = None if exclude is None else _of_queries(exclude, chosen, len(users))
        if apart[chosen].any():
            rows, *others = rank_rows(model.scorer, part, model.representations("item"), k, pairs, own)
        else:
            rows, *others = _by_index(model, index, part, k, pairs, own)
        parts.append((chosen[rows], *others))
    rows, items, scores, ranks = (np.concatenate(both) for both in zip(*parts, strict=True))
    order = np.lexsort((ranks, rows))
    return rows[order], items[order], scores[order], ranks[order]


def _by_index(
    model: FittedModel, index: ItemIndex, users: Tensor, k: int, exclude: Pairs | None, allowed: np.ndarray | None
) -> Ranked:
    """Find the best items of users with vectors; arguments and result as of `best_items`."""
    queries = model.vectors("user", users).float().cpu().numpy()
    found = index.search(queries, k, allowed, exclude)
    if model.base is not None:
        first = len(index.ids)
        found = with_added(found, queries, model.embeddings_from("item", first), first, allowed, exclude)
    rows, places = np.nonzero(found.keys >= 0)
    return rows, found.keys[rows, places], found.scores[rows, places], places + 1


def with_added(
    found: SearchResult,
    queries: np.ndarray,
    added: np.ndarray,
    first: int,
    allowed: np.ndarray | None = None,
    exclude: Pairs | None = None,
) -> SearchResult:
    """Merge items that an index does not have into what it found.

    Args:
        found: (queries, k) items of the index.
        queries: (queries, dim).
        added: (added, dim) vectors of further items.
        first: Row of the first of them.
        allowed: (items,) or (queries, items) bool, the items that may be found; None for all.
        exclude: Rows of queries, ascending, and item rows (pairs,) of the pairs to leave out.

    Returns:
        (queries, k) best items of both.
    """
    k, parts = found.keys.shape[1], [SearchResult(found.keys[:0], found.scores[:0])]
    keys = np.arange(first, first + len(added))
    size = max(1, CELLS_AT_A_TIME // max(1, len(added)))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        scores = queries[part] @ added.T
        if allowed is not None:
            scores[:, :] = np.where(allowed[first:] if allowed.ndim == 1 else allowed[part, first:], scores, -np.inf)
        if exclude is not None:
            inside = (exclude[0] >= start) & (exclude[0] < start + len(scores)) & (exclude[1] >= first)
            scores[exclude[0][inside] - start, exclude[1][inside] - first] = -np.inf
        more = np.where(scores == -np.inf, -1, keys)
        both = [np.concatenate([known[part], new], 1) for known, new in ((found.keys, more), (found.scores, scores))]
        parts.append(SearchResult(*both).best(k))
    return SearchResult(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _of_queries(pairs: Pairs, chosen: np.ndarray, count: int) -> Pairs:
    """Return the pairs of the queries `chosen`: (n,) ascending, of `count`, renumbered from 0."""
    place = np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    rows = place[pairs[0]]
    return rows[rows >= 0], pairs[1][rows >= 0]


def ranked_table(
    model: FittedModel, records: Records, k: int, *, exclude_seen: bool, allowed: np.ndarray | None
) -> pa.Table:
    """List the k best items of each user.

    Args:
        model: The model.
        records: The users.
        k: Items for each user.
        exclude_seen: Leave out items that the user interacted with.
        allowed: (items,) bool, the items that may be listed; None for all.

    Returns:
        user_id, item_id, score, rank (from 1); its metadata name the index.
    """
    exclude = model.seen_of(records) if exclude_seen else None
    rows, places, scores, ranks = best_items(model, model.represent(records), k, exclude, allowed)
    table = pa.table(
        {
            "user_id": records.ids.take(pa.array(rows)),
            "item_id": model.dataset.ids("item").take(pa.array(places)),
            "score": pa.array(scores),
            "rank": pa.array(ranks),
        }
    )
    return with_index(table, used_index(model))

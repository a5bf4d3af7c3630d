"""The model's own scores and order of candidates, and its ranking of the whole catalogue to complete short lists."""

from __future__ import annotations

import numpy as np
import torch

from anyrec.model.scoring import CELLS_AT_A_TIME, rank_rows, score_blocks
from anyrec.pipeline.candidate_lists import Candidates, Merged, descending, lists_of_ranks, merge
from anyrec.pipeline.contracts import Lists, Request


def model_scores(request: Request, items: np.ndarray) -> np.ndarray:
    """Score candidates with the model.

    If the score is a product of vectors and lists cover an eighth of the catalogue or more, one matrix product of all
    users with all items is cheaper than gathering a vector for each entry.

    Args:
        request: The request.
        items: (users, n) item rows, -1 for no item.

    Returns:
        (users, n) float32; the value of an entry without an item is meaningless.
    """
    model, users = request.model, request.represented
    scorer, known = model.scorer, model.representations("item")
    wanted = torch.from_numpy(np.maximum(items, 0)).to(users.device)
    if not items.shape[1]:
        return np.empty(items.shape, np.float32)
    if model.factorised and 8 * items.shape[1] >= len(known):
        return score_blocks(scorer, users, known).gather(1, wanted).float().cpu().numpy()
    size = max(1, CELLS_AT_A_TIME // (items.shape[1] * int(np.prod(known.shape[1:]))))
    parts = zip(users.split(size), wanted.split(size), strict=True)
    return torch.cat([scorer.score(u, known[i]) for u, i in parts]).float().cpu().numpy()


def in_model_order(request: Request, merged: Merged) -> Candidates:
    """Sort candidates by the model's own score, ties by their best place in a source."""
    with torch.inference_mode():
        scores = np.where(merged.items >= 0, model_scores(request, merged.items), -np.inf).astype(np.float32)
    order = descending(scores)
    lists = Lists(np.take_along_axis(merged.items, order, 1), np.take_along_axis(scores, order, 1))
    places, in_sources = (np.take_along_axis(part, order[None], 2) for part in (merged.places, merged.scores))
    return Candidates(lists, places, in_sources)


def model_best(request: Request, k: int, listable: np.ndarray | None, users: np.ndarray | None = None) -> Lists:
    """Score all items and return the model's k best.

    Args:
        request: The request.
        k: The maximum length of a list.
        listable: (items,) or (users, items) bool, the items that may be listed; None for all.
        users: (users,) bool, the users that get a list; None for all. The lists of the others are empty.
    """
    model = request.model
    chosen = np.arange(len(request.rows)) if users is None else np.flatnonzero(users)
    if listable is not None and listable.ndim == 2:
        listable = listable[chosen]
    represented = request.represented[torch.from_numpy(chosen).to(request.represented.device)]
    with torch.inference_mode():
        found = rank_rows(model.scorer, represented, model.representations("item"), k, None, listable)
    return lists_of_ranks(chosen[found[0]], *found[1:], len(request.rows))


def is_short(items: np.ndarray, listable: np.ndarray | None, k: int, num_items: int) -> np.ndarray:
    """Return (users,) bool, the users with fewer than k candidates although more items may be listed."""
    available = num_items if listable is None else listable.sum(-1)
    return (items >= 0).sum(1) < np.minimum(available, k)


def fill_up(merged: Merged, more: Lists, width: int, num_items: int) -> Merged:
    """Append the items of `more` that a user's candidates do not have yet.

    Args:
        merged: The candidates of the sources.
        more: Further items, best first.
        width: The maximum number of candidates, if the two lists together are not longer.
        num_items: The number of items in the catalogue.
    """
    first = Lists(merged.items, np.zeros(merged.items.shape, np.float32))
    wider = merge([first, more], max(width, first.items.shape[1] + more.items.shape[1]), num_items)
    place = wider.places[0]
    found, index = place >= 0, np.maximum(place, 0)
    if not merged.items.shape[1]:
        empty = np.full((len(merged.places), *place.shape), -1, np.int32)
        return Merged(wider.items, empty, np.zeros(empty.shape, np.float32))
    places = np.stack([np.where(found, np.take_along_axis(one, index, 1), -1) for one in merged.places])
    scores = np.stack([np.where(found, np.take_along_axis(one, index, 1), 0) for one in merged.scores])
    return Merged(wider.items, places, scores)

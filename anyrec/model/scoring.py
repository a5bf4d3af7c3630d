"""Scores and top-K lists in blocks of bounded memory, by the model's one scoring function."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anyrec.data.dataset import Side
from anyrec.model.towers import Columns, Model

ROWS_AT_A_TIME = 4096
CELLS_AT_A_TIME = 1 << 24
"""Numbers held at once while scoring: 64 MB of float32."""


def represent_rows(
    model: Model,
    side: Side,
    columns: Columns,
    count: int,
    rows: np.ndarray | None = None,
    item_vectors: Tensor | None = None,
) -> Tensor:
    """What the interaction reads of `rows` (all `count` by default): (rows, dim) or (rows, features, dim).

    item_vectors: (items, dim), as `vectors_for_histories` gives them, where users' features are made of them.
    """
    return torch.cat([model.represent(side, columns, part, item_vectors) for part in _blocks(model, count, rows)])


def token_rows(
    model: Model,
    side: Side,
    columns: Columns,
    count: int,
    rows: np.ndarray | None = None,
    item_vectors: Tensor | None = None,
) -> Tensor:
    """The feature vectors of `rows`, before fusion, absent ones replaced: (rows, features, dim). Arguments as of `represent_rows`."""
    tower, parts = model.tower(side), []
    for part in _blocks(model, count, rows):
        given = None if item_vectors is None else model.read_histories(side, columns, part, item_vectors)
        parts.append(tower.filled_tokens(columns, part, given))
    return torch.cat(parts)


def _blocks(model: Model, count: int, rows: np.ndarray | None) -> tuple[Tensor, ...]:
    """`rows`, or all `count`, on the model's device in blocks."""
    device = next(model.parameters()).device
    index = torch.arange(count, device=device) if rows is None else torch.from_numpy(rows).to(device)
    return index.split(ROWS_AT_A_TIME)


def vectors_for_histories(model: Model, columns: Columns, represented: Tensor) -> Tensor | None:
    """(items, dim) the item tower's vectors, which histories are made of; None where no feature is.

    columns: of the items; represented: (items, ...) what the interaction reads of them, which often is the same.
    """
    if not model.has_history:
        return None
    return represented if model.interaction.reads == "vectors" else tower_vectors(model, columns, len(represented))


def tower_vectors(model: Model, columns: Columns, count: int) -> Tensor:
    """(items, dim) what the item tower makes of its first `count` rows."""
    return torch.cat([model.item(columns, part) for part in _blocks(model, count, None)])


def score_blocks(model: Model, users: Tensor, items: Tensor) -> Tensor:
    """(users, items) scores of all with all; blocked so that an interaction that keeps a vector a pair stays bounded."""
    width = (
        1 if model.interaction.factorised else 4 * model.interaction.dim * (items.shape[1] if items.dim() == 3 else 1)
    )
    block = max(1, CELLS_AT_A_TIME // max(1, width * len(users)))
    if block >= len(items):
        return model.score(users, items)
    return torch.cat([model.score(users, part) for part in items.split(block)], 1)


def rank_rows(
    model: Model,
    users: Tensor,
    items: Tensor,
    k: int,
    exclude: tuple[np.ndarray, np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Top-K lists, as flat arrays: row of the user, row of the item, score, rank from 1.

    exclude: (pairs,) user rows, ascending, and (pairs,) item rows never to list. allowed: (items,) or (users, items) bool.
    A user with fewer than k eligible items gets them all. Ties go to the lower item row.
    """
    block = max(1, CELLS_AT_A_TIME // max(1, len(items)))
    found = []
    barred = None if allowed is None else torch.from_numpy(~allowed).to(items.device)
    for start in range(0, len(users), block):
        scores = score_blocks(model, users[start : start + block], items).float().clone()
        if barred is not None:
            scores.masked_fill_(barred if barred.dim() == 1 else barred[start : start + block], -torch.inf)
        if exclude is not None:
            low, high = np.searchsorted(exclude[0], [start, start + block])
            rows = torch.from_numpy(exclude[0][low:high] - start).to(items.device)
            scores[rows, torch.from_numpy(exclude[1][low:high]).to(items.device)] = -torch.inf
        best, chosen = top_k(scores, min(k, len(items)))
        best, chosen = best.cpu().numpy(), chosen.cpu().numpy()
        rows, places = np.nonzero(best > -np.inf)
        found.append((rows + start, chosen[rows, places], best[rows, places], places + 1))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64)
    rows, chosen, best, ranks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, chosen, best, ranks


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, equal ones by position: (rows, k) values and positions."""
    best = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    values, places = best.values[:, :k], best.indices[:, :k]
    if best.values.shape[1] > k > 0:  # topk takes any of those that are equal to the last
        last = values[:, -1]
        tied = ((last == best.values[:, k]) & (last > -torch.inf)).nonzero().squeeze(1)
        if len(tied):
            places[tied] = _first_of_equal(scores[tied], last[tied].unsqueeze(1), k)
    places = torch.sort(places, dim=1).values
    values = scores.gather(1, places)
    descending = torch.sort(values, dim=1, descending=True, stable=True)
    return descending.values, places.gather(1, descending.indices)


def _first_of_equal(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """(rows, k) places of the scores above `last: (rows, 1)` and of the first of those equal to it."""
    greater, equal = scores > last, scores == last
    room = k - greater.sum(1, keepdim=True)
    return (greater | (equal & (equal.cumsum(1) <= room))).nonzero()[:, 1].view(-1, k)

"""Representations of many rows by the two towers, in blocks of bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anyrec.data.ids import Side
from anyrec.model.towers import Columns, Model

ROWS_AT_A_TIME = 4096


def represent_rows(
    model: Model,
    side: Side,
    columns: Columns,
    count: int,
    rows: np.ndarray | None = None,
    item_vectors: Tensor | None = None,
) -> Tensor:
    """Return what the interaction reads: (rows, dim), or (rows, features, dim).

    Args:
        model: The towers.
        side: Which tower encodes the rows.
        columns: Prepared features of `count` records.
        count: Number of records.
        rows: (rows,) which of them; by default all.
        item_vectors: (items, dim) as `vectors_for_histories` returns them, for users whose features are made of histories.
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
    """Return the feature vectors (rows, features, dim) before fusion, absent ones replaced; arguments as of `represent_rows`."""
    tower, parts = model.tower(side), []
    for part in _blocks(model, count, rows):
        given = None if item_vectors is None else model.read_histories(side, columns, part, item_vectors)
        parts.append(tower.filled_tokens(columns, part, given))
    return torch.cat(parts)


def vectors_for_histories(model: Model, columns: Columns, represented: Tensor) -> Tensor | None:
    """Return (items, dim), the item tower's vectors that histories are made of; None if no feature is.

    Args:
        model: The towers.
        columns: Prepared features of the items.
        represented: (items, ...) what the interaction reads of the items, which often is the same.
    """
    if not model.has_history:
        return None
    return represented if model.interaction.reads == "vectors" else tower_vectors(model, columns, len(represented))


def tower_vectors(model: Model, columns: Columns, count: int) -> Tensor:
    """Return (items, dim), what the item tower makes of its first `count` rows."""
    return torch.cat([model.item(columns, part) for part in _blocks(model, count, None)])


def _blocks(model: Model, count: int, rows: np.ndarray | None) -> tuple[Tensor, ...]:
    """Return `rows`, or all `count`, on the model's device in blocks."""
    index = torch.arange(count, device=model.device) if rows is None else torch.from_numpy(rows).to(model.device)
    return index.split(ROWS_AT_A_TIME)

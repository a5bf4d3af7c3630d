"""Representations of many rows by the two towers, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from anyrec.core.time_limit import check_time
from anyrec.data.ids import Side
from anyrec.model.towers import Columns
from anyrec.model.two_tower_network import TwoTower

ROWS_AT_A_TIME = 4096
"""Rows in one block, which bounds the memory of activations."""


def represent_rows(
    scorer: TwoTower,
    side: Side,
    columns: Columns,
    count: int,
    rows: np.ndarray | None = None,
    item_vectors: Tensor | None = None,
) -> Tensor:
    """Return what the interaction reads: (rows, dim), or (rows, features, dim).

    Args:
        scorer: The towers.
        side: Which tower encodes the rows.
        columns: Prepared features of `count` records.
        count: Number of records.
        rows: (rows,) which of them; by default all.
        item_vectors: (items, dim) as `vectors_for_histories` returns them; needed for users with histories.
    """
    return torch.cat([scorer.represent(side, columns, part, item_vectors) for part in _blocks(scorer, count, rows)])


def token_rows(
    scorer: TwoTower,
    side: Side,
    columns: Columns,
    count: int,
    rows: np.ndarray | None = None,
    item_vectors: Tensor | None = None,
) -> Tensor:
    """Return the vectors (rows, features, dim) before fusion; missing features have their learned default vector.

    Arguments as for `represent_rows`.
    """
    tower, parts = scorer.tower(side), []
    for part in _blocks(scorer, count, rows):
        histories = None if item_vectors is None else scorer.read_histories(side, columns, part, item_vectors)
        parts.append(tower.filled_tokens(columns, part, histories))
    return torch.cat(parts)


def vectors_for_histories(scorer: TwoTower, columns: Columns, represented: Tensor) -> Tensor | None:
    """Return the vectors (items, dim) of the item tower that histories are encoded from; None if no feature needs them.

    Args:
        scorer: The towers.
        columns: Prepared features of the items.
        represented: (items, ...) what the interaction reads of the items; returned if it is the tower's output.
    """
    if not scorer.has_history:
        return None
    return represented if scorer.interaction.reads == "vectors" else tower_vectors(scorer, columns, len(represented))


def tower_vectors(scorer: TwoTower, columns: Columns, count: int) -> Tensor:
    """Return (items, dim), the item tower's vectors of the first `count` rows of `columns`."""
    return torch.cat([scorer.item.encode(columns, part) for part in _blocks(scorer, count, None)])


def _blocks(scorer: TwoTower, count: int, rows: np.ndarray | None) -> Iterator[Tensor]:
    """Yield `rows`, by default all `count` rows, in blocks on the model's device."""
    index = torch.arange(count, device=scorer.device) if rows is None else torch.from_numpy(rows).to(scorer.device)
    for part in index.split(ROWS_AT_A_TIME):
        check_time()
        yield part

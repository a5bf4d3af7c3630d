"""Row limits, and fewest interactions a user and an item must have, repeated until stable."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.dataset import Dataset


def apply_limits(dataset: Dataset, options: DataConfig) -> Dataset:
    """The dataset within the options' bounds, with what was dropped said in its notes. Raises DataError if nothing is left."""
    users, items = dataset.users[: options.max_users], dataset.items[: options.max_items]
    kept = (dataset.user_rows < len(users)) & (dataset.item_rows < len(items))
    notes = list(dataset.notes)
    if not kept.all():
        notes.append(f"{int((~kept).sum()):,} interactions were dropped: their user or item is past the row limits.")
    if options.max_interactions is not None and kept.sum() > options.max_interactions:
        kept[np.flatnonzero(kept)[options.max_interactions :]] = False
        notes.append(f"Only the first {options.max_interactions:,} interactions are kept (data.max_interactions).")
    core = k_core(
        dataset.user_rows, dataset.item_rows, kept, options.min_user_interactions, options.min_item_interactions
    )
    if core.sum() < kept.sum():
        notes.append(f"{int(kept.sum() - core.sum()):,} interactions were dropped: too few for their user or item.")
    if len(core) and not core.any():
        raise DataError(
            Fault(
                "data",
                "the limits of the config leave no interaction.",
                "Lower data.min_user_interactions and its like.",
                "empty data",
            )
        )
    if options.min_user_interactions:
        users = _with_interactions(users, dataset.user_rows[core])
    if options.min_item_interactions:
        items = _with_interactions(items, dataset.item_rows[core])
    if core.all() and len(users) == len(dataset.users) and len(items) == len(dataset.items):
        return dataset
    return Dataset(users, items, dataset.interactions.filter(pa.array(core)), dataset.root, dataset.roles, notes)


def k_core(users: np.ndarray, items: np.ndarray, kept: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """(interactions,) bool: those of `kept` whose user and item have enough of them, and still do without the others."""
    kept = kept.copy()
    while True:
        few = np.zeros_like(kept)
        for rows, least in ((users, min_user), (items, min_item)):
            few |= np.bincount(rows[kept], minlength=rows.max(initial=-1) + 1)[rows] < least
        if not (few & kept).any():
            return kept
        kept &= ~few


def _with_interactions(table: pa.Table, rows: np.ndarray) -> pa.Table:
    return table.take(pa.array(np.unique(rows)))

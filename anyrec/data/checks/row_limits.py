"""Limits on the number of rows, and on how many interactions a user and an item must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.scratch import filtered
from anyrec.data.tables import Tables


def apply_limits(tables: Tables, options: DataConfig) -> Tables:
    """Cut tables to the limits of the options, and note what was dropped.

    `max_users`, `max_items` and `max_interactions` keep the first rows. `min_user_interactions` and
    `min_item_interactions` are applied until no user and no item has fewer.

    Raises:
        DataError: If no interaction is left.
    """
    if not _has_limits(options):
        return tables
    users, items = tables.users[: options.max_users], tables.items[: options.max_items]
    kept = (tables.user_rows < len(users)) & (tables.item_rows < len(items))
    notes = list(tables.notes)
    if not kept.all():
        notes.append(f"{int((~kept).sum()):,} interactions were dropped: their user or item is past the row limits.")
    if options.max_interactions is not None and kept.sum() > options.max_interactions:
        kept[np.flatnonzero(kept)[options.max_interactions :]] = False
        notes.append(f"Only the first {options.max_interactions:,} interactions are kept (data.max_interactions).")
    core = k_core(
        tables.user_rows, tables.item_rows, kept, options.min_user_interactions, options.min_item_interactions
    )
    if core.sum() < kept.sum():
        notes.append(f"{int(kept.sum() - core.sum()):,} interactions were dropped: too few for their user or item.")
    if len(core) and not core.any():
        what, hint = "the limits of the config leave no interaction.", "Lower data.min_user_interactions and its like."
        raise DataError(Fault("data", what, hint, "empty data"))
    if options.min_user_interactions:
        users = _with_interactions(users, tables.user_rows[core])
    if options.min_item_interactions:
        items = _with_interactions(items, tables.item_rows[core])
    if core.all() and len(users) == len(tables.users) and len(items) == len(tables.items):
        return tables
    interactions = filtered(tables.interactions, core, tables.scratch)
    return replace(tables, users=users, items=items, interactions=interactions, notes=notes)


def k_core(users: np.ndarray, items: np.ndarray, kept: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Drop interactions of users and items that have too few, until all that are left have enough.

    Args:
        users: (interactions,) User rows.
        items: (interactions,) Item rows.
        kept: (interactions,) bool, the interactions to choose from.
        min_user: The fewest interactions of a user.
        min_item: The fewest interactions of an item.

    Returns:
        (interactions,) bool.
    """
    kept = kept.copy()
    while True:
        few = np.zeros_like(kept)
        for rows, least in ((users, min_user), (items, min_item)):
            few |= np.bincount(rows[kept], minlength=rows.max(initial=-1) + 1)[rows] < least
        if not (few & kept).any():
            return kept
        kept &= ~few


def _has_limits(options: DataConfig) -> bool:
    most = (options.max_users, options.max_items, options.max_interactions)
    return any(limit is not None for limit in most) or bool(
        options.min_user_interactions or options.min_item_interactions
    )


def _with_interactions(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return the given rows of a table, each once."""
    return table.take(pa.array(np.unique(rows)))

"""Features of users and items that reveal held-out interactions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.config import DataConfig
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side, rows_of
from anyrec.data.split import Split

PAIRS: tuple[tuple[Side, Side], ...] = (("user", "item"), ("item", "user"))


def drop_leaks(dataset: Dataset, split: Split, config: DataConfig) -> tuple[Dataset, list[str]]:
    """Drop lists of ids that name held-out items.

    A feature leaks if it names the held-out partner in more than `leak_share` of the held-out pairs: a list of ids by
    containing the id, a text by containing the partner's title or id of four or more characters. Lists are dropped if
    `drop_leaks` is set.

    Args:
        dataset: The data.
        split: The held-out interactions.
        config: The config's `data` section.

    Returns:
        The dataset without the lists, and a warning for every leak.
    """
    held_out = np.concatenate([split.validation, split.test])
    warnings: list[str] = []
    tables = {"user": dataset.users, "item": dataset.items}
    for side, other in PAIRS:
        for name in dataset.features(side):
            share = leak_share(dataset, side, other, name, held_out)
            if share <= config.leak_share:
                continue
            warning = f"LEAK: the {side} feature '{name}' names the held-out {other} in {share:.0%}"
            warning += " of the held-out interactions"
            if config.drop_leaks and not name.startswith("text."):
                tables[side] = tables[side].drop_columns([name])
                warning += "; it is dropped ('drop_leaks': false keeps it)."
            else:
                warning += ": the metrics below are too high."
            warnings.append(warning)
    if not warnings:
        return dataset, []
    return dataset.with_features(users=tables["user"], items=tables["item"]), warnings


def leak_share(dataset: Dataset, side: Side, other: Side, name: str, held_out: np.ndarray) -> float:
    """Return the fraction of held-out interactions whose partner a feature reveals.

    Args:
        dataset: The data.
        side: The side that has the feature.
        other: The side of the partners.
        name: The column of the feature.
        held_out: (rows,) Interactions.
    """
    column = dataset.table(side).column(name).combine_chunks()
    if not len(held_out):
        return 0.0
    owners = (dataset.user_rows if side == "user" else dataset.item_rows)[held_out]
    partners = (dataset.item_rows if side == "user" else dataset.user_rows)[held_out]
    if name.startswith("text."):
        return _text_share(dataset, other, column, owners, partners)
    if not pa.types.is_list(column.type):
        return 0.0
    values = column.flatten()
    named = rows_of(values, dataset.ids(other)) if _may_be_ids(values.type, dataset.ids(other).type) else None
    if named is None or not (named >= 0).any():
        return 0.0
    keys = pc.list_parent_indices(column).to_numpy() * np.int64(len(dataset.table(other))) + named
    wanted = owners.astype(np.int64) * len(dataset.table(other)) + partners
    return float(np.isin(wanted, keys[named >= 0]).mean())


def _may_be_ids(values: pa.DataType, ids: pa.DataType) -> bool:
    """Return whether values of one type can be ids of another: both whole numbers, or both texts."""
    return (pa.types.is_integer(values) and pa.types.is_integer(ids)) or (
        pa.types.is_string(values) and pa.types.is_string(ids)
    )


SAMPLE = 2000
"""Held-out pairs, evenly spaced, whose texts are searched: a substring search has no vectorised form."""


def _text_share(dataset: Dataset, other: Side, column: pa.Array, owners: np.ndarray, partners: np.ndarray) -> float:
    """Return the fraction of a sample of pairs whose owner's text contains the partner's id or title."""
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, "\n")
    chosen = np.linspace(0, len(owners) - 1, min(SAMPLE, len(owners))).astype(np.int64)
    texts = pc.utf8_lower(pc.fill_null(column, "")).take(pa.array(owners[chosen])).to_pylist()
    found = np.zeros(len(chosen), bool)
    for names in _names(dataset, other):
        wanted = pc.utf8_lower(pc.fill_null(names, "")).take(pa.array(partners[chosen])).to_pylist()
        found |= [len(name) >= 4 and name in text for name, text in zip(wanted, texts, strict=True)]
    return float(found.mean())


def _names(dataset: Dataset, side: Side) -> list[pa.Array]:
    """Return the columns that a text may call a record by: its id, and its title or name."""
    table = dataset.table(side)
    columns = [dataset.ids(side).cast(pa.string())]
    for name in ("text.title", "text.name"):
        if name in table.column_names and pa.types.is_string(table.schema.field(name).type):
            columns.append(table.column(name).combine_chunks())
    return columns

"""Counts and bounds of tables: each figure that `describe` prints and that findings quote is computed here, once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.ids import Side
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.sorting import distinct
from anyrec.data.tables import Tables


class Numbers(NamedTuple):
    """The finite numbers of a column of the interactions. values: (known,) float64. missing: Rows without one."""

    values: np.ndarray
    missing: int

    def span(self) -> str:
        """Return the least and the greatest value, as `1 to 5`."""
        return f"{self.values.min():g} to {self.values.max():g}"


class Activity(NamedTuple):
    """The interactions of each record of one side. counts: (records,)."""

    counts: np.ndarray

    @property
    def median(self) -> float:
        """The median over all records, those without interactions included."""
        return float(np.median(self.counts)) if len(self.counts) else 0.0


def distinct_pairs(tables: Tables) -> int:
    """Return the number of user-item pairs that have an interaction."""
    return len(distinct(tables.user_rows * len(tables.items) + tables.item_rows))


def repeated_pairs(tables: Tables) -> int:
    """Return the number of interactions that repeat the user and the item of another row."""
    return len(tables.interactions) - distinct_pairs(tables)


def filled_share(tables: Tables) -> float:
    """Return the fraction of all user-item pairs that have an interaction."""
    return distinct_pairs(tables) / max(1, len(tables.users) * len(tables.items))


def activity(tables: Tables, side: Side) -> Activity:
    """Return how many interactions each user or each item has."""
    return Activity(np.bincount(tables.rows(side), minlength=len(tables.table(side))))


def numbers(tables: Tables, name: str) -> Numbers:
    """Return the numbers of a column of the interactions; none if no interaction has it."""
    column = tables.column(name)
    if column is None:
        return Numbers(np.empty(0), len(tables.interactions))
    values = column.drop_null().cast(pa.float64()).to_numpy(zero_copy_only=False)
    values = values[np.isfinite(values)]
    return Numbers(values, len(tables.interactions) - len(values))


def value_counts(tables: Tables, name: str) -> tuple[dict[str, int], int]:
    """Return how often each value of a column of the interactions occurs, most frequent first, and the rows without."""
    column = tables.column(name)
    if column is None:
        return {}, len(tables.interactions)
    known = column.filter(pc.invert(column.is_null(nan_is_null=pa.types.is_floating(column.type))))
    counted = pc.value_counts(known)
    pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))), len(column) - len(known)


def time_bounds(tables: Tables) -> tuple[pa.Scalar, pa.Scalar] | None:
    """Return the first and the last timestamp; None if no interaction has one."""
    column = tables.column("timestamp")
    if column is None or column.null_count == len(column):
        return None
    bounds = pc.min_max(column)
    return bounds["min"], bounds["max"]


def share_present(present: np.ndarray) -> float:
    """Return the fraction of records that have a feature. present: (records,) bool, as `is_present` returns it."""
    return float(present.mean()) if len(present) else 0.0


def distinct_values(column: pa.Array) -> tuple[int, int]:
    """Return how many different values a column has, those of lists one by one, and how many values it has in all."""
    values = flat_with_nulls(column)[0]
    values = values.filter(pa.array(is_present(values)))
    return len(values.unique()), len(values)


def is_present(column: pa.Array) -> np.ndarray:
    """Return (rows,) bool, which values are neither null, NaN, blank, nor an empty list."""
    if pa.types.is_list(column.type):
        present = pc.greater(pc.list_value_length(column), 0)
    elif pa.types.is_string(column.type):
        present = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)
    else:
        present = pc.invert(column.is_null(nan_is_null=pa.types.is_floating(column.type)))
    return pc.fill_null(present, False).to_numpy(zero_copy_only=False)


def is_plain(kind: pa.DataType) -> bool:
    """Return whether Arrow can compare values of this type."""
    return pa.types.is_primitive(kind) or pa.types.is_string(kind)

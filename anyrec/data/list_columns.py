"""Columns of lists as flat values and the rows they belong to."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def flat(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The values of a column, those of lists one after another, without nulls; and (values,) the row of each."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        values, owners = (
            column.flatten(),
            np.repeat(np.arange(len(column)), lengths),
        )  # as flatten: none under a null list
    else:
        values, owners = column, np.arange(len(column))
    if values.null_count:
        owners = owners[values.is_valid().to_numpy(zero_copy_only=False)]
        values = values.drop_null()
    return values, owners


def offsets_of(owners: np.ndarray, rows: int) -> np.ndarray:
    """(rows + 1,) int64 offsets of values whose rows, ascending, are `owners: (values,)`."""
    return np.searchsorted(owners, np.arange(rows + 1)).astype(np.int64)

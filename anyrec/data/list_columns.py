"""Columns of lists: their values one after another, and the rows that the values belong to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def flat(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Flatten a column of lists or of single values.

    Args:
        column: (rows,) Lists or single values.

    Returns:
        (values,) the values without nulls, those of lists one after another; and (values,) int64, the row of each.
    """
    values, owners = flat_with_nulls(column)
    if values.null_count:
        owners = owners[values.is_valid().to_numpy(zero_copy_only=False)]
        values = values.drop_null()
    return values, owners


def flat_with_nulls(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return what `flat` does with the nulls among the values; a list that is null has no value."""
    if is_list(column.type):
        return column.flatten(), np.repeat(np.arange(len(column)), lengths_of(column))
    return column, np.arange(len(column))


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; without a copy if it has one chunk, unlike `combine_chunks`."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def blocks_of_lists(column: pa.Array, size: int) -> Iterator[slice]:
    """Yield consecutive slices of the rows whose lists have about `size` values, or one row if its list is longer."""
    ends, start = np.cumsum(lengths_of(column)), 0
    while start < len(column):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + size, side="right")))
        yield slice(start, end)
        start = end


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def lengths_of(column: pa.Array) -> np.ndarray:
    """Return (rows,) the length of each list, 0 for a null: `flatten` drops what lies under nulls."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)


def as_lists(values: pa.Array, lengths: np.ndarray, missing: pa.Array) -> pa.Array:
    """Group values into lists.

    Args:
        values: (values,) Any type.
        lengths: (rows,) How many of the values each list takes, in order.
        missing: (rows,) bool, the rows that are null.

    Returns:
        (rows,) list<type of the values>.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=missing)


def offsets_of(owners: np.ndarray, rows: int) -> np.ndarray:
    """Return the offsets of values that belong to ascending rows.

    Args:
        owners: (values,) The row of each value, ascending.
        rows: The number of rows.

    Returns:
        (rows + 1,) int64: the values of row r are those from offset r to offset r + 1.
    """
    return np.searchsorted(owners, np.arange(rows + 1)).astype(np.int64)

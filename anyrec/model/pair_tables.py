"""Pairs of users and items, and the predictions for them, as Arrow tables. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.values import show
from anyrec.data.formats.frames import as_arrow, is_table
from anyrec.data.ids import SIDES, Side
from anyrec.data.partial import read_partial


def pair_table(pairs: object) -> pa.Table:
    """Read pairs of ids.

    Args:
        pairs: A table or a list of dicts with user_id and item_id.

    Raises:
        DataError: If it is something else, or a column is missing.
    """
    hint = "Give the columns user_id and item_id."
    if is_table(pairs):
        table = as_arrow(pairs)
    elif isinstance(pairs, list) and all(isinstance(one, dict) for one in pairs):
        table = read_partial({"interactions": pairs}, DataConfig(), {}).interactions
    else:
        what = f"expected a table or a list of dicts; found {show(pairs)}."
        raise DataError(Fault("pairs", what, hint, "shape"))
    missing = [name for name in ("user_id", "item_id") if name not in table.column_names]
    if missing:
        what = f"the column {' and '.join(missing)} is missing; found {', '.join(table.column_names) or 'none'}."
        raise DataError(Fault("pairs", what, hint, "shape"))
    return table


def scored_table(
    pairs: object,
    rows_of: Callable[[Side, pa.ChunkedArray], np.ndarray],
    score_rows: Callable[[np.ndarray, np.ndarray], Mapping[str, pa.Array]],
) -> pa.Table:
    """Return pairs of known users and items with a column for each prediction.

    Args:
        pairs: As for `pair_table`.
        rows_of: Returns the rows of ids of a side; raises DataError for unknown ones.
        score_rows: Returns the predictions, (pairs,) each, for user rows and item rows (pairs,).

    Raises:
        DataError: As `pair_table` and `rows_of` do.
    """
    table = pair_table(pairs)
    users, items = (rows_of(side, table.column(f"{side}_id")) for side in SIDES)
    for name, values in score_rows(users, items).items():
        table = table.append_column(name, values)
    return table


def prediction_column(values: np.ndarray, classes: list[str]) -> pa.Array:
    """Return predictions as a column.

    Args:
        values: (rows,) numbers, or (rows, width).
        classes: Names of the classes that the width stands for; empty if it has none.

    Returns:
        (rows,) numbers; for classes structs of the probability of each, and without names lists of numbers.
    """
    if classes:
        return pa.StructArray.from_arrays([pa.array(column) for column in values.T], classes)
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(pa.float32()))

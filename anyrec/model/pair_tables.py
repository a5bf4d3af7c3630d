"""Pairs of users and items, and the predictions for them, as Arrow tables. Nothing here loads torch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.core.values import show
from anyrec.data.formats.frames import as_arrow, is_table
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

"""The values of a feature as codes, so that features of all types can be compared with outcomes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.list_columns import flat_with_nulls
from anyrec.data.summary import is_plain, is_present

BINS = 20
"""The most bins of numbers."""


def value_codes(dataset: Dataset, side: Side, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the values of a feature as codes. Numbers are in bins; an absent value has a code of its own.

    Returns:
        (values,) the record of each value, and (values,) its code; None for a feature without values to compare
        (sequences, images, nested columns).
    """
    column = dataset.table(side).column(name).combine_chunks()
    flat, owners = flat_with_nulls(column)
    if name.startswith(("temporal.", "image.")) or not is_plain(flat.type):
        return None
    present = is_present(flat)
    if pa.types.is_floating(flat.type):
        numbers = flat.fill_null(0.0).to_numpy(zero_copy_only=False)
        edges = np.unique(np.quantile(numbers[present], np.linspace(0, 1, BINS + 1))) if present.any() else []
        codes = np.searchsorted(edges, numbers, side="right")
    else:
        codes = flat.dictionary_encode("encode").indices.to_numpy()
    codes = np.where(present, codes + 1, 0)
    absent = np.setdiff1d(np.arange(len(column)), owners)
    return np.append(owners, absent), np.append(codes, np.zeros(len(absent), np.int64))

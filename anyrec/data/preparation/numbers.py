"""Numbers, standardised by the mean and the deviation of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import PreparedColumn


def standardised(column: pa.Array, mean: Sequence[float], deviation: Sequence[float], clip: float) -> PreparedColumn:
    """Standardise and limit the numbers.

    Args:
        column: (records,) numbers, or lists of them.
        mean: (width,) the means.
        deviation: (width,) the standard deviations.
        clip: Number of deviations from the mean that numbers are limited to.

    Returns:
        (records, width) float32. A record is absent if a number is missing or not finite, or if its list has another
        length than `width`.
    """
    values, present = numbers(column, len(mean))
    scaled = scale(np.where(present[:, None], values, 0.0), mean, deviation, clip)
    return PreparedColumn(np.where(present[:, None], scaled, 0.0).astype(np.float32), present)


def scale(values: np.ndarray, mean: Sequence[float], deviation: Sequence[float], clip: float) -> np.ndarray:
    """Return `values: (records, width)` standardised and limited; other arguments as of `standardised`."""
    return np.clip((values - np.array(mean)) / np.array(deviation), -clip, clip)


def scaling_of(state: dict[str, Any], width: int) -> tuple[list[float], list[float]]:
    """Return `mean` and `deviation` of a saved state.

    Raises:
        ValueError: If either is not `width` finite numbers, or a deviation is not above 0.
    """
    mean, deviation = (np.asarray(state[name], np.float64) for name in ("mean", "deviation"))
    finite = np.isfinite(mean).all() and np.isfinite(deviation).all()
    if mean.shape != (width,) or deviation.shape != (width,) or not finite or (deviation <= 0).any():
        raise ValueError(f"mean and deviation of {width} finite numbers were expected")
    return mean.tolist(), deviation.tolist()


def list_width(column: pa.Array) -> int:
    """Return how many numbers a record has: 1, or the most frequent length of the column's lists."""
    if not pa.types.is_list(column.type):
        return 1
    lengths = pc.list_value_length(column).drop_null()
    return max(1, int(pc.mode(lengths)[0]["mode"].as_py())) if len(lengths) else 1


def numbers(column: pa.Array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of numbers or of lists of numbers.

    Args:
        column: (records,).
        width: Numbers that a record must have.

    Returns:
        (records, width) float64, zeros for the other records; and (records,) bool, which records have `width` finite
        numbers.
    """
    rows = len(column)
    values = np.zeros((rows, width))
    if pa.types.is_list(column.type):
        whole = pc.fill_null(pc.equal(pc.list_value_length(column), width), False).to_numpy(zero_copy_only=False)
        flat = column.filter(pa.array(whole)).flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        values[whole] = flat.reshape(-1, width)
    elif width == 1:
        values[:, 0] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        whole = np.ones(rows, bool)
    else:
        whole = np.zeros(rows, bool)
    present = whole & np.isfinite(values).all(1)
    values[~present] = 0.0
    return values, present

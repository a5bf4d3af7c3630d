"""Checks of the keys and vectors that callers pass to an index."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from anyrec.core.errors import DataError, Fault

Metric = Literal["dot", "cosine"]
METRICS = get_args(Metric)


def checked_keys(keys: np.ndarray, count: int) -> np.ndarray:
    """Return the keys as an int64 array of their own.

    Args:
        keys: (count,) integers.
        count: The number of vectors that the keys belong to.

    Raises:
        DataError: If there is not one key for each vector, or if a key is negative or occurs twice.
    """
    keys = np.array(keys, np.int64)
    if keys.shape != (count,):
        raise DataError(Fault("keys", f"{keys.size} keys for {count} vectors.", "Give one key for each.", "shape"))
    if count and (keys.min() < 0 or len(np.unique(keys)) < count):
        raise DataError(Fault("keys", "a key is negative or occurs twice.", "Give distinct keys from 0 on.", "keys"))
    return keys


def checked_vectors(vectors: np.ndarray, dim: int, metric: Metric, what: str) -> np.ndarray:
    """Return the vectors as contiguous float32, of unit length if the metric is cosine.

    An array that needs no change is returned as it is.

    Args:
        vectors: (rows, dim), of any number type.
        dim: The expected dimension.
        metric: With "cosine" each vector is divided by its length; a zero vector stays zero.
        what: What the vectors are, for the error message.

    Returns:
        (rows, dim) float32.

    Raises:
        DataError: If the dimension is another one, or if a number is not finite.
    """
    vectors = np.require(vectors, np.float32, ["C", "W"])  # writable, because torch refuses read-only arrays
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        shape = " x ".join(map(str, vectors.shape))
        raise DataError(Fault(what, f"shape {shape}, but (rows, {dim}) was expected.", kind="shape"))
    if metric == "cosine" and len(vectors):
        # In float64, because the square of a float32 may overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        finite = np.isfinite(lengths)
        vectors = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    elif math.isfinite(vectors.sum(dtype=np.float64)):  # one pass without a mask: the usual case
        return vectors
    else:
        finite = np.isfinite(vectors.sum(1, dtype=np.float64))
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        number = f"{int((~finite).sum())} rows hold NaN or infinity."
        raise DataError(Fault(f"{what} row {first}", number, "Leave these rows out.", "nan"))
    return vectors

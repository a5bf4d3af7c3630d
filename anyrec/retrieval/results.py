"""What an index is given, checked; what a search gives back, and the small steps on the way there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from anyrec.core.errors import DataError, Fault


class SearchResult(NamedTuple):
    """keys: (queries, k) int64, best first, equal scores by key, -1 past the end; scores: (queries, k) float32, -inf there."""

    keys: np.ndarray
    scores: np.ndarray


def ordered(keys: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row, best first, equal scores by key: (queries, min(k, n))."""
    order = np.lexsort((keys, -scores), axis=-1)[:, :k]
    return np.take_along_axis(keys, order, 1), np.take_along_axis(scores, order, 1)


def first_ask(k: int, chances: np.ndarray, single: np.ndarray) -> np.ndarray:
    """(queries,) how many to ask for so that k are likely left; powers of two where queries differ, so that they form few groups.

    chances: (queries,) the share of what may come back that a query may have. single: (queries,) how many more are denied to it.
    """
    wanted = np.where(chances < 1, 1.2 * k / np.maximum(chances, 1e-6), k) + single
    if (wanted == wanted[0]).all():
        return wanted.astype(np.int64)
    return (2 ** np.ceil(np.log2(wanted))).astype(np.int64)


def put(keys: np.ndarray, scores: np.ndarray, rows: np.ndarray, found: np.ndarray, values: np.ndarray) -> None:
    width = found.shape[1]
    keys[rows, :width], scores[rows, :width] = found, values


def checked_keys(keys: np.ndarray, count: int) -> np.ndarray:
    keys = np.array(keys, np.int64)
    if keys.shape != (count,):
        raise DataError(Fault("keys", f"{keys.size} keys for {count} vectors.", "Give one each.", "shape"))
    if count and (keys.min() < 0 or len(np.unique(keys)) < count):
        raise DataError(Fault("keys", "a key is negative or there twice.", "Give distinct ones from 0 on.", "keys"))
    return keys


def checked_vectors(vectors: np.ndarray, dim: int, metric: str, what: str) -> np.ndarray:
    """(rows, dim) float32, contiguous; of unit length where the metric is cosine. Raises DataError for another dimension and for what is
    not finite."""
    vectors = np.require(vectors, np.float32, ["C", "W"])  # torch refuses what it may not write to
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        shape = " x ".join(map(str, vectors.shape))
        raise DataError(Fault(what, f"shape {shape}, where (rows, {dim}) was expected.", kind="shape"))
    if metric == "cosine" and len(vectors):
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        fine = np.isfinite(lengths)
        vectors = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    elif math.isfinite(vectors.sum(dtype=np.float64)):
        return vectors
    else:
        fine = np.isfinite(vectors.sum(1, dtype=np.float64))
    if not fine.all():
        bad = int(np.flatnonzero(~fine)[0])
        raise DataError(
            Fault(f"{what} row {bad}", f"{int((~fine).sum())} rows hold NaN or infinity.", "Leave them out.", "nan")
        )
    return vectors

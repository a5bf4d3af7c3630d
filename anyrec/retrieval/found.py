"""What a search of an index gives back, and the small steps on the way there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyrec.errors import DataError, Fault


class Found(NamedTuple):
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

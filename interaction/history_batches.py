"""Users in batches of histories of about the same length, so that padded histories waste little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from anyrec.core.types import SparseMatrix

CELLS = 16_000_000
"""Most numbers in the arrays of one batch of users: 64 MB of float32."""


class HistoryBatch(NamedTuple):
    """Some users with the items of their histories.

    Attributes:
        users: (batch,) rows of the matrix.
        items: (batch, longest) item rows; the number of items for padding.
    """

    users: np.ndarray
    items: np.ndarray


def history_batches(matrix: SparseMatrix, cells_of: Callable[[int], int]) -> Iterator[HistoryBatch]:
    """Yield all users with a history, the shortest histories first.

    Args:
        matrix: (users, items) CSR.
        cells_of: Returns how many numbers a user with a history of this length takes.
    """
    lengths = np.diff(matrix.indptr)
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    start = int((lengths == 0).sum())
    while start < len(order):
        stop = int(np.searchsorted(ordered, max(ordered[start] + 8, 1.2 * ordered[start]), side="right"))
        stop = min(stop, start + max(1, CELLS // cells_of(int(ordered[stop - 1]))))
        users = order[start:stop]
        longest = int(ordered[stop - 1])
        items = np.full((len(users), longest), matrix.shape[1])
        items[np.arange(longest) < lengths[users, None]] = matrix[users].indices
        yield HistoryBatch(users, items)
        start = stop

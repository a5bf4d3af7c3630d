"""Users in batches of histories of about the same length, so that padded histories waste little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from anyrec.data.pairs import Pairs

CELLS = 16_000_000
"""Most numbers in the arrays of one batch of users: 64 MB of float32."""


class HistoryBatch(NamedTuple):
    """Some users with the items of their histories.

    Attributes:
        users: (batch,) rows of the histories.
        items: (batch, longest) item rows; the number of items for padding.
    """

    users: np.ndarray
    items: np.ndarray


def history_batches(histories: Pairs, size: int, cells_of: Callable[[int], int]) -> Iterator[HistoryBatch]:
    """Yield all users with a history, the shortest histories first.

    Args:
        histories: The items of each user.
        size: The number of items.
        cells_of: Returns how many numbers a user with a history of this length takes.
    """
    lengths = histories.counts()
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    start = int((lengths == 0).sum())
    while start < len(order):
        stop = int(np.searchsorted(ordered, max(ordered[start] + 8, 1.2 * ordered[start]), side="right"))
        stop = min(stop, start + max(1, CELLS // cells_of(int(ordered[stop - 1]))))
        users = order[start:stop]
        longest = int(ordered[stop - 1])
        items = np.full((len(users), longest), size)
        items[np.arange(longest) < lengths[users, None]] = histories.take(users)[1]
        yield HistoryBatch(users, items)
        start = stop

"""The places of pairs in the histories of their users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyrec.data.pairs import Pairs


class Positions(NamedTuple):
    """The place of each pair in its user's history.

    Attributes:
        keys: (pairs,) int64, user row * number of items + item row, ascending.
        positions: (pairs,) int64, number of earlier pairs of the same user.
    """

    keys: np.ndarray
    positions: np.ndarray

    def recency(self, rows: np.ndarray, histories: Pairs, size: int, half_life: float) -> np.ndarray:
        """Return (pairs,) float32, the weight of each pair: half for each `half_life` pairs that the user had later.

        A pair that is not in `keys`, because it comes with a request, counts as the newest.

        Args:
            rows: (users,) user rows; -1 for a new user.
            histories: The pairs of these users.
            size: The number of items.
            half_life: Number of later pairs.
        """
        owners = histories.owners()
        keys = rows[owners].astype(np.int64) * size + histories.items
        at = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        found = self.keys[at] == keys if len(self.keys) else np.zeros(len(keys), bool)
        position = np.full(len(keys), np.iinfo(np.int64).max)
        position[found] = self.positions[at[found]]
        order = np.lexsort((position, owners))
        later = np.empty(len(keys), np.int64)
        later[order] = histories.offsets[owners + 1] - 1 - np.arange(len(keys))
        later[~found] = 0
        return (0.5 ** (later / half_life)).astype(np.float32)

"""Distinct user-item pairs, grouped by user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anyrec.data.sorting import begins_of, distinct


@dataclass(frozen=True)
class Pairs:
    """User-item pairs grouped by user (CSR): user u's items are `items[offsets[u]:offsets[u + 1]]`."""

    items: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(user_rows: np.ndarray, item_rows: np.ndarray, num_users: int) -> Pairs:
        """Distinct pairs, each user's items sorted."""
        return _grouped(distinct(user_rows.astype(np.int64) << 32 | item_rows.astype(np.int64)), num_users)

    @staticmethod
    def by_part(
        user_rows: np.ndarray, item_rows: np.ndarray, parts: np.ndarray, num_users: int
    ) -> tuple[Pairs, np.ndarray]:
        """Distinct pairs, and (pairs,) uint8 in which parts each occurs: bit n is set for part n.

        parts: (rows,) int, the part of each row, from 0 to 7.
        """
        # The part is in the lowest bits, so one sort brings the rows of each pair together: 29 bits remain for items.
        keys = user_rows.astype(np.int64, copy=False) << 32
        keys |= item_rows.astype(np.int64, copy=False) << 3
        keys |= parts
        keys.sort()
        bits = np.left_shift(np.uint8(1), keys.astype(np.uint8) & np.uint8(7))
        keys >>= 3
        begins = begins_of(keys)
        masks = np.bitwise_or.reduceat(bits, np.flatnonzero(begins)) if len(bits) else bits
        keys = keys[begins]
        items = keys & 0x1FFFFFFF
        keys >>= 29
        return Pairs(items, np.searchsorted(keys, np.arange(num_users + 1))), masks

    def take(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For `users: (batch,)`, the pairs as (position in the batch, item), both (pairs,)."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) + np.repeat(self.offsets[users] - starts, lengths)
        return np.repeat(np.arange(len(users)), lengths), self.items[positions]

    def counts(self) -> np.ndarray:
        """(users,) number of items of each user."""
        return np.diff(self.offsets)

    def owners(self) -> np.ndarray:
        """(pairs,) the user row of each pair, ascending."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())

    def keys(self) -> np.ndarray:
        """(pairs,) int64, each pair as one number, ascending."""
        return self.owners() << 32 | self.items.astype(np.int64)

    def where(self, kept: np.ndarray) -> Pairs:
        """The pairs for which `kept: (pairs,)` is true."""
        return Pairs(self.items[kept], np.searchsorted(np.flatnonzero(kept), self.offsets))

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(pairs,) bool: which of the pairs of rows `users: (pairs,)` and `items: (pairs,)` are among these."""
        return self.places(users, items) >= 0

    def places(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(pairs,) where each pair of rows stands among these, -1 for one that is not here."""
        mine, keys = self.keys(), users.astype(np.int64) << 32 | items.astype(np.int64)
        if not len(mine):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(mine, keys), len(mine) - 1)
        return np.where(mine[place] == keys, place, -1)


def _grouped(keys: np.ndarray, num_users: int) -> Pairs:
    """Return pairs from `keys: (pairs,)` int64, distinct pairs as numbers (`Pairs.keys`), ascending."""
    return Pairs(keys & 0xFFFFFFFF, np.searchsorted(keys, np.arange(num_users + 1) << 32))

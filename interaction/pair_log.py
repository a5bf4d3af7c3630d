"""Training pairs in the order of time, and what they say of items and histories at a moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from anyrec.core.contracts import TrainingMatrix
from anyrec.core.types import SparseMatrix
from anyrec.data.scoring.positions import Positions

HALF_LIVES = tuple(2.0**-power for power in range(1, 10))
"""Half-lives of the counts of recent pairs, as fractions of the number of all pairs."""
EARLY, EARLY_HALF_LIVES = 30, (2.0**-3, 2.0**-6)
"""Pairs at the beginning of each history that are counted separately: new users choose other items than old ones."""
SHORTEST = 2.0**-9
"""Unit of ages, as a fraction of the number of all pairs."""


class PairLog(NamedTuple):
    """Pairs in the order of time.

    Attributes:
        users: (pairs,) user rows.
        items: (pairs,) item rows.
        place: (pairs,) float64, the pair's place in time, 0 for the first; pairs of the same time share their mean.
        position: (pairs,) int64, number of earlier pairs of the same user.
        shape: Number of users and of items.
    """

    users: np.ndarray
    items: np.ndarray
    place: np.ndarray
    position: np.ndarray
    shape: tuple[int, int]

    @staticmethod
    def of(training: TrainingMatrix) -> PairLog:
        """Sort the training pairs by time; those of the same time by user, then item."""
        days = np.zeros(len(training.items)) if training.days is None else training.days
        order = np.argsort(days, kind="stable")
        users, items, days = training.users[order].astype(np.int64), training.items[order].astype(np.int64), days[order]
        place = (np.searchsorted(days, days) + np.searchsorted(days, days, side="right") - 1) / 2
        by_user = np.argsort(users, kind="stable")
        position = np.empty(len(users), np.int64)
        position[by_user] = np.arange(len(users)) - np.searchsorted(users[by_user], users[by_user])
        return PairLog(users, items, place, position, training.matrix.shape)

    def boundary(self, fraction: float) -> int:
        """Return the number of pairs before the time of the pair at a fraction of all pairs."""
        at = min(int(fraction * len(self.place)), len(self.place) - 1)
        return int(np.searchsorted(self.place, self.place[at])) if at >= 0 else 0

    def between(self, start: int, end: int) -> PairLog:
        """Return the pairs from number `start` until before number `end`."""
        part = slice(start, end)
        return PairLog(self.users[part], self.items[part], self.place[part], self.position[part], self.shape)

    def matrix(self) -> SparseMatrix:
        """Return (users, items) CSR float32, 1 for each pair."""
        return sparse.csr_matrix((np.ones(len(self.users), np.float32), (self.users, self.items)), self.shape)

    def positions(self) -> Positions:
        """Return the place of each pair in its user's history."""
        keys = self.users * self.shape[1] + self.items
        order = np.argsort(keys)
        return Positions(keys[order], self.position[order])

    def last_places(self) -> np.ndarray:
        """Return (users,) float64, the place of each user's last pair; -inf for a user without pairs."""
        last = np.full(self.shape[0], -np.inf)
        np.maximum.at(last, self.users, self.place)
        return last

    def item_features(self, total: int) -> np.ndarray:
        """Return (items, 14) float32, what the pairs say of each item after the last of them.

        Logarithms of 1 + x, with these x: the count of pairs with each of HALF_LIVES, the count of all pairs, the age,
        the time since the last pair, and the count of pairs among the first 30 of each history with each of
        EARLY_HALF_LIVES. Time is measured in pairs, ages in `SHORTEST * total`. An item without pairs has age 0, and a
        last pair before all others.

        Args:
            total: Number of pairs that half-lives are fractions of.
        """
        now, items, total = len(self.users), self.shape[1], max(total, 1)
        age = now - self.place
        early = self.position < EARLY
        first, last = np.full(items, float(now)), np.zeros(items)
        np.minimum.at(first, self.items, self.place)
        np.maximum.at(last, self.items, self.place)
        columns = [np.bincount(self.items, 0.5 ** (age / (share * total)), minlength=items) for share in HALF_LIVES]
        columns.append(np.bincount(self.items, minlength=items))
        columns += [(now - first) / (SHORTEST * total), (now - last) / (SHORTEST * total)]
        for share in EARLY_HALF_LIVES:
            weight = 0.5 ** (age[early] / (share * total))
            columns.append(np.bincount(self.items[early], weight, minlength=items))
        return np.log1p(np.stack(columns, 1)).astype(np.float32)

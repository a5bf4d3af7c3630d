"""The result of a search, and the order of its entries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SearchResult(NamedTuple):
    """The k nearest keys of each query.

    Attributes:
        keys: (queries, k) int64, best first; equal scores are ordered by key. -1 fills the row of a query with fewer
            than k results.
        scores: (queries, k) float32; -inf where the key is -1.

    Example:
        keys, scores = index.search(queries, k=10)
    """

    keys: np.ndarray
    scores: np.ndarray

    def __repr__(self) -> str:
        queries, k = self.keys.shape
        return f"SearchResult({queries:,} queries, {k:,} results each)"

    @classmethod
    def empty(cls, queries: int, k: int) -> SearchResult:
        """A result without any key: (queries, k)."""
        return cls(np.full((queries, k), -1), np.full((queries, k), -np.inf, np.float32))

    def best(self, k: int) -> SearchResult:
        """Return the k best of each row in order: (queries, min(k, width))."""
        order = np.lexsort((self.keys, -self.scores), axis=-1)[:, :k]
        return SearchResult(np.take_along_axis(self.keys, order, 1), np.take_along_axis(self.scores, order, 1))

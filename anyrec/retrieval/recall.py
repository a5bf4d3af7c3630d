"""Recall of an index: the fraction of the truly nearest vectors that a search finds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyrec.retrieval.index import Index

K = 10
"""Recall is measured for the 10 nearest, as recall@10."""
TIE = 1e-5
"""Scores that differ from the k-th best by at most this fraction of it count as found: they are the same product,
summed in another order, or a tie."""


class TrueNearest(NamedTuple):
    """Queries, and how good the k nearest vectors of each are.

    Attributes:
        queries: (queries, dim) float32, checked.
        kth_scores: (queries,) float32, the k-th best score of each by exact search. A search that returns k scores at
            least as high has found the k nearest, also if several vectors have this score.
        k: The number of nearest vectors; all of them if the index holds fewer.
    """

    queries: np.ndarray
    kth_scores: np.ndarray
    k: int

    def part(self, start: int | None, stop: int | None) -> TrueNearest:
        """Return the queries from `start` to `stop`."""
        return TrueNearest(self.queries[start:stop], self.kth_scores[start:stop], self.k)


def true_nearest(index: Index, queries: np.ndarray, k: int = K) -> TrueNearest:
    """Search exactly, by comparing every vector.

    Args:
        index: An index of at least one vector.
        queries: (queries, dim).
        k: The number of nearest vectors.
    """
    k = min(k, index.store.count)
    return TrueNearest(index.checked(queries, "queries"), index.scan(queries, k).scores[:, -1], k)


def held_out_queries(index: Index, count: int) -> np.ndarray:
    """Return at most `count` queries to measure recall with: (queries, dim).

    They are drawn from the examples that `Index.build` was given. Without examples they are sums of two vectors of the
    index: a vector itself would be found more easily than real queries are.
    """
    rng, examples = np.random.default_rng(0), index.examples
    if examples is None:
        alive = index.store.vectors[index.store.keys >= 0]
        examples = alive[rng.integers(len(alive), size=count)] + alive[rng.integers(len(alive), size=count)]
    return examples[rng.permutation(len(examples))[:count]]


def recalls(index: Index, truth: TrueNearest) -> np.ndarray:
    """Return the fraction of the k nearest that a search finds, for each query: (queries,)."""
    found = index.search(truth.queries, truth.k).scores
    return (found >= truth.kth_scores[:, None] - TIE * np.abs(truth.kth_scores[:, None])).sum(1) / truth.k


def recall(index: Index, truth: TrueNearest) -> float:
    """Return the mean of `recalls`."""
    return float(recalls(index, truth).mean())

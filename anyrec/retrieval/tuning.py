"""Choice of an index's search width and norm weight, by trying them on queries that were held out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated

import numpy as np
from pydantic import Field

from anyrec.retrieval.index import NORM_WEIGHT_ROWS, Index
from anyrec.retrieval.recall import K, TrueNearest, held_out_queries, recall, recalls, true_nearest
from anyrec.retrieval.store import Store

NormWeight = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="Graphs by dot products: weight of the additional dimension that brings vectors to equal norms, "
        "from 0 (neighbours by dot product) to 1 (by distance); null chooses it by trying.",
    ),
]
"""The option of a graph backend for `NormAugmentation.weight`."""

QUERIES, FIRST_QUERIES = 500, 100
"""Queries that a recall is measured with; the first alone if they leave no doubt."""
START = 3
"""The first norm weight tried, in eighths: most vectors do best near 3/8."""
SAMPLE_ROWS = 20_000
"""Norm weights are tried on a tenth of the vectors, but on at most this many. Larger indexes need larger weights, so
the sample must not be much smaller than the index."""
NARROW_FRACTION = 150
"""Norm weights are tried at a search width of the sample's rows divided by this. A wider search misses little with any
weight, which shows no difference."""
WIDE = 10
"""A norm weight is also tried for this many times as many results, searched this many times as widely: missing edges to
low-norm vectors show only there. The weight that is best for the 10 nearest of 200,000 clustered vectors, 0.5, finds
0.89 to 0.91 of their 100 nearest at any width; 0.75 finds 0.99 (benchmarks/RESULTS.md)."""
FINE = 12
"""A search width is determined to within this fraction of it (1/12)."""


def tune_search_width(index: Index, first: int, last: int, target: float) -> None:
    """Set `index.search_width` to the smallest width that reaches a recall.

    Args:
        index: A built index.
        first: The smallest width.
        last: The largest width; set if none reaches the recall.
        target: The recall@10 to reach.
    """
    reaches = recall_test(index, target)

    def enough(width: int) -> bool:
        index.search_width = width
        return reaches()

    index.search_width = smallest(enough, first, last)


def recall_test(index: Index, target: float) -> Callable[[], bool]:
    """Return a function that tells whether the index, as it is when called, reaches a recall@10.

    The mean over the held-out queries must exceed the target by one standard error, so that other queries reach it as
    well.
    """
    truth = true_nearest(index, held_out_queries(index, QUERIES))

    def reaches() -> bool:
        found = recalls(index, truth.part(None, FIRST_QUERIES))
        if abs(found.mean() - target) <= 3 * _standard_error(found):
            found = np.concatenate([found, recalls(index, truth.part(FIRST_QUERIES, None))])
        return bool(found.mean() - _standard_error(found) >= target)

    return reaches


def smallest(enough: Callable[[int], bool], first: int, last: int) -> int:
    """Return nearly the smallest number that is enough, in few trials.

    The number is doubled until it is enough, then halved towards the largest one that was not.

    Args:
        enough: Whether a number is enough; larger ones then are, too.
        first: The smallest number tried.
        last: The largest number, returned untried if none below it is enough.
    """
    low, high = 0, first
    while high < last and not enough(high):
        low, high = high, min(2 * high, last)
    while low and high - low > max(1, high // FINE):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def best_norm_weight(index: Index, width_option: str) -> float:
    """Return the norm weight, in eighths, with which a graph of a sample of the vectors finds most.

    The quality of a weight is recall@10 of a narrow search plus recall@100 of a search ten times as wide. It is
    searched uphill from START in both directions, since it has one maximum but for chance.

    Args:
        index: The index to tune, its store filled; it need not be built.
        width_option: The name of the option for the search width.

    References:
        anyrec.retrieval.inner_product explains what the weight does.
    """
    count = min(len(index.store), max(NORM_WEIGHT_ROWS, len(index.store) // 10), SAMPLE_ROWS)
    rows = np.random.default_rng(0).permutation(len(index.store))[:count]
    vectors = index.store.vectors[np.sort(rows)]
    narrow, wide = _truths(index, vectors)

    @cache
    def quality(eighths: int) -> float:
        options = {"norm_weight": eighths / 8, width_option: max(K, len(vectors) // NARROW_FRACTION)}
        trial = type(index)(index.dim, index.metric, index.params.model_copy(update=options))
        trial.build(vectors)
        found = recall(trial, narrow)
        trial.search_width *= WIDE
        return found + recall(trial, wide)

    best = START
    for step in (1, -1):
        here = None
        while best != here:
            here = best
            # Two steps ahead, because now and then a graph is worse than its neighbours by chance.
            best = max((n for n in (here, here + step, here + 2 * step) if 0 <= n <= 8), key=quality)
    return best / 8


def _truths(index: Index, vectors: np.ndarray) -> tuple[TrueNearest, TrueNearest]:
    """The 10 and the WIDE * 10 nearest among `vectors`, for the held-out queries of the index."""
    sample = Index(index.dim, index.metric)  # of no backend: only scanned
    sample.store, sample.examples = Store(vectors, np.arange(len(vectors))), index.examples
    queries = held_out_queries(sample, QUERIES)
    return true_nearest(sample, queries), true_nearest(sample, queries, WIDE * K)


def _standard_error(found: np.ndarray) -> float:
    return float(found.std() / len(found) ** 0.5)

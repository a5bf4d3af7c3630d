"""What an index is worth: recall against exact search, size, and queries per second, on queries it was not tuned on."""

from __future__ import annotations

import time
from functools import cache
from typing import Annotated

import numpy as np
from pydantic import Field

from anyrec.retrieval.index import LIFTED, Index
from anyrec.retrieval.store import Store

Lift = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="Graphs by dot products: how much of what a vector lacks of the greatest length counts while its neighbours "
        "are chosen; by default found by trying.",
    ),
]
AT = 10
START = 3
"""Eighths: what most vectors want is near."""
SAMPLED = 20_000
"""The most vectors that a lift is tried on, which are a tenth: the more there are, the more lift they want."""
NARROW = 150
"""A lift is tried at a width of such a part of the vectors: where none misses much, none shows what it is worth."""
WIDE = 10
"""A lift must also serve where so many times as much is asked for, so many times as widely: what is short is found only then."""
FIRST, TRIED = 100, 500
"""Queries that a recall is tried on: the first alone where they leave no doubt."""
FINE = 12
"""The width is found to such a part of itself."""
ALONE_SECONDS = 1.0
"""The longest that queries are asked one at a time."""


def reaches(index: Index, held_out: tuple[np.ndarray, np.ndarray], recall: float) -> bool:
    """Whether the recall is reached on `index.held_out` queries, with a standard error to spare for others."""
    queries, kth = held_out
    found = index.recalls_of(queries[:FIRST], kth[:FIRST])
    if abs(found.mean() - recall) <= 3 * _standard_error(found):
        found = np.concatenate([found, index.recalls_of(queries[FIRST:], kth[FIRST:])])
    return bool(found.mean() - _standard_error(found) >= recall)


def _standard_error(found: np.ndarray) -> float:
    return float(found.std() / len(found) ** 0.5)


def best_lift(index: Index, width: str) -> float:
    """The lift, in eighths, by which a graph of some of the vectors finds most; from START on, in the direction in which it rises.

    A graph joins x to those y of which x·y + lift² e(x) e(y) is greatest, e² being what |x|² lacks of the greatest: nearly
    x·y - lift² (|x|² + |y|²) / 2. With no lift what is short is hardly joined to anything; with all of it the neighbours are those by
    distance, and few ways lead to the longest, which most queries ask for. width: the option that says how widely to search.
    """
    count = min(len(index.store), max(LIFTED, len(index.store) // 10), SAMPLED)
    rows = np.random.default_rng(0).permutation(len(index.store))[:count]
    vectors = index.store.vectors[np.sort(rows)]
    sample = Index(index.dim, index.metric)
    sample.store, sample.examples = Store(vectors, np.arange(count)), index.examples
    queries, kth = sample.held_out(TRIED)
    _, hundredth = sample.truth_of(queries, WIDE * AT)

    @cache
    def found(eighths: int) -> float:
        given = {"lift": eighths / 8, width: max(AT, len(vectors) // NARROW)}
        trial = type(index)(index.dim, index.metric, index.params.model_copy(update=given))
        trial.build(vectors)
        narrow = trial.recall_of(queries, kth, AT)
        trial.width *= WIDE
        return narrow + trial.recall_of(queries, hundredth, WIDE * AT)

    best = START
    for step in (1, -1):
        here = None
        while best != here:  # two ahead: now and then a graph is a bad one by chance
            here = best
            best = max((n for n in (here, here + step, here + 2 * step) if 0 <= n <= 8), key=found)
    return best / 8


def tune_width(index: Index, first: int, last: int, recall: float) -> None:
    """Set the least `index.width`, from `first` on, that `reaches` the recall; `last` where none does. It is doubled until it is
    enough, then halved towards what was not."""
    held_out = index.held_out(TRIED)

    def enough(width: int) -> bool:
        index.width = width
        return reaches(index, held_out, recall)

    low, high = 0, first
    while high < last and not enough(high):
        low, high = high, min(2 * high, last)
    while low and high - low > max(1, high // FINE):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    index.width = high


def measure(index: Index, queries: np.ndarray, build_seconds: float) -> dict[str, float]:
    """queries: (any, dim) -> figures.

    recall@10: share of the 10 truly nearest found. bytes: of the backend's structure in memory. queries_per_second: one at a time, and
    queries_per_second_in_batch: all at once.
    """
    figures: dict[str, float] = {
        "rows": index.store.count,
        "bytes": index.bytes,
        "build_seconds": round(build_seconds, 3),
    }
    if not len(queries) or not index.store.count:
        return figures
    figures[f"recall@{AT}"] = round(index.recall_of(*index.truth_of(queries, AT), AT), 4)
    start = time.perf_counter()
    index.search(queries, AT)
    batch = time.perf_counter() - start
    start, count = time.perf_counter(), 0
    while count < len(queries) and time.perf_counter() - start < ALONE_SECONDS:
        index.search(queries[count : count + 1], AT)
        count += 1
    figures["queries_per_second"] = round(count / (time.perf_counter() - start), 1)
    figures["queries_per_second_in_batch"] = round(len(queries) / batch, 1)
    return figures

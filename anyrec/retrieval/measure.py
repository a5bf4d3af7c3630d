"""What an index is worth: recall against exact search, size, and queries per second, on queries it was not tuned on."""

from __future__ import annotations

import time

import numpy as np

from anyrec.retrieval.index import Index

AT = 10
TRIED = 200
"""Queries that the width of search is tried on."""
FINE = 12
"""The width is found to such a part of itself."""
ALONE_SECONDS = 1.0
"""The longest that queries are asked one at a time."""


def reaches(index: Index, held_out: tuple[np.ndarray, np.ndarray], recall: float) -> bool:
    """Whether the recall is reached on `index.held_out` queries, with a standard error to spare for others."""
    found = index.recalls_of(*held_out)
    return bool(found.mean() - found.std() / len(found) ** 0.5 >= recall)


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

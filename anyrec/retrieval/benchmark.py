"""Figures of an index: recall, size in memory, and queries per second."""

from __future__ import annotations

import time

import numpy as np

from anyrec.retrieval.index import Index
from anyrec.retrieval.recall import K, recall, true_nearest

SINGLE_QUERY_SECONDS = 1.0
"""Queries are searched one at a time for at most this long."""


def measure(index: Index, queries: np.ndarray, build_seconds: float) -> dict[str, float]:
    """Measure an index with queries that it was not tuned on.

    Args:
        index: The index.
        queries: (queries, dim).
        build_seconds: How long its build took.

    Returns:
        rows: The number of vectors.
        bytes: The size of the backend's structure in memory.
        build_seconds: As given.
        recall@10: The fraction of the 10 nearest that is found.
        queries_per_second: Searched one at a time.
        queries_per_second_in_batch: Searched all at once.

        The last three are missing if there are no queries or no vectors.
    """
    figures: dict[str, float] = {
        "rows": index.store.count,
        "bytes": index.bytes,
        "build_seconds": round(build_seconds, 3),
    }
    if not len(queries) or not index.store.count:
        return figures
    figures[f"recall@{K}"] = round(recall(index, true_nearest(index, queries)), 4)
    start = time.perf_counter()
    index.search(queries, K)
    batch = time.perf_counter() - start
    start, count = time.perf_counter(), 0
    while count < len(queries) and time.perf_counter() - start < SINGLE_QUERY_SECONDS:
        index.search(queries[count : count + 1], K)
        count += 1
    figures["queries_per_second"] = round(count / (time.perf_counter() - start), 1)
    figures["queries_per_second_in_batch"] = round(len(queries) / batch, 1)
    return figures

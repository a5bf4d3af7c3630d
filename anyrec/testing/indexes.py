"""Conformance check of vector indexes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anyrec.core.errors import DataError
from anyrec.retrieval.index import Index, Metric, SearchResult
from anyrec.testing.errors import ConformanceError

ROWS, DIM, QUERIES = 600, 12, 20
Make = Callable[[], Index]


def check_index(cls: type[Index], params: dict[str, Any] | None = None, recall: float = 0.9) -> None:
    """Check that an index keeps the contract of `anyrec.Index`.

    Args:
        cls: The index class.
        params: Options to create it with.
        recall: Minimum fraction of the 10 nearest of 600 vectors that a search must return.

    Raises:
        ConformanceError: With one sentence for each violation.
    """
    faults = index_faults(cls, params or {}, recall)
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def index_faults(cls: type[Index], params: dict[str, Any], recall: float) -> list[str]:
    """Return one sentence for each violation; arguments as for `check_index`."""
    faults: list[str] = []
    for metric in ("dot", "cosine"):

        def make(dim: int = DIM, metric: Metric = metric) -> Index:
            return cls(dim, metric, cls.Params(**params))

        known = _Known(metric, recall)
        index = make()
        known.check(index, "empty", faults)
        _check_updates(index, known, faults)
        _check_files(make, index, known, faults)
        _check_edges(make, known, faults)
    return list(dict.fromkeys(faults))


class _Known:
    """What an index should hold, and what it should find: by float64 products over all of it."""

    def __init__(self, metric: Metric, recall: float):
        self.metric, self.recall = metric, recall
        self.rng = np.random.default_rng(0)
        self.keys, self.vectors = np.empty(0, np.int64), np.empty((0, DIM), np.float32)
        self.queries = self.rng.normal(size=(QUERIES, DIM)).astype(np.float32)
        self.queries[-1] = 0
        self.examples = self.rng.normal(size=(200, DIM)).astype(np.float32)
        vectors = self.rng.normal(size=(ROWS, DIM)).astype(np.float32) * self.rng.uniform(0.1, 2, (ROWS, 1))
        vectors[50:80] = vectors[20:50]  # equal ones
        vectors[100:105] = 0
        self.later = self.rng.permutation(2 * ROWS)[:ROWS], vectors.astype(np.float32)

    def take(self) -> None:
        self.keys, self.vectors = self.later

    def put(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        self.drop(keys)
        self.keys, self.vectors = np.concatenate([self.keys, keys]), np.concatenate([self.vectors, vectors])

    def drop(self, keys: np.ndarray) -> None:
        kept = ~np.isin(self.keys, keys)
        self.keys, self.vectors = self.keys[kept], self.vectors[kept]

    def scores(self) -> np.ndarray:
        vectors, queries = self.vectors.astype(np.float64), self.queries.astype(np.float64)
        if self.metric == "cosine":
            vectors, queries = (
                x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (vectors, queries)
            )
        return queries @ vectors.T

    def check(self, index: Index, state: str, faults: list[str]) -> None:
        """Search with every kind of filter, from all eligible to one in a hundred."""
        width = 2 * ROWS
        pairs = np.sort(self.rng.integers(0, QUERIES, 400)), self.rng.integers(0, width, 400)
        for share in (None, 1.0, 0.5, 0.1, 0.01, 0.0):
            shared = None if share is None else self.rng.random(width) < share
            own = None if share is None else self.rng.random((QUERIES, width)) < share
            for k in (1, 10, 700):
                self._compare(index, k, shared, None, f"{state}, {share} allowed, k {k}", faults)
                self._compare(index, k, shared, pairs, f"{state}, {share} allowed and pairs excluded, k {k}", faults)
            self._compare(index, 10, own, None, f"{state}, {share} allowed to each query", faults)
            self._compare(index, 10, own, pairs, f"{state}, {share} allowed to each query and pairs excluded", faults)

    def _compare(self, index: Index, k: int, allowed: Any, pairs: Any, where: str, faults: list[str]) -> None:
        found = index.search(self.queries, k, allowed, pairs)
        eligible = (
            np.ones((QUERIES, 2 * ROWS), bool)
            if allowed is None
            else np.broadcast_to(allowed, (QUERIES, 2 * ROWS)).copy()
        )
        if pairs is not None:
            eligible[pairs] = False
        scores = np.full((QUERIES, 2 * ROWS), -np.inf)
        scores[:, self.keys] = np.where(eligible[:, self.keys], self.scores(), -np.inf)
        if found.keys.shape != (QUERIES, k) or found.scores.shape != (QUERIES, k):
            faults.append(f"{where}: the result's shape is {found.keys.shape}, not (queries, k).")
            return
        faults += [f"{where}: {fault}" for fault in _faults_of(found, scores)]
        best = np.sort(scores, 1)[:, ::-1][:, :k]
        there = np.isfinite(best)
        last = np.where(there, best, np.finfo(np.float32).max).min(1, keepdims=True)
        reached = (found.scores >= last - 1e-4 * (1 + np.abs(last))) & there
        share = reached.sum() / there.sum() if there.any() else 1.0
        if k <= 10 and share < self.recall:
            faults.append(f"{where}: recall {share:.3f}, below {self.recall}.")


def _faults_of(found: SearchResult, scores: np.ndarray) -> list[str]:
    """scores: (queries, keys), -inf for what must not be found."""
    faults = []
    there = found.keys >= 0
    wanted = np.minimum(np.isfinite(scores).sum(1), found.keys.shape[1])
    if (there.sum(1) != wanted).any() or (np.diff(there.astype(int), axis=1) > 0).any():
        faults.append("another number than min(k, eligible) came back.")
    if any(len(np.unique(row[row >= 0])) < (row >= 0).sum() for row in found.keys):
        faults.append("a key came back twice.")
    if (found.keys.max(initial=-1) >= scores.shape[1]) or (
        there & ~np.isfinite(np.take_along_axis(scores, found.keys, 1))
    ).any():
        faults.append("a key came back that is gone, barred or never was.")
    elif not np.allclose(found.scores[there], np.take_along_axis(scores, found.keys, 1)[there], rtol=1e-4, atol=1e-4):
        faults.append("scores are not the dot products, or cosines.")
    if (found.scores[~there] != -np.inf).any():
        faults.append("past the end the score is not -inf.")
    values, keys = np.where(there, found.scores, 0), found.keys
    in_order = (values[:, :-1] > values[:, 1:]) | ((values[:, :-1] == values[:, 1:]) & (keys[:, :-1] < keys[:, 1:]))
    if not (in_order | ~there[:, 1:]).all():
        faults.append("not the best first, or equal scores not by key.")
    return faults


def _check_updates(index: Index, known: _Known, faults: list[str]) -> None:
    known.take()
    index.build(known.vectors, known.keys, known.examples)
    known.check(index, "built", faults)
    gone = known.rng.permutation(known.keys)[: ROWS // 4]
    index.remove(np.concatenate([gone, [5 * ROWS]]))
    known.drop(gone)
    known.check(index, "after removals", faults)
    more = known.rng.permutation(2 * ROWS)[: ROWS // 3]
    vectors = 3 * known.rng.normal(size=(len(more), DIM)).astype(np.float32)
    for part in np.array_split(np.arange(len(more)), 3):
        index.add(more[part], vectors[part])
        known.put(more[part], vectors[part])
    known.check(index, "after additions", faults)


def _check_files(make: Make, index: Index, known: _Known, faults: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        index.save(Path(name))
        again = make()
        again.load(Path(name))
        before, after = index.search(known.queries, 20), again.search(known.queries, 20)
        if not all(np.array_equal(old, new) for old, new in zip(before, after, strict=True)):
            faults.append("loaded again, it finds something else.")
        if again.bytes <= 0 or abs(again.bytes - index.bytes) > index.bytes / 2:
            faults.append(f"its size is {index.bytes} bytes, and {again.bytes} when loaded again.")
        known.check(again, "loaded", faults)
        vector = np.full((1, DIM), 0.5, np.float32)
        again.add(np.array([2 * ROWS - 1]), vector)
        known.put(np.array([2 * ROWS - 1]), vector)
        again.remove(known.keys[:5])
        known.drop(known.keys[:5])
        known.check(again, "loaded and changed", faults)
        del again
    index.remove(np.arange(2 * ROWS))
    if (index.search(known.queries, 3).keys >= 0).any():
        faults.append("with all removed, it still finds something.")


def _check_edges(make: Make, known: _Known, faults: list[str]) -> None:
    index = make()
    index.build(known.vectors[:1])
    if index.search(known.queries[:0], 5).keys.shape != (0, 5):
        faults.append("no query at all: the result's shape is not (0, k).")
    if index.search(known.queries, 3).keys.tolist() != [[0, -1, -1]] * QUERIES:
        faults.append("of one vector, it does not find that one alone.")
    bad = np.full((2, DIM), np.nan, np.float32)
    attempts: dict[str, Callable[[], Any]] = {
        "vectors with NaN": lambda: index.build(bad),
        "vectors of another dimension": lambda: index.add(np.array([4]), known.vectors[:1, 1:]),
        "queries with NaN": lambda: index.search(bad, 1),
        "a key twice": lambda: index.add(np.array([4, 4]), known.vectors[:2]),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except DataError:
            continue
        faults.append(f"{what} raise no DataError.")

"""Conformance check of vector indexes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anyrec.core.errors import DataError
from anyrec.core.types import JsonObject
from anyrec.retrieval.exclusions import Pairs
from anyrec.retrieval.index import Index
from anyrec.retrieval.inputs import Metric
from anyrec.retrieval.results import SearchResult
from anyrec.testing.errors import ConformanceError

ROWS, DIM, QUERIES = 600, 12, 20
KEYS = 2 * ROWS
"""Keys are smaller than this."""
Make = Callable[[], Index]


def check_index(cls: type[Index], params: JsonObject | None = None, recall: float = 0.9) -> None:
    """Check that an index keeps the contract of `anyrec.Index`.

    Args:
        cls: The index class.
        params: Options to create it with.
        recall: Minimum fraction of the 10 nearest of 600 vectors that a search must return.

    Raises:
        ConformanceError: With one sentence for each violation.

    Example:
        def test_my_index_keeps_the_contract():
            check_index(MyIndex)
    """
    faults = index_faults(cls, params or {}, recall)
    if faults:
        raise ConformanceError(f"{cls.__name__}:\n" + "\n".join(f"- {fault}" for fault in faults))


def index_faults(cls: type[Index], params: JsonObject, recall: float) -> list[str]:
    """Return one sentence for each violation; arguments as for `check_index`."""
    faults: list[str] = []
    for metric in ("dot", "cosine"):

        def make(metric: Metric = metric) -> Index:
            return cls(DIM, metric, cls.Params(**params))

        reference = _Reference(metric, recall)
        index = make()
        reference.check(index, "empty", faults)
        _check_updates(index, reference, faults)
        _check_files(make, index, reference, faults)
        _check_edges(make, reference, faults)
    return list(dict.fromkeys(faults))


class _Reference:
    """The vectors that an index should hold, and what it should find, by float64 products of all of them.

    Attributes:
        keys: (rows,) int64.
        vectors: (rows, DIM) float32.
        queries: (QUERIES, DIM) float32, one of them zero.
        examples: (any, DIM) float32, queries to tune the index with.
    """

    def __init__(self, metric: Metric, recall: float):
        self.metric, self.recall = metric, recall
        self.rng = np.random.default_rng(0)
        self.keys, self.vectors = np.empty(0, np.int64), np.empty((0, DIM), np.float32)
        self.queries = self.rng.normal(size=(QUERIES, DIM)).astype(np.float32)
        self.queries[-1] = 0
        self.examples = self.rng.normal(size=(200, DIM)).astype(np.float32)
        vectors = self.rng.normal(size=(ROWS, DIM)).astype(np.float32) * self.rng.uniform(0.1, 2, (ROWS, 1))
        vectors[50:80] = vectors[20:50]  # ties
        vectors[100:105] = 0
        self._first = self.rng.permutation(KEYS)[:ROWS], vectors.astype(np.float32)

    def fill(self) -> None:
        """Take the vectors that the index is built from."""
        self.keys, self.vectors = self._first

    def put(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Add or replace vectors."""
        self.drop(keys)
        self.keys, self.vectors = np.concatenate([self.keys, keys]), np.concatenate([self.vectors, vectors])

    def drop(self, keys: np.ndarray) -> None:
        """Remove keys."""
        kept = ~np.isin(self.keys, keys)
        self.keys, self.vectors = self.keys[kept], self.vectors[kept]

    def scores(self) -> np.ndarray:
        """(QUERIES, rows) float64."""
        vectors, queries = self.vectors.astype(np.float64), self.queries.astype(np.float64)
        if self.metric == "cosine":
            vectors, queries = (
                x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (vectors, queries)
            )
        return queries @ vectors.T

    def check(self, index: Index, state: str, faults: list[str]) -> None:
        """Search with every kind of filter, from all keys eligible to one in a hundred and none."""
        pairs = np.sort(self.rng.integers(0, QUERIES, 400)), self.rng.integers(0, KEYS, 400)
        for share in (None, 1.0, 0.5, 0.1, 0.01, 0.0):
            shared = None if share is None else self.rng.random(KEYS) < share
            own = None if share is None else self.rng.random((QUERIES, KEYS)) < share
            for k in (1, 10, 700):
                self._compare(index, k, shared, None, f"{state}, {share} allowed, k {k}", faults)
                self._compare(index, k, shared, pairs, f"{state}, {share} allowed and pairs excluded, k {k}", faults)
            self._compare(index, 10, own, None, f"{state}, {share} allowed to each query", faults)
            self._compare(index, 10, own, pairs, f"{state}, {share} allowed to each query and pairs excluded", faults)

    def _compare(
        self, index: Index, k: int, allowed: np.ndarray | None, pairs: Pairs | None, where: str, faults: list[str]
    ) -> None:
        found = index.search(self.queries, k, allowed, pairs)
        eligible = np.ones((QUERIES, KEYS), bool)
        if allowed is not None:
            eligible &= allowed
        if pairs is not None:
            eligible[pairs] = False
        scores = np.full((QUERIES, KEYS), -np.inf)
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
    """Compare a result with the true scores: (queries, keys), -inf for keys that must not be found."""
    faults = []
    there = found.keys >= 0
    wanted = np.minimum(np.isfinite(scores).sum(1), found.keys.shape[1])
    if (there.sum(1) != wanted).any() or (np.diff(there.astype(int), axis=1) > 0).any():
        faults.append("it did not return min(k, eligible) keys, or not at the start of the row.")
    if any(len(np.unique(row[row >= 0])) < (row >= 0).sum() for row in found.keys):
        faults.append("it returned a key twice.")
    if (found.keys.max(initial=-1) >= scores.shape[1]) or (
        there & ~np.isfinite(np.take_along_axis(scores, found.keys, 1))
    ).any():
        faults.append("it returned a key that is removed, excluded or was never added.")
    elif not np.allclose(found.scores[there], np.take_along_axis(scores, found.keys, 1)[there], rtol=1e-4, atol=1e-4):
        faults.append("scores are not the dot products, or cosines.")
    if (found.scores[~there] != -np.inf).any():
        faults.append("past the end the score is not -inf.")
    values, keys = np.where(there, found.scores, 0), found.keys
    in_order = (values[:, :-1] > values[:, 1:]) | ((values[:, :-1] == values[:, 1:]) & (keys[:, :-1] < keys[:, 1:]))
    if not (in_order | ~there[:, 1:]).all():
        faults.append("the best are not first, or equal scores are not ordered by key.")
    return faults


def _check_updates(index: Index, reference: _Reference, faults: list[str]) -> None:
    reference.fill()
    index.build(reference.vectors, reference.keys, reference.examples)
    reference.check(index, "built", faults)
    gone = reference.rng.permutation(reference.keys)[: ROWS // 4]
    index.remove(np.concatenate([gone, [5 * ROWS]]))  # the last was never there
    reference.drop(gone)
    reference.check(index, "after removals", faults)
    more = reference.rng.permutation(KEYS)[: ROWS // 3]
    vectors = 3 * reference.rng.normal(size=(len(more), DIM)).astype(np.float32)  # longer than those built from
    for part in np.array_split(np.arange(len(more)), 3):
        index.add(more[part], vectors[part])
        reference.put(more[part], vectors[part])
    reference.check(index, "after additions", faults)


def _check_files(make: Make, index: Index, reference: _Reference, faults: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        index.save(Path(name))
        loaded = make()
        loaded.load(Path(name))
        before, after = index.search(reference.queries, 20), loaded.search(reference.queries, 20)
        if not all(np.array_equal(old, new) for old, new in zip(before, after, strict=True)):
            faults.append("after a load it finds something else.")
        if loaded.bytes <= 0 or abs(loaded.bytes - index.bytes) > index.bytes / 2:
            faults.append(f"its size is {index.bytes} bytes, and {loaded.bytes} after a load.")
        reference.check(loaded, "loaded", faults)
        vector = np.full((1, DIM), 0.5, np.float32)
        loaded.add(np.array([KEYS - 1]), vector)
        reference.put(np.array([KEYS - 1]), vector)
        loaded.remove(reference.keys[:5])
        reference.drop(reference.keys[:5])
        reference.check(loaded, "loaded and changed", faults)
        del loaded  # closes mapped files, which some systems do not remove while they are open
    index.remove(np.arange(KEYS))
    if (index.search(reference.queries, 3).keys >= 0).any():
        faults.append("after all keys are removed it still finds some.")


def _check_edges(make: Make, reference: _Reference, faults: list[str]) -> None:
    index = make()
    index.build(reference.vectors[:1])
    if index.search(reference.queries[:0], 5).keys.shape != (0, 5):
        faults.append("without queries the result's shape is not (0, k).")
    if index.search(reference.queries, 3).keys.tolist() != [[0, -1, -1]] * QUERIES:
        faults.append("with one vector it does not find that one alone.")
    bad = np.full((2, DIM), np.nan, np.float32)
    attempts: dict[str, Callable[[], object]] = {
        "vectors with NaN": lambda: index.build(bad),
        "vectors of another dimension": lambda: index.add(np.array([4]), reference.vectors[:1, 1:]),
        "queries with NaN": lambda: index.search(bad, 1),
        "a key given twice": lambda: index.add(np.array([4, 4]), reference.vectors[:2]),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except DataError:
            continue
        faults.append(f"{what} raise no DataError.")

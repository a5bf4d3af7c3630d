"""Search that returns min(k, eligible) keys to every query, whatever is filtered and whatever the backend finds.

A backend returns its best guess: approximate, perhaps too short, and perhaps with rows that the query must not find.
Therefore each query asks for as many rows as are needed for k eligible ones to be likely among them, and for four times
as many while too few remain. If few rows are eligible, or if asking for more would cost as much as comparing every row,
the eligible rows are scanned.

benchmarks/indexes.py --only filter, 100,000 vectors, 10%, 1% and 0.01% eligible: recall@10 is 1.000 with every backend,
and k results always come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from anyrec.retrieval.exclusions import ExclusionMask, Pairs, mask_of_rows
from anyrec.retrieval.results import SearchResult
from anyrec.retrieval.scan import best_rows
from anyrec.retrieval.store import Store

SCAN_ROWS = 20_000
"""Up to this many eligible rows are scanned instead of searched through the backend's filter. Of a million rows they
are a fiftieth, for which a graph must search fifty times as widely; benchmarks/indexes.py --only filter compares both
sides."""
CELLS_AT_A_TIME = 1 << 24
"""Scores or mask cells in memory at once: 64 MiB of float32."""
MIN_ASK = 1024
"""A backend may always be asked to find this many rows."""
SCAN_FRACTION = 4
"""Asking for more than a quarter of all rows takes as long as scanning all of them."""
ASK_GROWTH = 4
"""A query that got too few eligible rows asks for this many times as many."""


class Backend(NamedTuple):
    """What a search needs of an index.

    Attributes:
        store: The vectors and keys.
        nearest: The backend's own search: (queries, dim) float32, how many rows to find, (rows,) bool of the rows it
            may find or None -> rows of the store and scores, in any order.
        exact_scores: Whether the scores are the float32 dot products; if not, its results are scored again.
        filters: Whether `nearest` accepts a mask.
        can_remove: Whether `nearest` never returns removed rows.
    """

    store: Store
    nearest: Callable[[np.ndarray, int, np.ndarray | None], SearchResult]
    exact_scores: bool
    filters: bool
    can_remove: bool

    @property
    def searched_rows(self) -> int:
        """The number of rows that `nearest` may return."""
        return self.store.count if self.can_remove else len(self.store)

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the dot products of each query with rows of its own.

        Each sum is taken in one order, so that the score of a pair does not depend on what else is searched for.

        Args:
            queries: (queries, dim) float32.
            rows: (queries, n) rows of the store.

        Returns:
            (queries, n) float32.
        """
        step = max(1, CELLS_AT_A_TIME // max(1, rows.shape[1] * queries.shape[1]))
        parts = [slice(start, start + step) for start in range(0, len(rows), step)]
        return np.concatenate(
            [np.einsum("qd,qnd->qn", queries[part], self.store.vectors[rows[part]]) for part in parts]
        )


def search(
    backend: Backend, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, exclude: Pairs | None = None
) -> SearchResult:
    """Return the k nearest eligible keys of each query.

    Args:
        backend: The index to search.
        queries: (queries, dim) float32, checked.
        k: The number of keys for each query.
        allowed: (keys,) or (queries, keys) bool, what may be found; keys past its end may not.
        exclude: (pairs,) rows of queries, ascending, and (pairs,) keys that the query must not find.

    Returns:
        min(k, eligible) keys for each query, padded to (queries, k).
    """
    store = backend.store
    if len(queries) == 1 and allowed is None and exclude is None and 0 < k <= backend.searched_rows == store.count:
        found = _search_one(backend, queries, k)
        if found is not None:
            return found
    result = SearchResult.empty(len(queries), k)
    shared = _shared_mask(backend, allowed)
    eligible = store.count if shared is None else int(shared.sum())
    if len(queries) and k > 0 and eligible:
        own = allowed if allowed is not None and allowed.ndim == 2 else None
        excluded = ExclusionMask(store, len(queries), own, exclude, shared)
        _Search(backend, queries, shared, eligible, excluded, result).run()
    return result


def scan(backend: Backend, queries: np.ndarray, k: int) -> SearchResult:
    """Return the k nearest keys of each query by comparing every vector: (queries, k)."""
    result = SearchResult.empty(len(queries), k)
    excluded = ExclusionMask(backend.store, len(queries))
    _Search(backend, queries, None, backend.store.count, excluded, result).scan(np.arange(len(queries)))
    return result


def _search_one(backend: Backend, query: np.ndarray, k: int) -> SearchResult | None:
    """Search for a single query without filters; None if the backend finds fewer than k.

    It returns what `_Search` returns, with a quarter of the NumPy calls. Python's part of a search is then about 30 of
    the 170 to 270 microseconds that a graph of 100,000 vectors takes (benchmarks/indexes.py --only hnsw).
    """
    rows, scores = backend.nearest(query, k, None)
    if rows.shape[1] < k or rows.min() < 0:
        return None
    scores = scores[0] if backend.exact_scores else backend.scores(query, rows)[0]
    keys = backend.store.keys[rows[0]]
    if len(keys) == k and (scores[1:] < scores[:-1]).all():  # in order already, and without ties
        return SearchResult(keys[None], scores[None])
    order = np.lexsort((keys, -scores))[:k]
    return SearchResult(keys[order][None], scores[order][None])


def _shared_mask(backend: Backend, allowed: np.ndarray | None) -> np.ndarray | None:
    """(rows,) bool, the rows that at least one query may find; None if these are all that the backend may return."""
    if allowed is None:
        return None if backend.searched_rows == backend.store.count else backend.store.alive
    rows = mask_of_rows(backend.store, allowed if allowed.ndim == 1 else np.asarray(allowed.any(0)))
    return None if rows.sum() == backend.searched_rows else rows


class _Search:
    """One search of several queries. `run` fills the result in place."""

    def __init__(
        self,
        backend: Backend,
        queries: np.ndarray,
        shared: np.ndarray | None,
        eligible: int,
        excluded: ExclusionMask,
        result: SearchResult,
    ):
        """Keep the arguments.

        Args:
            backend: The index to search.
            queries: (queries, dim) float32.
            shared: (rows,) bool, the rows that at least one query may find; None for all.
            eligible: The number of these rows.
            excluded: The rows that single queries must not find.
            result: (queries, k), empty.
        """
        self.backend, self.queries, self.result = backend, queries, result
        self.shared, self.eligible, self.excluded = shared, eligible, excluded
        self.k = result.keys.shape[1]

    def run(self) -> None:
        """Fill the result: by the backend while that is cheaper than a scan, then by a scan."""
        left = self.excluded.eligible_counts(self.eligible)
        need = np.minimum(self.k, left)
        pending = np.flatnonzero(need)
        if self.shared is None or self.eligible > SCAN_ROWS:
            self._ask_backend(pending, left, need)
            pending = pending[self._missing(pending, need)]
        self.scan(pending)

    def scan(self, pending: np.ndarray) -> None:
        """Compare all eligible rows with the queries `pending`: (n,), ascending."""
        if not len(pending):
            return
        store, (keys, scores) = self.backend.store, self.result
        rows = np.flatnonzero(store.keys >= 0 if self.shared is None else self.shared)
        rows = rows[np.argsort(store.keys[rows])]  # so that equal scores come in the order of keys
        whole = len(rows) == len(store) and store.in_order  # then the vectors need not be copied
        vectors = torch.from_numpy(store.vectors if whole else store.vectors[rows])
        step = len(pending) if self.excluded.empty else max(1, CELLS_AT_A_TIME // len(rows))
        for start in range(0, len(pending), step):
            part = pending[start : start + step]
            mask = None if self.excluded.empty else self.excluded.allowed(part, rows)
            found = best_rows(vectors, torch.from_numpy(self.queries[part]), self.k, mask)[0].numpy()
            chosen = np.where(found < 0, -1, store.keys[rows[found]])
            # `best_rows` multiplies in blocks, which round differently from `scores`.
            values = np.where(chosen < 0, -np.inf, self.backend.scores(self.queries[part], rows[found]))
            best = SearchResult(chosen, values.astype(np.float32, copy=False)).best(self.k)
            width = best.keys.shape[1]
            keys[part, :width], scores[part, :width] = best

    def _ask_backend(self, pending: np.ndarray, left: np.ndarray, need: np.ndarray) -> None:
        """Ask the backend for more and more rows, until each query has enough or a scan costs less.

        Args:
            pending: (n,) the queries that may find anything.
            left: (queries,) the number of rows that each may find.
            need: (queries,) min(k, left).
        """
        backend, rows = self.backend, len(self.backend.store)
        # The rows among which the backend chooses, of which `left` count: its filter leaves those that some query may
        # find.
        among = self.eligible if backend.filters or self.shared is None else backend.searched_rows
        pairs = self.excluded.pair_counts
        ask = _first_ask(self.k, (left + pairs) / among, pairs)
        # If nothing is filtered, asking for k is the only way to use the backend, however large k is.
        most = max(self.k if ask.max() == self.k else 0, min(rows, MIN_ASK), rows // SCAN_FRACTION)
        ready = pending[ask[pending] <= most]
        while len(ready):
            for count in np.unique(ask[ready]):
                self._take(ready[ask[ready] == count], min(int(count), rows))
            ready = ready[self._missing(ready, need) & (ASK_GROWTH * ask[ready] <= most)]
            ask[ready] *= ASK_GROWTH

    def _missing(self, queries: np.ndarray, need: np.ndarray) -> np.ndarray:
        """(n,) bool, which of the queries have fewer keys than they need."""
        return (self.result.keys[queries] >= 0).sum(1) < need[queries]

    def _take(self, which: np.ndarray, count: int) -> None:
        """Ask the backend for `count` rows for each of the queries `which`: (n,), and keep the k best eligible ones."""
        backend, (keys, scores) = self.backend, self.result
        queries = self.queries if len(which) == len(self.queries) else self.queries[which]
        rows, values = backend.nearest(queries, count, self.shared if backend.filters else None)
        out = rows < 0
        if self.shared is not None and not backend.filters:
            out |= ~self.shared[rows]
        if not self.excluded.empty:
            out |= self.excluded.excludes(which, rows)
        if not backend.exact_scores:
            values = backend.scores(queries, rows)
        values = np.where(out, -np.inf, values).astype(np.float32, copy=False)
        best = SearchResult(np.where(out, -1, backend.store.keys[rows]), values).best(self.k)
        width = best.keys.shape[1]
        keys[which, :width], scores[which, :width] = best


def _first_ask(k: int, chances: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return how many rows to ask for so that k eligible ones are likely among them.

    Args:
        k: The number of keys wanted.
        chances: (queries,) the fraction of the rows returned that the query may find.
        pairs: (queries,) how many rows are excluded for the query alone.

    Returns:
        (queries,) int64. If they differ they are rounded up to powers of two, so that the queries form few groups.
    """
    # A fifth more than expected: eligible rows are not spread evenly over the nearest ones.
    wanted = np.where(chances < 1, 1.2 * k / np.maximum(chances, 1e-6), k) + pairs
    if (wanted == wanted[0]).all():
        return wanted.astype(np.int64)
    return (2 ** np.ceil(np.log2(wanted))).astype(np.int64)

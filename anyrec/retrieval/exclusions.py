"""Masks of what the single queries of a search must not find."""

from __future__ import annotations

import numpy as np

from anyrec.retrieval.store import Store

Pairs = tuple[np.ndarray, np.ndarray]
"""(pairs,) rows of queries, ascending, and (pairs,) keys: a key that this query must not find."""


class ExclusionMask:
    """The rows of the store that only some queries of a search must not find.

    Rows that no query may find are not part of it: they are filtered once for all queries.

    Attributes:
        empty: Whether nothing is excluded for a single query.
        pair_counts: (queries,) the number of rows that an excluded pair takes from each query.
    """

    def __init__(
        self,
        store: Store,
        queries: int,
        allowed: np.ndarray | None = None,
        exclude: Pairs | None = None,
        shared: np.ndarray | None = None,
    ):
        """Translate keys into rows of the store.

        Args:
            store: The rows and their keys.
            queries: The number of queries.
            allowed: (queries, keys) bool, the keys that each query may find; None if the queries have no masks of their
                own.
            exclude: Pairs of a query and a key that it must not find.
            shared: (rows,) bool, the rows that at least one query may find; None if any may be found. Pairs of other
                rows are dropped, so that `pair_counts` counts nothing twice.
        """
        self._rows = len(store)
        self._own = None if allowed is None else mask_of_rows(store, allowed)
        self._pairs = np.empty(0, np.int64)
        self.pair_counts = np.zeros(queries, np.int64)
        if exclude is not None and len(exclude[0]):
            query, row = np.asarray(exclude[0]), store.rows_of(np.asarray(exclude[1]))
            eligible = row >= 0
            if shared is not None:
                eligible &= shared[row]
            if self._own is not None:
                eligible &= self._own[query, row]
            # One number for each pair, sorted: a pair is then found by bisection, without a table of (queries, rows).
            self._pairs = np.unique(query[eligible] * self._rows + row[eligible])
            self.pair_counts = np.bincount(self._pairs // self._rows, minlength=queries)
        self.empty = self._own is None and not len(self._pairs)

    def eligible_counts(self, shared: int) -> np.ndarray:
        """Return how many rows each query may find: (queries,).

        Args:
            shared: The number of rows that at least one query may find.
        """
        return (np.full(len(self.pair_counts), shared) if self._own is None else self._own.sum(1)) - self.pair_counts

    def excludes(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return which of the rows found for each query are excluded.

        Args:
            queries: (n,) rows of queries.
            rows: (n, width) rows of the store found for each of them; -1 for none.

        Returns:
            (n, width) bool; arbitrary where the row is -1.
        """
        excluded = np.zeros(rows.shape, bool) if self._own is None else ~self._own[queries[:, None], rows]
        if len(self._pairs):
            code = queries[:, None] * self._rows + rows
            place = np.minimum(np.searchsorted(self._pairs, code), len(self._pairs) - 1)
            excluded |= self._pairs[place] == code
        return excluded

    def allowed(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return which rows each query may find.

        Args:
            queries: (n,) rows of queries, ascending.
            rows: (m,) rows of the store.

        Returns:
            (n, m) bool.
        """
        allowed = np.ones((len(queries), len(rows)), bool) if self._own is None else self._own[np.ix_(queries, rows)]
        if len(self._pairs):
            column_of = np.full(self._rows, -1)
            column_of[rows] = np.arange(len(rows))
            query, row = np.divmod(self._pairs, self._rows)
            line = np.minimum(np.searchsorted(queries, query), len(queries) - 1)
            asked = (queries[line] == query) & (column_of[row] >= 0)
            allowed[line[asked], column_of[row[asked]]] = False
        return allowed


def mask_of_rows(store: Store, allowed: np.ndarray) -> np.ndarray:
    """Translate a mask of keys into a mask of rows.

    Args:
        store: The rows and their keys.
        allowed: (keys,) or (queries, keys) bool.

    Returns:
        (rows,) or (queries, rows) bool; False for removed rows and for keys past the end of `allowed`.
    """
    keys = store.keys
    inside = (keys >= 0) & (keys < allowed.shape[-1])
    if store.in_order and inside.all():
        return allowed[..., : len(store)]
    rows = np.zeros((*allowed.shape[:-1], len(store)), bool)
    rows[..., inside] = allowed[..., keys[inside]]
    return rows

"""What single queries of a search may not find: their own masks, and pairs of query and key."""

from __future__ import annotations

import numpy as np

from anyrec.retrieval.store import Store


class Barred:
    """Rows of the store that are denied to one query or another, beside what is denied to all."""

    def __init__(
        self,
        store: Store,
        queries: int,
        allowed: np.ndarray | None,
        exclude: tuple[np.ndarray, np.ndarray] | None,
        shared: np.ndarray | None,
    ):
        """allowed: (queries, keys) bool; exclude: (pairs,) queries and keys; shared: (rows,) bool, what some query may find."""
        self._rows = len(store)
        self._own = None if allowed is None else by_row(store, allowed)
        self._pairs = np.empty(0, np.int64)
        self.single = np.zeros(queries, np.int64)
        """(queries,) how many of the rows that a query might find are denied to it by a pair."""
        if exclude is not None and len(exclude[0]):
            which, rows = np.asarray(exclude[0]), store.rows_of(np.asarray(exclude[1]))
            kept = rows >= 0
            if shared is not None:
                kept &= shared[rows]
            if self._own is not None:
                kept &= self._own[which, rows]
            self._pairs = np.unique(which[kept] * self._rows + rows[kept])
            self.single = np.bincount(self._pairs // self._rows, minlength=queries)
        self.nothing = self._own is None and not len(self._pairs)

    def left(self, eligible: int) -> np.ndarray:
        """(queries,) how many rows each may find, of `eligible` that are not denied to all."""
        return (np.full(len(self.single), eligible) if self._own is None else self._own.sum(1)) - self.single

    def bars(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """queries: (n,); rows: (n, any), -1 for none -> same shape, bool."""
        out = np.zeros(rows.shape, bool) if self._own is None else ~self._own[queries[:, None], rows]
        if len(self._pairs):
            code = queries[:, None] * self._rows + rows
            place = np.minimum(np.searchsorted(self._pairs, code), len(self._pairs) - 1)
            out |= self._pairs[place] == code
        return out

    def mask(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """queries: (n,), ascending; rows: (m,) -> (n, m) bool, what each may find."""
        free = np.ones((len(queries), len(rows)), bool) if self._own is None else self._own[np.ix_(queries, rows)]
        if len(self._pairs):
            column = np.full(self._rows, -1)
            column[rows] = np.arange(len(rows))
            which, where = np.divmod(self._pairs, self._rows)
            line = np.minimum(np.searchsorted(queries, which), len(queries) - 1)
            here = (queries[line] == which) & (column[where] >= 0)
            free[line[here], column[where[here]]] = False
        return free


def by_row(store: Store, allowed: np.ndarray) -> np.ndarray:
    """(keys,) or (queries, keys) bool -> (rows,) or (queries, rows), false for keys past the end and rows that are gone."""
    keys = store.keys
    inside = (keys >= 0) & (keys < allowed.shape[-1])
    if store.in_order and inside.all():
        return allowed[..., : len(store)]
    found = np.zeros((*allowed.shape[:-1], len(store)), bool)
    found[..., inside] = allowed[..., keys[inside]]
    return found

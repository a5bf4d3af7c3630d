"""The contract of a vector index: `build`, `add`, `remove`, `search`, `save`, `load`, and what of it all backends share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from pydantic import BaseModel

from anyrec.core.contracts import Params as Options
from anyrec.retrieval.exclusions import Barred, by_row
from anyrec.retrieval.results import SearchResult, checked_keys, checked_vectors, first_ask, ordered, put
from anyrec.retrieval.scan import best_rows
from anyrec.retrieval.store import MOST_KEYS, Store

Metric = Literal["dot", "cosine"]
METRICS = get_args(Metric)
STATE = "state.json"
FEW = 20_000
"""So many eligible rows are searched one by one rather than through the backend's filter: of a million it is a fiftieth, for which a graph
must look fifty times as widely. benchmarks/indexes.py --only filter holds the two sides against each other."""
LIFTED = 5_000
"""A lift that was found among fewer vectors is found again when there are twice as many."""
GROWN = 1.1
"""The width is found again where there are so many times the rows for which it was."""
CELLS_AT_A_TIME = 1 << 24
ALIKE = 1e-5
"""Lengths that differ by no more than this share are the same."""


class Index:
    """Finds the vectors with the largest dot product with, or cosine to, a query.

    A key is a small non-negative integer of the caller's (a row of its table). A backend implements what begins with an underscore; this
    class keeps the float32 vectors, and the promise that min(k, eligible) keys come back at any selectivity.

    What a backend is given has been made ready: keys are rows of `self.store` (0, 1, ... and never one twice: a vector that is replaced
    gets a new row), vectors and queries are (n, self.inner_dim) float32, finite, contiguous, of unit length where the metric is cosine.

    Vectors that differ in length may get one more dimension, queries a zero there: dot products stay what they are, and vectors become
    equally long where `lift` is 1, so that a backend without "dot" among its `metrics` orders by them (Bachrach et al., RecSys 2014).
    """

    type: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = ("dot",)
    """What the backend orders by: "dot", or "l2" and "cosine", which are then given vectors of equal length."""
    exact_scores: ClassVar[bool] = False
    """Whether its scores are the float32 dot products; otherwise what it finds is scored again."""
    lifts: ClassVar[bool] = False
    """Whether it tries which lift serves it best."""
    filters: ClassVar[bool] = False
    """Whether it takes `allowed`."""
    can_remove: ClassVar[bool] = False
    """Whether removed rows leave its structure; otherwise what it finds of them is passed over."""
    trials: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Options that it is tried with where an index is chosen by measuring."""

    class Params(Options):
        pass

    def __init__(self, dim: int, metric: Metric = "dot", params: BaseModel | None = None):
        """metric: cosine scores are those of unit vectors; a zero vector scores 0 with everything."""
        self.dim = dim
        self.metric: Metric = metric
        self.params: Any = params if params is not None else type(self).Params()
        self.store = Store(np.empty((0, dim), np.float32), np.empty(0, np.int64))
        self.longest, self.even = 1.0, False
        """The greatest length; whether all have it."""
        self.lift, self._lifted = 0.0, 0
        """How much of what a vector lacks of the greatest length it is given in one more dimension; rows there were when that was found."""
        self.width, self._tuned = 1, 0
        """How widely a backend that tunes itself searches; rows there were when that was found."""
        self.examples: np.ndarray | None = None
        """(any, dim) queries like those to come."""

    @property
    def inner_dim(self) -> int:
        return self.dim + (self.lift > 0)

    def build(self, vectors: np.ndarray, keys: np.ndarray | None = None, queries: np.ndarray | None = None) -> None:
        """vectors: (rows, dim) float32, kept and not to be changed; keys: (rows,) int64, distinct, by default 0, 1, ...

        queries: (any, dim) like those to come, that a backend may tune itself on; by default sums of two vectors. Replaces what was
        there. Raises DataError for another dimension, for vectors not finite, for keys negative or there twice.
        """
        vectors = self._checked(vectors, "vectors")
        keys = np.arange(len(vectors)) if keys is None else checked_keys(keys, len(vectors))
        self.examples = None if queries is None or not len(queries) else self._checked(queries, "queries")
        self._fill(Store(vectors, keys.astype(np.int64)))

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """keys: (rows,), vectors: (rows, dim). A key that is there gets the new vector."""
        vectors = self._checked(vectors, "vectors")
        keys = checked_keys(keys, len(vectors))
        if not len(keys):
            return
        self._forget(keys)
        rows = self.store.append(keys, vectors)
        if self._outgrown(vectors) or self.store.count < len(self.store) // 2:
            self._rebuild()
        else:
            self._add(rows, self._inner(vectors))
            if len(self.store) > GROWN * self._tuned:
                self._tune_anew()

    def remove(self, keys: np.ndarray) -> None:
        """keys: (rows,); those not there are passed over."""
        self._forget(np.asarray(keys, np.int64))
        if self.store.count < len(self.store) // 2:  # each row is built again at most once for each that was removed
            self._rebuild()

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> SearchResult:
        """queries: (queries, dim) float32.

        allowed: (keys,) or (queries, keys) bool, what may be found; keys past its end may not. exclude: (pairs,) query rows, ascending,
        and (pairs,) keys that this query must not find. Raises DataError for another dimension and for queries not finite.
        """
        queries = self._checked(queries, "queries")
        if len(queries) == 1 and allowed is None and exclude is None and 0 < k <= self._held() == self.store.count:
            found = self._one(queries, k)
            if found is not None:
                return found
        keys, scores = self._empty(len(queries), k)
        shared = self._shared(allowed)
        eligible = self.store.count if shared is None else int(shared.sum())
        if len(queries) and k > 0 and eligible:
            own = allowed if allowed is not None and allowed.ndim == 2 else None
            barred = Barred(self.store, len(queries), own, exclude, shared)
            self._search(queries, shared, eligible, barred, keys, scores)
        return SearchResult(keys, scores)

    def held_out(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` of the examples, as `truth_of` gives them. Where there are none, sums of two of the vectors: a vector
        itself is found more easily than what is asked for."""
        rng, examples = np.random.default_rng(0), self.examples
        if examples is None:
            alive = self.store.vectors[self.store.keys >= 0]
            examples = alive[rng.integers(len(alive), size=count)] + alive[rng.integers(len(alive), size=count)]
        return self.truth_of(examples[rng.permutation(len(examples))[:count]])

    def truth_of(self, queries: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The queries, made ready, and the k-th best score of each, exactly: (queries,)."""
        queries = self._checked(queries, "queries")
        keys, scores = self._empty(len(queries), min(k, self.store.count))
        nothing = Barred(self.store, len(queries), None, None, None)
        self._exactly(queries, np.arange(len(queries)), None, nothing, keys, scores)
        return queries, scores[:, -1]

    def recall_of(self, queries: np.ndarray, kth: np.ndarray, k: int = 10) -> float:
        """The mean of `recalls_of`."""
        return float(self.recalls_of(queries, kth, k).mean())

    def recalls_of(self, queries: np.ndarray, kth: np.ndarray, k: int = 10) -> np.ndarray:
        """(queries,) share of the k truly nearest that are found; as `truth_of` gives them. One that scores as the k-th counts as one."""
        k = min(k, self.store.count)
        found = self.search(queries, k).scores
        return (found >= kth[:, None] - 1e-5 * np.abs(kth[:, None])).sum(1) / k

    def save(self, folder: Path) -> None:
        """Write the index into an existing folder."""
        self.store.save(folder)
        state = {"longest": self.longest, "even": self.even, "lift": self.lift, "lifted": self._lifted}
        (folder / STATE).write_text(json.dumps(state) + "\n")
        if len(self.store):
            self._save(folder)

    def load(self, folder: Path, most_keys: int = MOST_KEYS) -> None:
        """Restore what `save` wrote. Raises ValueError, among others, for files that do not fit each other and for keys past `most_keys`."""
        self.store = Store.load(folder, most_keys)
        self.store.check(self.dim)
        state = json.loads((folder / STATE).read_text())
        self.longest, self.even = float(state["longest"]), bool(state["even"])
        self.lift, self._lifted = float(state["lift"]), int(state["lifted"])
        if not (0 <= self.longest < np.inf and 0 <= self.lift < np.inf):
            raise ValueError(f"longest {self.longest}, lift {self.lift}")
        self._tuned = len(self.store)
        if len(self.store):
            self._load(folder)

    @property
    def bytes(self) -> int:
        """What the backend's structure takes in memory, without the vectors kept to score again."""
        return self._bytes() if len(self.store) else 0

    # What a backend implements.

    def _lift(self) -> float:
        """The `lift` of vectors that differ in length: called before `_build`, `self.store` filled."""
        return 0.0 if "dot" in self.metrics else 1.0

    def _build(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        """keys: 0, 1, ... Replaces what was there. Called with at least one vector, as all below are after it."""
        raise NotImplementedError

    def _tune(self) -> None:
        """Find `self.width`, where there is one: called after `_build`, and when a tenth has been added since."""

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """keys: those that follow the last."""
        raise NotImplementedError

    def _remove(self, keys: np.ndarray) -> None:
        """Called where `can_remove`."""
        raise NotImplementedError

    def _nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> SearchResult:
        """Its best effort: (queries, any number) in any order, -1 where it found fewer, no key twice in a row. More than k are welcome
        where its scores are not exact: the best k of them by float32 are taken.

        k: at most the rows there are. allowed: (rows,) bool, given only where `filters`.
        """
        raise NotImplementedError

    def _save(self, folder: Path) -> None:
        """The vectors and keys are saved already."""

    def _load(self, folder: Path) -> None:
        """`self.store` is there again, its vectors memory-mapped; `self._inner(self.store.vectors)` are those of `_build`."""
        raise NotImplementedError

    def _bytes(self) -> int:
        raise NotImplementedError

    # What all share.

    def _empty(self, queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((queries, k), -1), np.full((queries, k), -np.inf, np.float32)

    def _fill(self, store: Store) -> None:
        self.store = store
        lengths = self._lengths(store.vectors)
        self.longest = float(lengths.max(initial=0)) or 1.0
        self.even = bool(len(lengths)) and self._is_even(lengths)
        if len(store):
            self.lift, self._lifted = 0.0 if self.even else self._lift(), len(store)
            self._build(self._inner(store.vectors), np.arange(len(store)))
            self._tune_anew()

    def _tune_anew(self) -> None:
        self._tuned = len(self.store)
        self._tune()

    def _rebuild(self) -> None:
        alive = np.flatnonzero(self.store.keys >= 0)
        alive = alive[np.argsort(self.store.keys[alive])]
        self._fill(Store(self.store.vectors[alive], self.store.keys[alive]))

    def _forget(self, keys: np.ndarray) -> None:
        rows = self.store.remove(keys)
        if self.can_remove and len(rows):
            self._remove(rows)

    def _lengths(self, vectors: np.ndarray) -> np.ndarray:
        """(rows,) 1 where the metric is cosine, but of what is zero, and has no direction."""
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        return np.where(lengths > 0, 1.0, 0.0) if self.metric == "cosine" else lengths

    def _is_even(self, lengths: np.ndarray) -> bool:
        return bool(np.abs(lengths - self.longest).max() <= ALIKE * self.longest)

    def _outgrown(self, vectors: np.ndarray) -> bool:
        """Whether all must be built anew: since what is there was brought to a length that a new vector exceeds or, where all have one
        length, does not have; or, where dot products are right anyway, since the lift was found from few."""
        if len(self.store) == len(vectors):
            return True
        if "dot" in self.metrics:
            return self.lifts and self._lifted < min(LIFTED, len(self.store) / 2)
        lengths = self._lengths(vectors)
        return not self._is_even(lengths) if self.even else bool(lengths.max() > self.longest)

    def _inner(self, vectors: np.ndarray) -> np.ndarray:
        """vectors of the store -> those that the backend keeps."""
        if self.inner_dim == self.dim:
            return vectors
        inner = np.empty((len(vectors), self.dim + 1), np.float32)
        inner[:, :-1] = vectors
        inner[:, -1] = self.lift * np.sqrt(np.maximum(self.longest**2 - np.einsum("nd,nd->n", vectors, vectors), 0))
        return inner

    def _inner_queries(self, queries: np.ndarray) -> np.ndarray:
        return queries if self.inner_dim == self.dim else np.pad(queries, ((0, 0), (0, 1)))

    def _checked(self, vectors: np.ndarray, what: str) -> np.ndarray:
        return checked_vectors(vectors, self.dim, self.metric, what)

    def _shared(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """(rows,) bool: what at least one query may find; None for all that the backend holds."""
        held = self._held()
        if allowed is None:
            return None if held == self.store.count else self.store.alive
        rows = by_row(self.store, allowed if allowed.ndim == 1 else np.asarray(allowed.any(0)))
        return None if rows.sum() == held else rows

    def _held(self) -> int:
        """How many rows the backend may bring back."""
        return self.store.count if self.can_remove else len(self.store)

    def _one(self, query: np.ndarray, k: int) -> SearchResult | None:
        """What `_search` finds where nothing is denied to a single query, in a quarter of its calls; None where the backend found fewer."""
        rows, scores = self._nearest(self._inner_queries(query), k, None)
        if rows.shape[1] < k or rows.min() < 0:
            return None
        scores = scores[0] if self.exact_scores else self._scores(query, rows)[0]
        keys = self.store.keys[rows[0]]
        if len(keys) == k and (scores[1:] < scores[:-1]).all():
            return SearchResult(keys[None], scores[None])
        order = np.lexsort((keys, -scores))[:k]
        return SearchResult(keys[order][None], scores[order][None])

    def _search(
        self,
        queries: np.ndarray,
        shared: np.ndarray | None,
        eligible: int,
        barred: Barred,
        keys: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Fill `keys` and `scores`. shared: (rows,) bool, of which `eligible` are true; barred: what is denied to single queries."""
        k, rows = keys.shape[1], len(self.store)
        left = barred.left(eligible)
        held = eligible if self.filters or shared is None else self.store.count if self.can_remove else rows
        need = np.minimum(k, left)
        pending = np.flatnonzero(need)
        if shared is None or eligible > FEW:
            ask = first_ask(k, (left + barred.single) / held, barred.single)
            most = max(
                k if ask.max() == k else 0, min(rows, 1024), rows // 4
            )  # beyond it, all are looked at in as little time
            ready = pending[ask[pending] <= most]
            while len(ready):
                for width in np.unique(ask[ready]):
                    part = ready[ask[ready] == width]
                    self._take(queries, part, min(int(width), rows), shared, barred, keys, scores)
                ready = ready[((keys[ready] >= 0).sum(1) < need[ready]) & (4 * ask[ready] <= most)]
                ask[ready] *= 4
            pending = pending[(keys[pending] >= 0).sum(1) < need[pending]]
        self._exactly(queries, pending, shared, barred, keys, scores)

    def _take(
        self,
        queries: np.ndarray,
        rows: np.ndarray,
        width: int,
        shared: np.ndarray | None,
        barred: Barred,
        keys: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """What the backend finds for `rows` of the queries when asked for `width`."""
        k = keys.shape[1]
        every = len(rows) == len(queries)
        asked = queries if every else queries[rows]
        found, values = self._nearest(self._inner_queries(asked), width, shared if self.filters else None)
        out = found < 0
        if shared is not None and not self.filters:
            out |= ~shared[found]
        if not barred.nothing:
            out |= barred.bars(rows, found)
        if not self.exact_scores:
            values = self._scores(asked, found)
        values = np.where(out, -np.inf, values).astype(np.float32, copy=False)
        found = np.where(out, -1, self.store.keys[found])
        put(keys, scores, rows, *ordered(found, values, k))

    def _exactly(
        self,
        queries: np.ndarray,
        pending: np.ndarray,
        shared: np.ndarray | None,
        barred: Barred,
        keys: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Search all eligible rows for the queries `pending`."""
        if not len(pending):
            return
        rows = np.flatnonzero(self.store.keys >= 0 if shared is None else shared)
        rows = rows[np.argsort(self.store.keys[rows])]  # so that what is equal comes in the order of keys
        in_place = len(rows) == len(self.store) and self.store.in_order
        vectors = torch.from_numpy(self.store.vectors if in_place else self.store.vectors[rows])
        step = len(pending) if barred.nothing else max(1, CELLS_AT_A_TIME // len(rows))
        for start in range(0, len(pending), step):
            part = pending[start : start + step]
            mask = None if barred.nothing else barred.mask(part, rows)
            found, values = best_rows(vectors, torch.from_numpy(queries[part]), keys.shape[1], mask)
            chosen = np.where(found.numpy() < 0, -1, self.store.keys[rows[found.numpy()]])
            values = np.where(chosen < 0, -np.inf, self._scores(queries[part], rows[found.numpy()]))
            put(keys, scores, part, *ordered(chosen, values.astype(np.float32, copy=False), keys.shape[1]))

    def _scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(queries, n) float32 scores of rows of the store: (queries, n). Each sum in one order, whatever else is asked for."""
        step = max(1, CELLS_AT_A_TIME // max(1, rows.shape[1] * self.dim))
        parts = [slice(start, start + step) for start in range(0, len(rows), step)]
        return np.concatenate(
            [np.einsum("qd,qnd->qn", queries[part], self.store.vectors[rows[part]]) for part in parts]
        )

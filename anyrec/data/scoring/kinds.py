"""NumPy programs that score all items for histories, by the name in `Classical.scoring`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.bpr_vectors import Negatives, fold_in
from anyrec.data.scoring.history_batches import CELLS, history_batches
from anyrec.data.scoring.positions import Positions

SAME_FOR_ALL = "same_for_all"
"""The scoring of a model that is not personal. It needs not be declared."""


class Scoring(Protocol):
    """Scores all items for some users."""

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        """Return (users, items) float32 scores, an array of its own.

        Args:
            rows: (users,) the users' rows when the model was fitted; -1 for others.
            histories: The distinct items of each user, ascending.
        """
        ...


class SameForAll:
    """One list for all users. State: `scores` (items,)."""

    def __init__(self, state: JsonObject):
        self.scores = state["scores"]

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return np.tile(self.scores, (len(rows), 1))


class HistoryWeights:
    """The sum of the weights of the history's items. State: `weights` (items of the history, listed items)."""

    def __init__(self, state: JsonObject):
        self.weights = state["weights"]

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return sums(histories, self.weights)


class Neighbours:
    """As `HistoryWeights`, with a sparse matrix.

    State: `offsets` (items + 1,), `columns` and `values` (entries,): the entries `offsets[h]:offsets[h + 1]` are the
    items that item h of a history adds values to.
    """

    def __init__(self, state: JsonObject):
        self.columns, self.values = state["columns"], state["values"]
        self.entries = Pairs(np.arange(len(self.columns)), state["offsets"])

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        items = len(self.entries.offsets) - 1
        found = np.zeros((len(rows), items), np.float32)
        of_pairs = np.concatenate([[0], np.cumsum(self.entries.counts()[histories.items])])[histories.offsets]
        for start, stop in blocks(np.diff(of_pairs)):
            low, high = histories.offsets[start], histories.offsets[stop]
            pairs, entries = self.entries.take(histories.items[low:high])
            users = np.repeat(np.arange(stop - start), histories.counts()[start:stop])[pairs]
            np.add.at(found[start:stop].reshape(-1), users * items + self.columns[entries], self.values[entries])
        return found


class Vectors:
    """Dot products of users' and items' vectors. State: `vectors` (items, dim)."""

    def __init__(self, state: JsonObject):
        self.vectors = state["vectors"]

    def user_vectors(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        """Return (users, dim) float32; arguments as of `Scoring.score`."""
        raise NotImplementedError

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return self.user_vectors(rows, histories) @ self.vectors.T


class HistoryVectors(Vectors):
    """A user's vector is the sum of those of the history."""

    def user_vectors(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return sums(histories, self.vectors)


class IALS(Vectors):
    """A user's vector is solved from the history (`anyrec.interaction.ials_vectors.whitened_users`).

    State: also `whitened` (items, dim), W of that function; `root` (dim, dim), L; `alpha`.
    """

    def __init__(self, state: JsonObject):
        super().__init__(state)
        self.whitened, self.root, self.alpha = state["whitened"], state["root"], float(state["alpha"])

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return self._whitened_users(histories) @ self.whitened.T

    def user_vectors(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        return np.linalg.solve(self.root.T, self._whitened_users(histories).astype(np.float64).T).T.astype(np.float32)

    def _whitened_users(self, histories: Pairs) -> np.ndarray:
        """Return (users, dim) float32, v of the function above, by the smaller one of its two systems."""
        if self.alpha == 1:
            return sums(histories, self.whitened)
        items, dim = self.whitened.shape
        padded = np.concatenate([self.whitened, np.zeros((1, dim), np.float32)]).astype(np.float64)
        found = np.zeros((len(histories.counts()), dim), np.float32)
        for users, places in history_batches(histories, items, lambda n: n * dim + min(n, dim) ** 2):
            own = padded[places]  # (batch, longest, dim)
            transposed, longest = own.transpose(0, 2, 1), places.shape[1]
            if longest <= dim:
                system = np.eye(longest) + (self.alpha - 1) * (own @ transposed)
                solved = transposed @ np.linalg.solve(system, np.full((len(users), longest, 1), self.alpha))
            else:
                system = np.eye(dim) + (self.alpha - 1) * (transposed @ own)
                solved = np.linalg.solve(system, self.alpha * own.sum(1)[:, :, None])
            found[users] = solved[:, :, 0]
        return found


class BPR(Vectors):
    """Known users have vectors, and others are folded in. State: also `users`, `counts` (items,), `regularization`."""

    def __init__(self, state: JsonObject):
        super().__init__(state)
        self.users, self.regularization = state["users"], float(state["regularization"])
        self.negatives = Negatives.of(state["counts"])

    def user_vectors(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        found = np.zeros((len(rows), self.vectors.shape[1]), np.float32)
        known, new = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        found[known] = self.users[rows[known]]
        if len(new):
            found[new] = fold_in(part_of(histories, new), self.vectors, self.negatives, self.regularization)
        return found


class Trending:
    """Learned popularity (`anyrec.interaction.trending.Trending`, whose `state` it reads, and `half_life`)."""

    def __init__(self, state: JsonObject):
        self.popular, self.recent, self.history_weights = state["popular"], state["recent"], state["history_weights"]
        self.candidates, self.similarity = state["candidates"], state["similarity"]
        self.lifts, self.lift_weights, self.values = state["lifts"], state["lift_weights"], state["values"]
        self.value_columns = state["value_columns"]
        self.entries = Pairs(np.arange(len(self.values)), state["value_offsets"])
        self.positions = Positions(state["pair_keys"], state["pair_positions"])
        self.half_life = float(state["half_life"])
        self.place = np.full(len(self.recent), -1)  # of each item among the candidates
        self.place[self.candidates] = np.arange(len(self.candidates))

    def score(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        group = (histories.counts() > 0).astype(np.int64)
        chosen = self.popular[group] + self._lifts_of(rows, group)
        returning = np.flatnonzero(group)
        chosen[returning] += self._by_history(rows[returning], part_of(histories, returning))
        scores = np.tile(self.recent, (len(rows), 1))
        scores += chosen.min(1, keepdims=True) - 1  # below all candidates, as `recent` is less than 1
        scores[:, self.candidates] = chosen
        return scores.astype(np.float32, copy=False)

    def _lifts_of(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return (users, candidates), what the values of the users' features add. group: (users,) 1 with a history."""
        known = np.flatnonzero(rows >= 0)
        places, entries = self.entries.take(rows[known])
        columns, owners = self.value_columns[entries], known[places]
        values = Pairs(columns, np.searchsorted(owners, np.arange(len(rows) + 1)))
        return sums(values, self.lifts, self.values[entries] * self.lift_weights[group[owners], columns])

    def _by_history(self, rows: np.ndarray, histories: Pairs) -> np.ndarray:
        """Return (users, candidates), what EASE adds for whole histories and for their ends."""
        ends = self.positions.recency(rows, histories, len(self.recent), self.half_life)
        places = self.place[histories.items]
        inside = places >= 0
        pairs = Pairs(places[inside], histories.where(inside).offsets)
        found = np.stack([sums(pairs, self.similarity, weights) for weights in (None, ends[inside])], 2)
        found -= found.mean(1, keepdims=True)
        spread = found.std(1, keepdims=True)
        return np.divide(found, spread, out=np.zeros_like(found), where=spread > 1e-9) @ self.history_weights


SCORINGS: dict[str, Callable[[JsonObject], Scoring]] = {
    SAME_FOR_ALL: SameForAll,
    "history_weights": HistoryWeights,
    "neighbours": Neighbours,
    "history_vectors": HistoryVectors,
    "ials": IALS,
    "bpr": BPR,
    "trending": Trending,
}
"""The programs, each made of the state in an export (`Classical.exported_state`)."""


def sums(histories: Pairs, table: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return (users, columns) float32, the sum of the rows of each user.

    Args:
        histories: The rows of each user.
        table: (rows, columns) float32.
        weights: (pairs,) float32, what the row of each pair is multiplied by; 1 by default.
    """
    counts, offsets = histories.counts(), histories.offsets
    found = np.zeros((len(counts), table.shape[1]), np.float32)
    for start, stop in blocks(counts * table.shape[1]):
        low, high = offsets[start], offsets[stop]
        rows = table[histories.items[low:high]]
        if weights is not None:
            rows *= weights[low:high, None]
        active = np.flatnonzero(counts[start:stop]) + start
        if len(active):
            found[active] = np.add.reduceat(rows, offsets[active] - low, axis=0)
    return found


def blocks(cells: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of users, so that the `cells` (users,) of each are at most CELLS, or those of one user."""
    ends, start = np.cumsum(cells, dtype=np.int64), 0
    while start < len(cells):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CELLS, side="right")))
        yield start, stop
        start = stop


def part_of(histories: Pairs, users: np.ndarray) -> Pairs:
    """Return the histories of the rows `users`."""
    owners, items = histories.take(users)
    return Pairs(items, np.searchsorted(owners, np.arange(len(users) + 1)))

"""The scores and vectors of a classical model, for users that are represented by their row and their history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from anyrec.core.contracts import Classical


class ClassicalScorer:
    """Scores users, represented by their row and their history, against items, represented by their row.

    A user without a history gets the popularity of the items as scores. So does a new user (row -1), unless the
    component reads the history of one and the request contains it.
    """

    device = torch.device("cpu")
    """Classical components compute with NumPy and SciPy."""

    def __init__(
        self,
        classical: Classical,
        matrix: sparse.csr_matrix,
        popularity: np.ndarray | None = None,
        fitted: np.ndarray | None = None,
        learned: np.ndarray | None = None,
    ):
        """
        Args:
            classical: The fitted component.
            matrix: (users, items) CSR, 1 for each item that a user interacted with: in training, or up to now if the
                component scores by history.
            popularity: (items,) number of users of each item; by default counted in `matrix`.
            fitted: (items,) bool, the items of the pairs that the component was fitted on; by default those that
                `popularity` counts.
            learned: (users,) bool, the users whose row the component knows as it is now. Not those that were added
                after the fit, nor, if the component folds users in, those with other interactions. By default all.
        """
        self.classical, self.matrix = classical, matrix
        counted = np.asarray(matrix.sum(0), np.float32).ravel() if popularity is None else popularity
        self.popularity = counted.astype(np.float32)
        self.fitted = self.popularity > 0 if fitted is None else fitted
        self.learned = np.ones(len(matrix.indptr) - 1, bool) if learned is None else learned

    def pair_width(self, items: Tensor) -> int:
        """Return 1, the number that `score` holds for each pair."""
        return 1

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Score users against items.

        Args:
            users: (batch, 1) rows of users, or (batch, 2 or more) as `represent` returns them.
            items: (items, 1) rows shared by all users, or (batch, items, 1) rows of each user's own items.

        Returns:
            (batch, items) scores.
        """
        history = self.history_of(users)
        rows = self.component_rows(users, history)
        scores = np.asarray(self.classical.score(self._readable(rows), history), np.float32)
        scores[self._unknown(rows, history)] = self.popularity
        of_all, places = torch.from_numpy(scores), items[..., 0].cpu()
        if places.dim() == 2:
            return of_all.gather(1, places).to(users.device)
        if len(places) == of_all.shape[1] and bool((places == torch.arange(len(places))).all()):
            return of_all.to(users.device)
        return of_all.index_select(1, places).to(users.device)

    def component_rows(self, users: Tensor, history: sparse.csr_matrix) -> np.ndarray:
        """Return (batch,) the row of each user for the component; -1 for one that it does not know as it is now.

        A request that brings only items which the user is known to have, changes nothing.

        Args:
            users: As for `score`.
            history: What `history_of` returns for them.
        """
        represented = users.cpu().numpy()
        rows = represented[:, 0]
        known = (rows >= 0) & self.learned[np.maximum(rows, 0)]
        if self.classical.folds_in and represented.shape[1] > 1:
            grown = np.diff(history.indptr) > np.diff(self.matrix.indptr)[np.maximum(rows, 0)]
            known &= (represented[:, 1] != 1) & ~grown
        return np.where(known, rows, -1)

    def user_vectors(self, users: Tensor) -> Tensor:
        """Return (batch, dim) the vectors of users by a `factorised` component; zeros for `unknown` users."""
        history = self.history_of(users)
        rows = self.component_rows(users, history)
        vectors = np.asarray(self.classical.user_vectors(self._readable(rows), history), np.float32)
        vectors[self._unknown(rows, history)] = 0
        return torch.from_numpy(vectors)

    def unknown(self, users: Tensor) -> np.ndarray:
        """Return (batch,) bool, the users that get the popularity of the items as scores; `users` as for `score`."""
        history = self.history_of(users)
        return self._unknown(self.component_rows(users, history), history)

    def _readable(self, rows: np.ndarray) -> np.ndarray:
        """Return rows that the component accepts: it reads no row -1 unless it reads the histories of new users."""
        return rows if self.classical.by_history or self.classical.folds_in else np.maximum(rows, 0)

    def _unknown(self, rows: np.ndarray, history: sparse.csr_matrix) -> np.ndarray:
        """Return what `unknown` does, for the component's rows of users and their histories."""
        classical = self.classical
        if not classical.personal or classical.ranks_new_users:
            return np.zeros(len(rows), bool)
        new = (rows < 0) & (not classical.by_history and not classical.folds_in)
        return new | (np.diff(history.indptr) == 0)

    def represent(self, rows: np.ndarray, owners: np.ndarray, items: np.ndarray, replaces: np.ndarray) -> Tensor:
        """Represent users whose history comes with a request.

        Args:
            rows: (batch,) rows among the known users; -1 for a new user.
            owners: (events,) rows of the batch, ascending.
            items: (events,) item rows.
            replaces: (batch,) bool, whether the history of the request replaces the known one instead of extending it.

        Returns:
            (batch, 2 + longest history) int64: the row among the known users, `replaces`, and the item rows, padded
            with -1.
        """
        counts = np.bincount(owners, minlength=len(rows))
        represented = np.full((len(rows), 2 + int(counts.max(initial=0))), -1, np.int64)
        represented[:, 0], represented[:, 1] = rows, replaces
        positions = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)  # within each history
        represented[owners, 2 + positions] = items
        return torch.from_numpy(represented)

    def history_of(self, users: Tensor) -> sparse.csr_matrix:
        """Return (batch, items) CSR, 1 for each item of a user's history. users: as for `score`."""
        represented = users.cpu().numpy()
        rows = represented[:, 0]
        known = self.matrix[np.maximum(rows, 0)]
        replaces = represented[:, 1] == 1 if represented.shape[1] > 1 else np.zeros(len(rows), bool)
        if (replaces | (rows < 0)).any():  # empty the rows whose known history does not count
            known = (sparse.diags((~replaces & (rows >= 0)).astype(np.float32)) @ known).tocsr()
        listed = represented[:, 2:]
        owners, places = np.nonzero((listed >= 0) & (listed < known.shape[1]))  # not items that were added later
        if len(owners):
            more = (np.ones(len(owners), np.float32), (owners, listed[owners, places]))
            known = (known + sparse.csr_matrix(more, known.shape)).tocsr()
        known.eliminate_zeros()
        known.data[:] = 1
        return known


class ScorerByUser(ClassicalScorer):
    """Scores each user with the scorer of one of several moments. A new user gets that of the earliest."""

    def __init__(self, scorers: Mapping[int, ClassicalScorer], levels: np.ndarray):
        """
        Args:
            scorers: The scorers by level, as in `FittedModel.levels`.
            levels: (users,) the level of each user.
        """
        first = scorers[min(scorers)]
        super().__init__(first.classical, first.matrix, first.popularity, first.fitted, first.learned)
        self.scorers, self.levels = scorers, levels

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        found = torch.empty((len(users), items.shape[-2]), device=users.device)
        for mine, scorer in self._by_level(users):
            found[mine] = scorer.score(users[mine], items[mine] if items.dim() == 3 else items)
        return found

    def user_vectors(self, users: Tensor) -> Tensor:
        found = torch.empty((len(users), self.classical.item_vectors().shape[1]))
        for mine, scorer in self._by_level(users):
            found[mine] = scorer.user_vectors(users[mine])
        return found

    def unknown(self, users: Tensor) -> np.ndarray:
        found = np.zeros(len(users), bool)
        for mine, scorer in self._by_level(users):
            found[mine.cpu().numpy()] = scorer.unknown(users[mine])
        return found

    def _by_level(self, users: Tensor) -> Iterator[tuple[Tensor, ClassicalScorer]]:
        """Yield the positions of the users of each level, and their scorer."""
        rows = users[:, 0].cpu().numpy()
        levels = np.where(rows < 0, min(self.scorers), self.levels[np.maximum(rows, 0)])
        for level in np.unique(levels):
            yield torch.from_numpy(np.flatnonzero(levels == level)).to(users.device), self.scorers[int(level)]

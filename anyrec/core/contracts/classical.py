"""Classical models: fitted at once on the interaction matrix, without the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from anyrec.core.params import Params as Options
from anyrec.core.types import ComponentParams, JsonObject, SparseMatrix


class TrainingMatrix(NamedTuple):
    """The training positives, as a classical model reads them.

    Attributes:
        matrix: (users, items) `scipy.sparse.csr_matrix` of float32, 1 for each distinct pair.
        users: (pairs,) user rows of the distinct pairs, sorted by user, then item.
        items: (pairs,) item rows of the same pairs.
        days: (pairs,) float64, time of the latest interaction of each pair, in days; None without timestamps.
        item_table: The items' features, one row for each item.
        seed: Seed for any randomness.
        user_table: The users' features, one row for each user; None for none.
    """

    matrix: SparseMatrix
    users: np.ndarray
    items: np.ndarray
    days: np.ndarray | None
    item_table: pa.Table
    seed: int
    user_table: pa.Table | None = None


class Step(NamedTuple):
    """The difference between neighbouring values of a tuned option (`Classical.search`).

    Attributes:
        difference: Greater than 0.

    Example:
        search = {"target_exponent": Step(0.125)}
    """

    difference: float


class Classical:
    """A model of the interaction matrix that is fitted at once, without the training loop.

    Args:
        params: The options; by default those of `Params()`.

    Attributes:
        type: Name of the model in a config (`model.type`).
        needs: What the data must have: "timestamps", "content" (texts or categories of items).
        personal: Whether the scores depend on the user. Users without a history then get the most popular items
            instead, unless `ranks_new_users`.
        ranks_new_users: Whether `score` also ranks items for users without a history.
        by_history: Whether `score` reads only the user's own history, so that it scores users who were not in training.
        folds_in: Whether known users have vectors of their own that `fit` learned, and other users (row -1) get theirs
            from the history.
        factorised: Whether a score is the dot product of a user's and an item's vector (`user_vectors`,
            `item_vectors`). The model then has embeddings, and its items can be indexed.
        counts: Whether `fit` counts the past, as popularity does, instead of learning weights. Counts are state: before
            a part of the split is evaluated, all positives of the earlier parts are counted; for serving, all.
        backtested: Whether `fit` learns at past moments what users chose after each of them. On a split by time a blend
            prefers such a model, since the evidence of one validation period counts less.
        baseline: Whether the report measures it as a baseline by default.
        most_items: Number of items above which it is not fitted as a baseline by default; None for no limit.
        search: The options that are tuned on validation (`anyrec.training.tune`), the most important first. For each:
            the factor between neighbouring values (greater than 1), or a `Step` for options that are tried by
            differences, such as exponents. Values that the option's bounds exclude are not tried.
        search_limits: The greatest values that tuning tries, for options whose cost grows with them.
        tuned_items: Number of the most popular items that the fits of tuning are restricted to, for a model whose cost
            grows fast with the items; None for all. The chosen options are then fitted to all items.
        scoring: Name of the NumPy program that scores in an exported model (`anyrec.data.scoring.kinds.SCORINGS`);
            empty if there is none, so that a `personal` model cannot be exported. It counts only for the class that
            sets it, since a subclass may score otherwise.

    Example:
        class Recent(Classical):
            type = "recent"
            needs = ("timestamps",)
            personal = False
            counts = True

            def fit(self, training):
                self.latest = np.full(training.matrix.shape[1], -np.inf, np.float32)
                np.maximum.at(self.latest, training.items, training.days.astype(np.float32))

            def score(self, rows, matrix):
                return np.tile(self.latest, (len(rows), 1))

            def state(self):
                return {"latest": self.latest}

            def restore(self, state):
                self.latest = state["latest"]
    """

    type: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    personal: ClassVar[bool] = True
    ranks_new_users: ClassVar[bool] = False
    by_history: ClassVar[bool] = False
    folds_in: ClassVar[bool] = False
    factorised: ClassVar[bool] = False
    counts: ClassVar[bool] = False
    backtested: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    most_items: ClassVar[int | None] = None
    search: ClassVar[Mapping[str, float | Step]] = {}
    search_limits: ClassVar[Mapping[str, float]] = {}
    tuned_items: ClassVar[int | None] = None
    scoring: ClassVar[str] = ""

    Params: ClassVar[type[Options]] = Options
    """The class of the options: a component declares its own as a nested class `Params`."""

    def __init__(self, params: BaseModel | None = None):
        self.params: ComponentParams = params if params is not None else type(self).Params()

    def fit(self, training: TrainingMatrix) -> None:
        """Learn from the training positives.

        Raises:
            MissingDependency: A library that the model needs is not installed.
        """
        raise NotImplementedError(f"model '{self.type}' has no fit()")

    def automatic(self, training: TrainingMatrix) -> dict[str, float]:
        """Return the values that `fit` uses for those options in `search` that are None, where tuning starts."""
        return {}

    def score(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        """Score all items for some users; by default, if the model is `factorised`, by their vectors.

        Args:
            rows: (batch,) user rows; -1 for a user who was not in training (only if `by_history` or `folds_in`).
            matrix: (batch, items) `scipy.sparse.csr_matrix`, the users' own histories.

        Returns:
            (batch, items) float32.
        """
        if self.factorised:
            return self.user_vectors(rows, matrix) @ self.item_vectors().T
        raise NotImplementedError(f"model '{self.type}' has no score()")

    def user_vectors(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        """Return the vectors of some users, (batch, dim) float32; arguments as for `score`. For `factorised` models."""
        raise NotImplementedError(f"model '{self.type}' has no user_vectors()")

    def item_vectors(self) -> np.ndarray:
        """Return the vectors of all items, (items, dim) float32. For `factorised` models."""
        raise NotImplementedError(f"model '{self.type}' has no item_vectors()")

    def similar(self, rows: np.ndarray) -> np.ndarray | None:
        """Compute the similarity of all items to some items.

        Args:
            rows: (batch,) item rows.

        Returns:
            (batch, items) similarities. None if the model is `factorised` and the similarity is the cosine of the item
            vectors, or if the model has no item similarity.
        """
        return None

    def state(self) -> dict[str, np.ndarray]:
        """Return what `fit` learned, as named arrays."""
        raise NotImplementedError(f"model '{self.type}' has no state()")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take back what `state` returned."""
        raise NotImplementedError(f"model '{self.type}' has no restore()")

    def export_fault(self) -> str:
        """Return why the model cannot be exported, as the end of a sentence; empty if it can."""
        declared = bool(vars(type(self)).get("scoring")) or not self.personal
        return "" if declared else "its score() has no counterpart in NumPy (`scoring`)"

    def exported_state(self, users: bool) -> JsonObject:
        """Return what `scoring` reads, by default `state`. A model that is not `personal` needs none.

        Args:
            users: Whether to include what `fit` learned of single users. Without it all users are new ones.
        """
        return dict(self.state())

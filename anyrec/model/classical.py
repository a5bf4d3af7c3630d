"""The fitted classical model, such as item-kNN, which scores all items for a user's row and history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import sparse
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Classical, TrainingMatrix
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side
from anyrec.data.labels import MICROSECONDS_A_DAY
from anyrec.data.pairs import Pairs
from anyrec.data.split import NOW, Part
from anyrec.model.added_users import AddedUsers, WiderPairs
from anyrec.model.classical_scorer import ClassicalScorer, ScorerByUser
from anyrec.model.fitted import STATES, FittedModel
from anyrec.model.records import Records, with_changed_items
from anyrec.model.request_reader import TRAIN_TOWERS, Reads


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassicalModel(FittedModel):
    """A classical component with the users and items it was fitted on.

    Attributes:
        scorer: The component and the histories of the users.
        matrix_parts: (pairs,) uint8, as `seen_parts`, for the entries of the scorer's matrix; None if the matrix has
            training interactions only.
        past: For a component that counts, the components that counted the positives before each held-out part; None
            for others, and for models saved by a version that counted the training part only.
    """

    scorer: ClassicalScorer
    matrix_parts: np.ndarray | None = None
    past: Mapping[Part, Classical] | None = None
    has_vectors: bool = False

    @property
    def reads_history(self) -> bool:
        return self.scorer.classical.by_history or self.scorer.classical.folds_in

    @property
    def factorised(self) -> bool:
        return self.has_vectors

    def reads(self) -> Reads:
        classical, pipeline = self.scorer.classical, self.config.pipeline is not None
        personal = classical.personal or pipeline
        return Reads({"user": [], "item": []}, self.reads_history or pipeline, personal, classical.type)

    def describe(self) -> list[str]:
        options = ", ".join(f"{name} {value}" for name, value in self.scorer.classical.params)
        return [f"model: {self.scorer.classical.type}" + (f" ({options})" if options else "")]

    def about(self) -> JsonObject:
        return {"name": self.config.name, "type": self.config.model.type}

    def before(self, part: Part | np.ndarray) -> Self:
        levels = self.levels(part)
        scorers = {int(level): self._scorer_before(int(level), levels) for level in np.unique(levels)}
        scorer = next(iter(scorers.values())) if len(scorers) == 1 else ScorerByUser(scorers, levels)
        history = self.histories_before(levels, True)
        return replace(self, scorer=scorer, seen=self.seen_before(part), history=history)

    def _scorer_before(self, level: int, levels: np.ndarray) -> ClassicalScorer:
        """Return the scorer at a level: its counts and its popularity are those of earlier parts, for all users.

        Nothing is earlier than the training part, so its own counts are used there, as the weights of other models are.

        Args:
            level: As in `levels`.
            levels: (users,) the level of each user, whose own history ends there.
        """
        level, classical, matrix = max(level, 1), self.scorer.classical, self.scorer.matrix
        fitted = self.scorer.fitted if self.past is None else None
        if self.past is not None and level < NOW:
            classical = self.past["validation" if level == 1 else "test"]
        learned = self.scorer.learned
        if self.matrix_parts is None:
            return ClassicalScorer(classical, matrix, self.scorer.popularity, fitted, learned)
        shape = len(levels), len(self.scorer.popularity)
        pairs = Pairs(matrix.indices, matrix.indptr)
        owners = pairs.owners()
        earlier = ((1 << levels) - 1)[owners]
        if classical.folds_in and level < NOW:  # what was added for a user came later
            trained = self.matrix_parts & (3 if self.refitted else 1) != 0
            learned = np.bincount(owners[trained], minlength=shape[0]) > 0
        kept = matrix_of(pairs.where(self.matrix_parts & earlier != 0), shape)
        counted = pairs.items[self.matrix_parts & ((1 << level) - 1) != 0]
        return ClassicalScorer(classical, kept, np.bincount(counted, minlength=shape[1]), fitted, learned)

    def representations(self, side: Side) -> Tensor:
        return self.computed.get(side, lambda: torch.arange(len(self.dataset.table(side))).unsqueeze(1))

    def user_representations(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).unsqueeze(1)

    def represent(self, records: Records) -> Tensor:
        """Return the rows of the records, with the histories of the request; a new user has row -1.

        Raises:
            DataError: For unknown items.
        """
        if records.side == "item":
            self.rows_of("item", records.ids)
        if records.history is None or not self.reads_history:
            return torch.from_numpy(records.rows).unsqueeze(1)
        events = records.history.take(np.flatnonzero(records.history.positive))
        return self.scorer.represent(records.rows, events.owners, events.items, events.replaces)

    def predict(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        return {"score": self.scorer.score(users, items.unsqueeze(1)).squeeze(1)}

    def similar_items(self, rows: np.ndarray) -> np.ndarray | None:
        similarity = self.scorer.classical.similar(rows)
        if similarity is not None:
            return np.asarray(similarity, np.float32)
        if not self.has_vectors:
            raise self.unable("no notion of similar items")
        return None

    def with_items(self, records: Records, *, replace_known: bool = False) -> FittedModel:
        if (records.rows < 0).any():
            hint = "Leave new items out, or train a two_tower."
            raise self.unable("no way to score items that it was not fitted on", hint)
        return replace(self, dataset=with_changed_items(self.dataset, records)) if replace_known else self

    def with_added_users(self, added: AddedUsers, shared: JsonObject) -> Self:
        scorer, history, matrix = self.scorer, added.records.history, self.scorer.matrix
        owners = items = np.empty(0, np.int64)
        replaced = np.zeros(len(added.rows), bool)
        if history is not None:
            liked = history.positive & (history.items < len(scorer.popularity))
            owners, items, replaced = history.owners[liked], history.items[liked], history.replaces
        trained = np.ones(matrix.nnz, np.uint8)  # of a matrix without parts, all pairs are those of training
        parts = trained if self.matrix_parts is None else self.matrix_parts
        known = WiderPairs(Pairs(matrix.indices, matrix.indptr), parts)
        wider = added.pairs(known, owners, items, replaced)
        learned = np.zeros(added.count, bool)
        learned[: len(scorer.learned)] = scorer.learned
        if scorer.classical.folds_in:
            before = np.zeros(added.count, np.int64)
            before[: len(scorer.learned)] = np.diff(matrix.indptr)
            learned[wider.pairs.counts() > before] = False
            learned[added.rows[replaced]] = False
        shape = added.count, len(scorer.popularity)
        scorer = ClassicalScorer(
            scorer.classical, matrix_of(wider.pairs, shape), scorer.popularity, scorer.fitted, learned
        )
        computed = self.computed.without(*STATES, "user")
        return replace(self, scorer=scorer, matrix_parts=wider.parts, computed=computed, **shared)

    def with_prepared_features(self) -> Self:
        return self

    def vectors(self, side: Side, representations: Tensor) -> Tensor:
        if not self.has_vectors:
            raise self.unable("no embeddings", f"{TRAIN_TOWERS} Or a factorisation, such as 'ials'.")
        if side == "user":
            return self.scorer.user_vectors(representations)
        rows = representations[:, 0].cpu().numpy()  # an index of one number that is a tensor would be a scalar
        return torch.from_numpy(np.asarray(self.scorer.classical.item_vectors(), np.float32)[rows])

    def without_vector(self, users: Tensor) -> np.ndarray:
        return self.scorer.unknown(users)

    def token_embeddings(self, side: Side) -> NoReturn:
        raise self.unable("no vectors of features")

    def user_tokens(self, rows: np.ndarray) -> NoReturn:
        raise self.unable("no vectors of features")

    def tokens(self, records: Records) -> NoReturn:
        raise self.unable("no vectors of features")


def make_classical(config: Config, registry: Registry) -> Classical:
    """Create the component that `model` of the config names, unfitted."""
    name = config.model.type
    params = registry.params("classical", name, config.model.options(), "/model")
    return registry.get("classical", name, "/model/type")(params)


def matrix_of(pairs: Pairs, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return pairs as a CSR matrix of float32, 1 for each pair.

    Args:
        pairs: The pairs.
        shape: Number of users and of items.
    """
    ones = np.ones(len(pairs.items), np.float32)
    return sparse.csr_matrix((ones, pairs.items.astype(np.int32), pairs.offsets.astype(np.int32)), shape)


def check_classical(classical: Classical, users: int, items: int) -> None:
    """Check that a restored component can score the first and the last user.

    Args:
        classical: The component.
        users: Number of users that it was fitted on.
        items: Number of items that it was fitted on.

    Raises:
        ValueError: If it does not return a number for each item.
    """
    matrix = sparse.csr_matrix((np.ones(2, np.float32), ([0, 1], [0, items - 1])), (2, items))
    scores = np.asarray(classical.score(np.array([0, users - 1]), matrix))
    if scores.shape != (2, items) or scores.dtype.kind != "f" or np.isnan(scores).any():
        raise ValueError(f"scores of {items} items were expected; found {scores.dtype} {scores.shape}")
    if classical.factorised:
        vectors = classical.item_vectors()
        if vectors.ndim != 2 or len(vectors) != items:
            raise ValueError(f"vectors of {items} items were expected; found {vectors.shape}")


def training_matrix(dataset: Dataset, rows: np.ndarray, seed: int) -> TrainingMatrix:
    """Return the training matrix of the interactions `rows`."""
    users, items = dataset.user_rows[rows], dataset.item_rows[rows]
    pairs = Pairs.of(users, items, len(dataset.users))
    owners = pairs.owners()
    matrix = matrix_of(pairs, (len(dataset.users), len(dataset.items)))
    days = _last_days(dataset, rows, owners, pairs.items)
    return TrainingMatrix(matrix, owners, pairs.items, days, dataset.items, seed, dataset.users)


def _last_days(dataset: Dataset, rows: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray | None:
    """Return (pairs,) float64, the last time of each pair in days since 1970; None if no interaction has a timestamp.

    An interaction without a timestamp counts as the earliest one.

    Args:
        dataset: The data.
        rows: (rows,) the interactions.
        users: (pairs,) user rows, ascending.
        items: (pairs,) item rows, ascending within each user.
    """
    timestamps = dataset.column("timestamp")
    if timestamps is None or timestamps.null_count == len(timestamps):
        return None
    moments = timestamps.cast(pa.int64())
    times = pc.fill_null(moments, pc.min(moments))
    days = times.to_numpy(zero_copy_only=False)[rows] / MICROSECONDS_A_DAY
    keys = users.astype(np.int64) << 32 | items
    place = np.searchsorted(keys, dataset.user_rows[rows].astype(np.int64) << 32 | dataset.item_rows[rows])
    last = np.full(len(keys), -np.inf)
    np.maximum.at(last, place, days)
    return last

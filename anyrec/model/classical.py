"""The fitted classical model, such as item-kNN, which scores all items from a user's history and has no embeddings."""

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
from anyrec.model.fitted import FittedModel
from anyrec.model.records import Records
from anyrec.model.request_reader import Reads


class ClassicalScorer:
    """Scores users, represented by their row and their history, against items, represented by their row.

    A user without a history gets the popularity of the items as scores. So does a new user (row -1), unless the
    component scores by history and the request contains one.
    """

    device = torch.device("cpu")
    """Classical components compute with NumPy and SciPy."""

    def __init__(
        self,
        classical: Classical,
        matrix: sparse.csr_matrix,
        popularity: np.ndarray | None = None,
        fitted: np.ndarray | None = None,
    ):
        """
        Args:
            classical: The fitted component.
            matrix: (users, items) CSR, 1 for each item that a user interacted with: in training, or up to now if the
                component scores by history.
            popularity: (items,) number of users of each item; by default counted in `matrix`.
            fitted: (items,) bool, the items of the pairs that the component was fitted on; by default those that
                `popularity` counts.
        """
        self.classical, self.matrix = classical, matrix
        counted = np.asarray(matrix.sum(0), np.float32).ravel() if popularity is None else popularity
        self.popularity = counted.astype(np.float32)
        self.fitted = self.popularity > 0 if fitted is None else fitted

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
        rows = users[:, 0].cpu().numpy()
        known = rows if self.classical.by_history else np.maximum(rows, 0)
        history = self.history_of(users)
        scores = np.asarray(self.classical.score(known, history), np.float32)
        if self.classical.personal and not self.classical.ranks_new_users:
            new = (rows < 0) & (not self.classical.by_history)
            scores[new | (np.diff(history.indptr) == 0)] = self.popularity
        of_all, places = torch.from_numpy(scores), items[..., 0].cpu()
        if places.dim() == 2:
            return of_all.gather(1, places).to(users.device)
        if len(places) == of_all.shape[1] and bool((places == torch.arange(len(places))).all()):
            return of_all.to(users.device)
        return of_all.index_select(1, places).to(users.device)

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
        owners, places = np.nonzero(represented[:, 2:] >= 0)
        if len(owners):
            more = (np.ones(len(owners), np.float32), (owners, represented[owners, 2 + places]))
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
        super().__init__(first.classical, first.matrix, first.popularity, first.fitted)
        self.scorers, self.levels = scorers, levels

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        rows = users[:, 0].cpu().numpy()
        levels = np.where(rows < 0, min(self.scorers), self.levels[np.maximum(rows, 0)])
        found = torch.empty((len(rows), items.shape[-2]), device=users.device)
        for level in np.unique(levels):
            mine = torch.from_numpy(np.flatnonzero(levels == level)).to(users.device)
            found[mine] = self.scorers[int(level)].score(users[mine], items[mine] if items.dim() == 3 else items)
        return found


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
        return self.scorer.classical.by_history

    def reads(self) -> Reads:
        classical, pipeline = self.scorer.classical, self.config.pipeline is not None
        personal = classical.personal or pipeline
        return Reads({"user": [], "item": []}, classical.by_history or pipeline, personal, classical.type)

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
        if self.matrix_parts is None:
            return ClassicalScorer(classical, matrix, self.scorer.popularity, fitted)
        shape = len(levels), len(self.scorer.popularity)
        pairs = Pairs(matrix.indices, matrix.indptr)
        earlier = ((1 << levels) - 1)[pairs.owners()]
        kept = matrix_of(pairs.where(self.matrix_parts & earlier != 0), shape)
        counted = pairs.items[self.matrix_parts & ((1 << level) - 1) != 0]
        return ClassicalScorer(classical, kept, np.bincount(counted, minlength=shape[1]), fitted)

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

    def similar_items(self, rows: np.ndarray) -> np.ndarray:
        similarity = self.scorer.classical.similar(rows)
        if similarity is None:
            raise self.unable("no notion of similar items")
        return np.asarray(similarity, np.float32)

    def with_items(self, records: Records) -> FittedModel:
        if (records.rows < 0).any():
            hint = "Leave new items out, or train a two_tower."
            raise self.unable("no way to score items that it was not fitted on", hint)
        return self

    def with_prepared_features(self) -> Self:
        return self

    def vectors(self, side: Side, representations: Tensor) -> NoReturn:
        raise self.unable("no embeddings")

    def token_embeddings(self, side: Side) -> NoReturn:
        raise self.unable("no embeddings")

    def user_tokens(self, rows: np.ndarray) -> NoReturn:
        raise self.unable("no embeddings")

    def tokens(self, records: Records) -> NoReturn:
        raise self.unable("no embeddings")


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

    Raises:
        ValueError: If it does not return a number for each item.
    """
    matrix = sparse.csr_matrix((np.ones(2, np.float32), ([0, 1], [0, items - 1])), (2, items))
    scores = np.asarray(classical.score(np.array([0, users - 1]), matrix))
    if scores.shape != (2, items) or scores.dtype.kind != "f" or np.isnan(scores).any():
        raise ValueError(f"scores of {items} items were expected; found {scores.dtype} {scores.shape}")


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

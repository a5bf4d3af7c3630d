"""A classical model (EASE, item_knn, ials, ...) as a source, fitted on the model's training positives."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, Field
from scipy import sparse

from anyrec.core.config import Component
from anyrec.core.contracts import Classical
from anyrec.model.classical import check_classical, training_matrix
from anyrec.model.fitted import FittedModel
from anyrec.model.model_data import ModelData
from anyrec.model.scoring import top_k
from anyrec.pipeline.candidate_lists import empty_lists, listable_items, lists_of_ranks
from anyrec.pipeline.contracts import Lists, Request, Source

TRAINED = "trained users"
"""Key of the state of the source; a classical model has arrays of other names."""


class ClassicalSource(Source):
    """Retrieves the items with the highest scores of a classical model.

    Users without a history, and users that the model cannot score, get no candidates.
    """

    type = "classical"

    class Params(Source.Params):
        model: Component = Field(
            default_factory=lambda: Component(type="ease"),
            description="The classical model by `type`, with its own options.",
            json_schema_extra={"kind": "classical"},
        )

    params: Params

    def __init__(self, params: BaseModel | None = None):
        super().__init__(params)
        self.classical: Classical | None = None
        self.saved: dict[str, np.ndarray] = {}
        self.size = self.users = 0  # number of items and of users in training

    def check(self, model: ModelData) -> None:
        self._make(model)

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        classical = self._make(model)
        training = training_matrix(model.dataset, rows, model.config.seed)
        self.size, self.users = len(model.dataset.items), len(model.dataset.users)
        classical.fit(training)
        self.classical = classical

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """Return the best items for each user's current history (for models with user vectors: that of training)."""
        classical = self._fitted(request.model)
        owners, items, _ = request.events
        known = items < self.size
        matrix = sparse.csr_matrix(
            (np.ones(known.sum(), np.float32), (owners[known], items[known])), (len(request.rows), self.size)
        )
        matrix.data[:] = 1
        rows = np.where(request.rows < self.users, request.rows, -1)  # users can be added after training
        reads_new = classical.by_history or classical.folds_in
        able = np.flatnonzero((np.diff(matrix.indptr) > 0) & (reads_new | (rows >= 0)))
        if not len(able):
            return empty_lists(len(request.rows))
        scores = np.asarray(classical.score(rows[able], matrix[able]), np.float32)
        listable = listable_items(request, allowed)
        if listable is not None:
            listable = listable if listable.ndim == 1 else listable[able]
            scores = np.where(listable[..., : self.size], scores, -np.inf)
        return _best(scores, able, len(request.rows), k)

    def state(self) -> dict[str, np.ndarray]:
        learned = self.saved if self.classical is None else self.classical.state()
        return {"size": np.array([self.size]), TRAINED: np.array([self.users]), **learned}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.classical = None
        self.saved = {name: values for name, values in state.items() if name not in ("size", TRAINED)}
        self.size = int(state["size"][0])
        self.users = int(state[TRAINED][0]) if TRAINED in state else 0

    def check_restored(self, model: FittedModel) -> None:
        classical = self._fitted(model)
        users, count = len(model.dataset.users), len(model.dataset.items)
        self.users = self.users or users  # a model of a version that did not save it
        if not 0 < self.size <= count or not 0 < self.users <= users:
            raise ValueError(f"it was fitted on {self.users} users and {self.size} items, of {users} and {count}")
        check_classical(classical, self.users, self.size)

    def _fitted(self, model: FittedModel) -> Classical:
        """Return the fitted model, which a loaded source makes at the first use."""
        if self.classical is None:
            classical = self._make(model)
            classical.restore(self.saved)
            self.classical = classical  # last: another thread uses it as soon as it is set
        return self.classical

    def _make(self, model: ModelData) -> Classical:
        """Return the classical model, not fitted. Raises ConfigError for an unknown name or invalid options."""
        component, registry, where = self.params.model, model.registry, "/pipeline/retrieve/sources/model"
        options = registry.params("classical", component.type, component.options(), where)
        return registry.get("classical", component.type, f"{where}/type")(options)


def _best(scores: np.ndarray, users: np.ndarray, count: int, k: int) -> Lists:
    """Return the k best items of some users; ties in the order of item rows.

    Args:
        scores: (scored, items), -inf for items that may not be listed.
        users: (scored,) request row of each user.
        count: The number of users of the request.
        k: The maximum length of a list.
    """
    values, places = top_k(torch.from_numpy(scores), min(k, scores.shape[1]))
    rows, ranks = np.nonzero(values.numpy() > -np.inf)
    return lists_of_ranks(users[rows], places.numpy()[rows, ranks], values.numpy()[rows, ranks], ranks + 1, count)

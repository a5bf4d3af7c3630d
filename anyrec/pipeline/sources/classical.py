"""A classical model (EASE, item_knn, ials, ...) as a source, fitted on what the model learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field
from scipy import sparse

from anyrec.core.config import Component
from anyrec.core.contracts import Classical
from anyrec.model.classical import check_classical, training_matrix
from anyrec.model.fitted import FittedModel, ModelData
from anyrec.pipeline.candidate_lists import empty_lists, listable_items, lists_of_ranks
from anyrec.pipeline.contracts import Lists, Request, Source


class ClassicalSource(Source):
    """What a classical model ranks highest; those it cannot score, as users never seen, get nothing from it."""

    type = "classical"
    classical: Classical | None = None
    """The fitted model; None after `restore`, until the first request."""

    class Params(Source.Params):
        model: Component = Field(
            default_factory=lambda: Component(type="ease"),
            description="The model by `type`, with its own options.",
            json_schema_extra={"kind": "classical"},
        )

    def check(self, model: ModelData) -> None:
        self._make(model)

    def fit(self, model: FittedModel, rows: np.ndarray) -> None:
        classical = self._make(model)
        training = training_matrix(model.dataset, rows, model.config.seed)
        self.size = len(model.dataset.items)
        classical.fit(training)
        self.classical = classical

    def retrieve(self, request: Request, k: int, allowed: np.ndarray | None) -> Lists:
        """A user's own history is what is known of it at this moment; models with a vector a user know it from training alone."""
        classical = self.classical or self._restored(request.model)
        owners, items, _ = request.events
        known = items < self.size
        matrix = sparse.csr_matrix(
            (np.ones(known.sum(), np.float32), (owners[known], items[known])), (len(request.rows), self.size)
        )
        matrix.data[:] = 1
        able = np.flatnonzero((np.diff(matrix.indptr) > 0) & (classical.by_history | (request.rows >= 0)))
        if not len(able):
            return empty_lists(len(request.rows))
        scores = np.asarray(classical.score(request.rows[able], matrix[able]), np.float32)
        shown = listable_items(request, allowed)
        if shown is not None:
            scores = np.where((shown if shown.ndim == 1 else shown[able])[..., : self.size], scores, -np.inf)
        return _best(scores, able, len(request.rows), k)

    def state(self) -> dict[str, np.ndarray]:
        learned = self.saved if self.classical is None else self.classical.state()
        return {"size": np.array([self.size]), **learned}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.saved = {name: values for name, values in state.items() if name != "size"}
        self.size = int(state["size"][0])

    def check_restored(self, model: FittedModel) -> None:
        classical = self._restored(model)
        users, count = len(model.dataset.users), len(model.dataset.items)
        if not 0 < self.size <= count:
            raise ValueError(f"it was fitted on {self.size} items, of {count}")
        check_classical(classical, users, self.size)

    def _restored(self, model: FittedModel) -> Classical:
        """Make the model from what was saved."""
        classical = self._make(model)
        classical.restore(self.saved)
        self.classical = classical  # last, because other threads use it from here on
        return classical

    def _make(self, model: ModelData) -> Classical:
        component, registry, where = self.params.model, model.registry, "/pipeline/retrieve/sources/model"
        options: Any = registry.params("classical", component.type, component.options(), where)
        made = registry.get("classical", component.type, f"{where}/type")(options)
        return made


def _best(scores: np.ndarray, users: np.ndarray, count: int, k: int) -> Lists:
    """scores: (some, items) of the users in `users`, -inf where barred -> the k best of each, equal ones by item."""
    import torch

    from anyrec.model.scoring import top_k

    values, places = top_k(torch.from_numpy(scores), min(k, scores.shape[1]))
    rows, ranks = np.nonzero(values.numpy() > -np.inf)
    return lists_of_ranks(users[rows], places.numpy()[rows, ranks], values.numpy()[rows, ranks], ranks + 1, count)

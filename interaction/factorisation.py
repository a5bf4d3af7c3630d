"""Matrix factorisations: a vector for each user and item, whose dot product is the score."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np
from pydantic import Field
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

from anyrec.core.contracts import Classical, Params, TrainingMatrix
from anyrec.core.errors import MissingDependency
from anyrec.core.types import JsonObject, SparseMatrix
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.bpr_vectors import Negatives, fold_in
from anyrec.interaction.ials_vectors import gram_root, unwhitened_users, whitened_items, whitened_users


class IALS(Classical):
    """Matrix factorisation by weighted least squares. Uses the library `implicit`.

    The library alternates between users and items. Afterwards a user's vector is solved from the user's history and
    the vectors of the items, as in one more half-step (`whitened_users`). So users who were not in training, and
    interactions after training, count as well.

    References:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, 2008.
    """

    type = "ials"
    by_history = True
    factorised = True
    scoring = "ials"
    search = {"alpha": 3.0, "regularization": 2.0, "factors": 2.0}
    # ML-1M, random split, validation ndcg@10: 0.2312 with 512 factors, 0.2319 with 1,024, in three times the time
    search_limits = {"factors": 512}

    class Params(Params):
        factors: int = Field(128, ge=1, le=4096, description="Dimension of the vectors.")
        regularization: float = Field(20.0, ge=0, le=1e6, description="L2 penalty on the vectors.")
        alpha: float = Field(1.0, ge=1e-6, le=1e6, description="Confidence in an interaction, relative to none.")
        iterations: int = Field(15, ge=1, le=10_000, description="Alternating updates of users and items.")

    def fit(self, training: TrainingMatrix) -> None:
        model = fit_quietly("als", "AlternatingLeastSquares", training, self.params.model_dump())
        self._keep(np.ascontiguousarray(model.item_factors))

    def score(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return whitened_users(matrix, self.whitened, self.params.alpha) @ self.whitened.T

    def user_vectors(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return unwhitened_users(whitened_users(matrix, self.whitened, self.params.alpha), self.root)

    def item_vectors(self) -> np.ndarray:
        return self.items

    def state(self) -> dict[str, np.ndarray]:
        return {"items": self.items}

    def exported_state(self, users: bool) -> JsonObject:
        return {"vectors": self.items, "whitened": self.whitened, "root": self.root, "alpha": self.params.alpha}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._keep(state["items"])

    def _keep(self, items: np.ndarray) -> None:
        self.items, self.root = items, gram_root(items, self.params.regularization)
        self.whitened = whitened_items(items, self.root)


class BPRMF(Classical):
    """Matrix factorisation by Bayesian personalised ranking. Uses the library `implicit`.

    The last number of an item's vector is its bias, that of a user's vector is 1. Known users keep the vectors of the
    training. The vector of a user with another history is the one that minimises the loss of the training with the
    items as they are (`fold_in`).

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009.
    """

    type = "bpr_mf"
    folds_in = True
    factorised = True
    scoring = "bpr"
    baseline = False  # iALS is also a matrix factorisation, and better on little data

    class Params(Params):
        factors: int = Field(64, ge=1, le=4096, description="Dimension of the vectors.")
        regularization: float = Field(0.01, ge=0, le=1e6, description="L2 penalty on the vectors.")
        learning_rate: float = Field(0.01, ge=1e-10, le=1000, description="Step size of gradient descent.")
        iterations: int = Field(100, ge=1, le=10_000, description="Passes over the training pairs.")

    def fit(self, training: TrainingMatrix) -> None:
        model = fit_quietly("bpr", "BayesianPersonalizedRanking", training, self.params.model_dump())
        counts = np.bincount(training.items, minlength=training.matrix.shape[1]).astype(np.float32)
        self.restore(
            {
                "users": np.ascontiguousarray(model.user_factors),
                "items": np.ascontiguousarray(model.item_factors),
                "counts": counts,
            }
        )

    def user_vectors(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        found = self.users[np.maximum(rows, 0)]
        new = np.flatnonzero(rows < 0)
        if len(new):
            chosen = matrix[new]
            histories = Pairs(chosen.indices, chosen.indptr)
            found[new] = fold_in(histories, self.items, self.negatives, self.params.regularization)
        return found

    def item_vectors(self) -> np.ndarray:
        return self.items

    def state(self) -> dict[str, np.ndarray]:
        return {"users": self.users, "items": self.items, "counts": self.item_counts}

    def exported_state(self, users: bool) -> JsonObject:
        known = self.users if users else self.users[:0]
        regularization = self.params.regularization
        return {"users": known, "vectors": self.items, "counts": self.item_counts, "regularization": regularization}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take back what `state` returned. A model saved without counts folds users in with uniform negatives."""
        self.users, self.items = state["users"], state["items"]
        self.item_counts = state.get("counts", np.ones(len(self.items), np.float32))
        self.negatives = Negatives.of(self.item_counts)


class SVD(Classical):
    """Matrix factorisation by the largest singular values of the interaction matrix (PureSVD).

    An item's vector has its coordinates in the right singular vectors V, and a user's vector is the sum of the vectors
    of the history: the score is x V V' for a history x. So users who were not in training, and interactions after
    training, count as well.

    References:
        Cremonesi, Koren and Turrin, Performance of Recommender Algorithms on Top-N Recommendation Tasks, 2010.
    """

    type = "svd"
    by_history = True
    factorised = True
    scoring = "history_vectors"
    baseline = False  # EASE is also linear in the history, and better
    search = {"factors": 2.0}

    class Params(Params):
        factors: int = Field(
            64,
            ge=1,
            le=4096,
            description="Dimension of the vectors. At most half the number of users or items is used: with all of them "
            "the scores would be the history itself.",
        )

    def fit(self, training: TrainingMatrix) -> None:
        matrix = training.matrix
        factors = min(self.params.factors, max(1, min(matrix.shape) // 2))
        if min(matrix.shape) == 1:  # `svds` needs a larger matrix
            right = np.linalg.svd(matrix.toarray(), full_matrices=False)[2]
        else:
            start = np.random.default_rng(training.seed).normal(size=min(matrix.shape))
            found: Any = svds(matrix.astype(np.float64), factors, v0=start)  # scipy has no type stubs
            right = found[2]
        self.items = np.ascontiguousarray(right[::-1].T, np.float32)  # the largest first

    def user_vectors(self, rows: np.ndarray, matrix: SparseMatrix) -> np.ndarray:
        return np.asarray(matrix @ self.items, np.float32)

    def item_vectors(self) -> np.ndarray:
        return self.items

    def state(self) -> dict[str, np.ndarray]:
        return {"items": self.items}

    def exported_state(self, users: bool) -> JsonObject:
        return {"vectors": self.items}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.items = state["items"]


def fit_quietly(part: str, name: str, training: TrainingMatrix, options: dict[str, Any]) -> Any:
    """Return a fitted model of the library `implicit`.

    The library starts its own threads, so those of the linear algebra below them are limited to one.

    Args:
        part: Submodule of the library.
        name: Class in that module.
        training: The training positives.
        options: Arguments of the class.

    Raises:
        MissingDependency: If the library is not installed.
    """
    try:
        module = import_module(f"implicit.{part}")
    except ImportError:
        raise MissingDependency("implicit", "baselines", "this classical model") from None
    options = {**options, "random_state": training.seed, "use_gpu": False}
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(module, name)(**options)
        model.fit(training.matrix, show_progress=False)
    return model

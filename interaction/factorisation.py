"""Matrix factorisations: a vector for each user and item, whose dot product is the score. They use `implicit`."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy.linalg import cholesky, solve_triangular
from threadpoolctl import threadpool_limits

from anyrec.core.contracts import Classical, Params, TrainingMatrix
from anyrec.core.errors import MissingDependency
from anyrec.core.unit_vectors import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

PRECISION = 1e-6
"""Length of the residual, relative to the right side, at which a system is solved."""
CELLS = 16_000_000
"""Most numbers in the histories' vectors of one batch of users: 64 MB."""


class IALS(Classical):
    """Matrix factorisation by weighted least squares. Uses the library `implicit`.

    The library alternates between users and items. Afterwards a user's vector is solved from the user's history and
    the vectors of the items, as in one more half-step (`user_vectors`). So users who were not in training, and
    interactions after training, count as well.

    References:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, 2008.
    """

    type = "ials"
    by_history = True
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

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return user_vectors(matrix, self.whitened, self.params.alpha) @ self.whitened.T

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return cosines(self.items, rows)

    def state(self) -> dict[str, np.ndarray]:
        return {"items": self.items}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._keep(state["items"])

    def _keep(self, items: np.ndarray) -> None:
        self.items = items
        self.whitened = whitened_items(items, self.params.regularization)


def whitened_items(items: np.ndarray, regularization: float) -> np.ndarray:
    """Return (items, factors) float32 W = Y L'^-1 with L L' = Y'Y + regularization I, computed in float64.

    Args:
        items: (items, factors) Y.
        regularization: L2 penalty; a tiny multiple of the mean diagonal is added, so that 0 is possible as well.
    """
    exact = items.astype(np.float64)
    gram = exact.T @ exact
    gram[np.diag_indices_from(gram)] += regularization + 1e-9 * np.trace(gram) / len(gram) + 1e-30
    return solve_triangular(cholesky(gram, lower=True), exact.T, lower=True).T.astype(np.float32)


def user_vectors(matrix: Any, items: np.ndarray, alpha: float) -> np.ndarray:
    """Solve the vectors of users from their histories.

    With Y the vectors of all items, Y_u those of the user's history, A = Y'Y + regularization I and 1 a vector of
    ones, the vector of Hu, Koren and Volinsky (equation 4) is

        x = (A + (alpha - 1) Y_u' Y_u)^-1 Y_u' alpha 1.

    With A = L L' and W = Y L'^-1 the same scores are W v with v = (I + (alpha - 1) W_u' W_u)^-1 W_u' alpha 1. By the
    push-through identity v is W_u' (I + (alpha - 1) W_u W_u')^-1 alpha 1, too: a system with one unknown for each item
    of the history instead of one for each factor. The smaller one is solved. Since W_u' W_u is at most the identity,
    the condition is at most alpha, and conjugate gradients need few steps.

    Users with histories of about the same length are solved together; shorter ones are padded with zero vectors, which
    change nothing.

    Args:
        matrix: (users, items) CSR, 1 for each item of a history.
        items: (items, factors) float32 W.
        alpha: Confidence in an interaction.

    Returns:
        (users, factors) float32 v; zeros for a user without a history.
    """
    import torch

    if alpha == 1:
        return np.asarray(matrix @ items, np.float32)
    factors = items.shape[1]
    vectors = torch.from_numpy(np.concatenate([items, np.zeros((1, factors), np.float32)]))
    found = np.zeros((matrix.shape[0], factors), np.float32)
    lengths = np.diff(matrix.indptr)
    order = np.argsort(lengths, kind="stable")
    start = int((lengths == 0).sum())
    while start < len(order):
        batch = _same_length(lengths[order], start, factors)
        users = order[batch]
        longest = int(lengths[users[-1]])
        places = np.full((len(users), longest), len(items))
        inside = np.arange(longest) < lengths[users, None]
        places[inside] = matrix[users].indices
        own = vectors[torch.from_numpy(places)]  # (batch, longest, factors)
        transposed = own.transpose(1, 2)
        if longest <= factors:
            right = torch.full((len(users), longest, 1), float(alpha))
            solved = transposed @ conjugate_gradients(own @ transposed, alpha - 1, right)
        else:
            solved = conjugate_gradients(transposed @ own, alpha - 1, alpha * own.sum(1).unsqueeze(2))
        found[users] = solved[:, :, 0].numpy()
        start = batch.stop
    return found


def conjugate_gradients(gram: Tensor, scale: float, right: Tensor) -> Tensor:
    """Solve (I + scale * gram) x = right, for a batch of positive definite systems, until the residuals vanish.

    Matrix products only: the batched LU decomposition of torch can wait for itself forever with several threads.

    Args:
        gram: (batch, size, size) symmetric, with eigenvalues of 0 to 1.
        scale: Above -1.
        right: (batch, size, 1).
    """
    solution, residual, direction = right * 0, right, right
    squares = (residual * residual).sum(1, keepdim=True)
    enough = (PRECISION**2 * squares).clamp_min(1e-30)
    for _ in range(2 * len(gram[0]) + 1):
        if bool((squares <= enough).all()):
            break
        moved = direction + scale * (gram @ direction)
        step = squares / (direction * moved).sum(1, keepdim=True).clamp_min(1e-30)
        solution = solution + step * direction
        residual = residual - step * moved
        before, squares = squares, (residual * residual).sum(1, keepdim=True)
        direction = residual + squares / before.clamp_min(1e-30) * direction
    return solution


def _same_length(lengths: np.ndarray, start: int, factors: int) -> slice:
    """Return the next batch: lengths within a fifth of the shortest, and at most CELLS numbers.

    Args:
        lengths: (users,) ascending.
        start: The first of the batch.
        factors: Numbers of a vector.
    """
    stop = int(np.searchsorted(lengths, max(lengths[start] + 8, 1.2 * lengths[start]), side="right"))
    longest = int(lengths[stop - 1])
    width = longest * max(factors, longest) if longest <= factors else factors * max(factors, longest)
    return slice(start, min(stop, start + max(1, CELLS // width)))


class BPRMF(Classical):
    """Matrix factorisation by Bayesian personalised ranking. Uses the library `implicit`.

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009.
    """

    type = "bpr_mf"
    baseline = False  # iALS is also a matrix factorisation, and better on little data

    class Params(Params):
        factors: int = Field(64, ge=1, le=4096, description="Dimension of the vectors.")
        regularization: float = Field(0.01, ge=0, le=1e6, description="L2 penalty on the vectors.")
        learning_rate: float = Field(0.01, ge=1e-10, le=1000, description="Step size of gradient descent.")
        iterations: int = Field(100, ge=1, le=10_000, description="Passes over the training pairs.")

    def fit(self, training: TrainingMatrix) -> None:
        model = fit_quietly("bpr", "BayesianPersonalizedRanking", training, self.params.model_dump())
        self.users, self.items = np.ascontiguousarray(model.user_factors), np.ascontiguousarray(model.item_factors)

    def score(self, rows: np.ndarray, matrix: Any) -> np.ndarray:
        return self.users[rows] @ self.items.T

    def similar(self, rows: np.ndarray) -> np.ndarray:
        return cosines(self.items, rows)

    def state(self) -> dict[str, np.ndarray]:
        return {"users": self.users, "items": self.items}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.users, self.items = state["users"], state["items"]


def cosines(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (rows, items), the cosines of some of the vectors (items, factors) with all of them."""
    unit = unit_rows(vectors)
    return unit[rows] @ unit.T


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

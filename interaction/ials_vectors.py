"""Users' vectors of iALS, solved from their histories and the vectors of the items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from anyrec.core.types import SparseMatrix
from anyrec.data.pairs import Pairs
from anyrec.data.scoring.history_batches import history_batches

if TYPE_CHECKING:
    from torch import Tensor

PRECISION = 1e-6
"""Length of the residual, relative to the right side, at which a system is solved."""


def gram_root(items: np.ndarray, regularization: float) -> np.ndarray:
    """Return (factors, factors) float64 lower triangular L with L L' = Y'Y + regularization I.

    Args:
        items: (items, factors) Y.
        regularization: L2 penalty; a tiny multiple of the mean diagonal is added, so that 0 is possible as well.
    """
    exact = items.astype(np.float64)
    gram = exact.T @ exact
    gram[np.diag_indices_from(gram)] += regularization + 1e-9 * np.trace(gram) / len(gram) + 1e-30
    return cholesky(gram, lower=True)


def whitened_items(items: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return (items, factors) float32 W = Y L'^-1, computed in float64. items: Y; root: L of `gram_root`."""
    return solve_triangular(root, items.astype(np.float64).T, lower=True).T.astype(np.float32)


def unwhitened_users(vectors: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Return (users, factors) float32 x = L'^-1 v, so that Y x = W v. vectors: v; root: L of `gram_root`."""
    return solve_triangular(root.T, vectors.astype(np.float64).T, lower=False).T.astype(np.float32)


def whitened_users(matrix: SparseMatrix, items: np.ndarray, alpha: float) -> np.ndarray:
    """Solve the vectors of users from their histories.

    With Y the vectors of all items, Y_u those of the user's history, A = Y'Y + regularization I and 1 a vector of
    ones, the vector of Hu, Koren and Volinsky (equation 4) is

        x = (A + (alpha - 1) Y_u' Y_u)^-1 Y_u' alpha 1.

    With A = L L' and W = Y L'^-1 the same scores are W v with v = L' x = (I + (alpha - 1) W_u' W_u)^-1 W_u' alpha 1. By
    the push-through identity v is W_u' (I + (alpha - 1) W_u W_u')^-1 alpha 1, too: a system with one unknown for each
    item of the history instead of one for each factor. The smaller one is solved. Since W_u' W_u is at most the
    identity, the condition is at most alpha, and conjugate gradients need few steps.

    Shorter histories of a batch are padded with zero vectors, which change nothing.

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
    for users, places in history_batches(
        Pairs(matrix.indices, matrix.indptr), len(items), lambda longest: factors * longest
    ):
        own = vectors[torch.from_numpy(places)]  # (batch, longest, factors)
        transposed = own.transpose(1, 2)
        longest = places.shape[1]
        if longest <= factors:
            right = torch.full((len(users), longest, 1), float(alpha))
            solved = transposed @ conjugate_gradients(own @ transposed, alpha - 1, right)
        else:
            solved = conjugate_gradients(transposed @ own, alpha - 1, alpha * own.sum(1).unsqueeze(2))
        found[users] = solved[:, :, 0].numpy()
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

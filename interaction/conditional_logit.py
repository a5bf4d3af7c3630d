"""Conditional logit: a softmax over items whose scores are linear in features of items and of user-item pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ITERATIONS = 25
LEAST_STEP = 1e-3
CONVERGED = 1e-6
"""Decrease of the mean loss, in nats, below which Newton's method stops."""
EXCLUDED = np.float32(-1e9)


class ChoiceSet(NamedTuple):
    """Users who choose among the same items.

    Attributes:
        items: (items, shared) float32, features of the items.
        pairs: (users, items, personal) float32, features of the user-item pairs; `personal` may be 0.
        chosen: (users, items) float32, the weight of each chosen item; 0 for the others.
        allowed: (users, items) bool, the items that the user could choose.
    """

    items: np.ndarray
    pairs: np.ndarray
    chosen: np.ndarray
    allowed: np.ndarray


def fit_conditional_logit(sets: list[ChoiceSet], penalty: float, prior: np.ndarray) -> np.ndarray:
    """Return the weights of the features that make the chosen items most likely.

    Minimises, by Newton's method with step halving,

        -1/users * sum over users u, items i of chosen[u, i] * log p(i | u)  +  penalty * |weights - prior|^2

    where p(. | u) is the softmax of the scores over the allowed items. The loss is convex and the penalty makes it
    strictly so: there is one minimum.

    Args:
        sets: At least one, all with the same features.
        penalty: Weight of the penalty, greater than 0.
        prior: (shared + personal,) weights that the penalty draws to.

    Returns:
        (shared + personal,) float64.

    References:
        McFadden, Conditional logit analysis of qualitative choice behavior, 1974.
    """
    weights, users = prior.astype(np.float64), sum(len(choices.chosen) for choices in sets)

    def loss(tried: np.ndarray) -> float:
        fit = sum(_loss(choices, tried) for choices in sets)
        return fit / users + penalty * float(np.square(tried - prior).sum())

    current = loss(weights)
    for _ in range(ITERATIONS):
        gradient, curvature = 2 * penalty * (weights - prior), 2 * penalty * np.eye(len(weights))
        for choices in sets:
            first, second = _derivatives(choices, weights)
            gradient += first / users
            curvature += second / users
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (found := loss(weights - size * step)) > current and size > LEAST_STEP:
            size /= 2
        if not found < current:
            break
        weights = weights - size * step
        converged, current = current - found < CONVERGED, found
        if converged:
            break
    return weights


def _scores(choices: ChoiceSet, weights: np.ndarray) -> np.ndarray:
    """Return (users, items) float32, the scores; EXCLUDED where an item is not allowed."""
    shared = choices.items.shape[1]
    weights = weights.astype(np.float32)
    scores = (choices.items @ weights[:shared])[None] + choices.pairs @ weights[shared:]
    return np.where(choices.allowed, scores, EXCLUDED)


def _loss(choices: ChoiceSet, weights: np.ndarray) -> float:
    """Return the sum over users of the weighted negative log likelihood."""
    scores = _scores(choices, weights)
    scores -= scores.max(1, keepdims=True)
    total = np.log(np.exp(scores).sum(1, dtype=np.float64))
    chosen = np.where(choices.chosen > 0, scores * choices.chosen, 0.0).sum(dtype=np.float64)
    return float((total * choices.chosen.sum(1)).sum() - chosen)


def _derivatives(choices: ChoiceSet, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient and the Hessian of `_loss`.

    With t the total weight of a user's choices, they are the sums over users of t * E[x] - sum(chosen * x) and of
    t * (E[xx'] - E[x]E[x]'), with the expectation over p. The features x are those of the item (A, shared by all
    users), then those of the pair (B), so the Hessian is computed in blocks.
    """
    items, pairs = choices.items, choices.pairs
    scores = _scores(choices, weights)
    probabilities = np.exp(scores - scores.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    totals = choices.chosen.sum(1)
    expected = probabilities * totals[:, None]
    residual = expected - choices.chosen
    gradient = np.concatenate([items.T @ residual.sum(0), np.einsum("ui,uif->f", residual, pairs, optimize=True)])
    means = np.concatenate([probabilities @ items, np.einsum("ui,uif->uf", probabilities, pairs, optimize=True)], 1)
    weighted = expected[..., None] * pairs
    flat = pairs.reshape(pairs.shape[0] * pairs.shape[1], pairs.shape[2])
    mixed = items.T @ weighted.sum(0)
    second = np.block(
        [
            [items.T @ (items * expected.sum(0)[:, None]), mixed],
            [mixed.T, flat.T @ weighted.reshape(flat.shape)],
        ]
    )
    return gradient.astype(np.float64), second.astype(np.float64) - (means * totals[:, None]).T @ means

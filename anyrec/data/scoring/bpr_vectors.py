"""Users' vectors of BPR, solved from their histories and the vectors of the items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyrec.data.pairs import Pairs
from anyrec.data.scoring.history_batches import history_batches

MOST_NEGATIVES = 256
"""Items that a history is compared with; a catalogue with more is sampled."""
LEAST_PENALTY = 1e-4
"""Lower bound of the L2 penalty: without one, a history that can be separated from all other items has no best vector.
"""
STEPS = 50
"""Most Newton steps. About 10 are needed."""
PRECISION = 1e-6
"""Length of the gradient at which a vector is solved. The terms of the loss have gradients of about 1."""


class Negatives(NamedTuple):
    """The items that histories are compared with, and their probability.

    Attributes:
        items: (negatives,) item rows, ascending.
        weights: (negatives,) float64, their sum is 1.
    """

    items: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(counts: np.ndarray) -> Negatives:
        """Return the negatives of a catalogue: the distribution of the pairs, by which training draws them.

        Items of more than MOST_NEGATIVES are drawn by it, always the same ones.

        Args:
            counts: (items,) the number of training pairs of each item.
        """
        weights = counts.astype(np.float64) / counts.sum()
        items = np.flatnonzero(weights)
        if len(items) > MOST_NEGATIVES:
            drawn = np.random.default_rng(0).choice(len(weights), MOST_NEGATIVES, p=weights)
            items, times = np.unique(drawn, return_counts=True)
            return Negatives(items, times / times.sum())
        return Negatives(items, weights[items])


class _Batch(NamedTuple):
    """Users of one batch, with what their loss reads.

    Attributes:
        own: (users, longest, factors) vectors of the histories; zeros for padding.
        own_bias: (users, longest) their biases.
        own_weights: (users, longest) 1 / length of the history; 0 for padding.
        other: (negatives, factors) vectors of the negatives.
        other_bias: (negatives,) their biases.
        other_weights: (users, negatives) probability of each negative; 0 for items of the history.
        penalty: The L2 penalty.
    """

    own: np.ndarray
    own_bias: np.ndarray
    own_weights: np.ndarray
    other: np.ndarray
    other_bias: np.ndarray
    other_weights: np.ndarray
    penalty: float

    def loss(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the loss (users,), its gradient (users, factors) and its Hessian (users, factors, factors).

        Args:
            users: (users, factors).
        """
        own_scores = (self.own @ users[:, :, None])[:, :, 0] + self.own_bias  # (users, longest)
        margins = own_scores[:, :, None] - (users @ self.other.T + self.other_bias)[:, None, :]
        weights = self.own_weights[:, :, None] * self.other_weights[:, None, :]  # (users, longest, negatives)
        wrong = 0.5 - 0.5 * np.tanh(0.5 * margins)  # the logistic function of -margins
        values = (weights * np.logaddexp(0, -margins)).sum((1, 2)) + 0.5 * self.penalty * np.square(users).sum(1)
        pushes = weights * wrong
        gradient = self.penalty * users + pushes.sum(1) @ self.other
        gradient -= (pushes.sum(2)[:, None, :] @ self.own)[:, 0]
        curved = pushes * (1 - wrong)
        mixed = self.own.transpose(0, 2, 1) @ (curved @ self.other)  # (users, factors, factors)
        hessian = self.own.transpose(0, 2, 1) @ (curved.sum(2)[:, :, None] * self.own)
        hessian += self.other.T @ (curved.sum(1)[:, :, None] * self.other)
        hessian -= mixed + mixed.transpose(0, 2, 1)
        hessian += self.penalty * np.eye(users.shape[1])
        return values, gradient, hessian


def fold_in(histories: Pairs, items: np.ndarray, negatives: Negatives, regularization: float) -> np.ndarray:
    """Return the vectors that training would give users, if only their own vectors were trained, until they converge.

    Training draws an item i of the history and another item j, and moves the user's vector x along the gradient of

        -ln sigmoid(x (y_i - y_j)) - regularization / 2 |x|^2.

    The vector is the one at which the expectation of this gradient vanishes: i has the distribution of the history, j
    that of `negatives` without the history. The problem is convex and has one solution, found by Newton's method.
    The last number of x is 1, which adds the items' biases.

    Args:
        histories: The distinct items of each user.
        items: (items, factors + 1) float32, the vectors of the items; the last number is the bias.
        negatives: The items that histories are compared with.
        regularization: L2 penalty on the user's vector.

    Returns:
        (users, factors + 1) float32; zeros, and 1 for the biases, for a user without a history.
    """
    exact = np.concatenate([items, np.zeros((1, items.shape[1]), np.float32)]).astype(np.float64)
    factors, size = items.shape[1] - 1, len(items)
    found = np.zeros((len(histories.counts()), factors + 1), np.float32)
    found[:, factors] = 1
    other = exact[negatives.items]
    place = np.full(size + 1, len(other))  # of each item among the negatives
    place[negatives.items] = np.arange(len(other))
    for users, places in history_batches(histories, size, lambda n: 4 * max(n * len(other), n * factors, factors**2)):
        inside = places < size
        had = np.zeros((len(users), len(other) + 1), bool)
        np.put_along_axis(had, place[places], True, 1)
        allowed = negatives.weights * ~had[:, :-1]
        batch = _Batch(
            exact[places, :factors],
            exact[places, factors],
            inside / inside.sum(1, keepdims=True),
            other[:, :factors],
            other[:, factors],
            allowed / np.maximum(allowed.sum(1, keepdims=True), 1e-30),
            max(regularization, LEAST_PENALTY),
        )
        found[users, :factors] = minimised(batch)
    return found


def minimised(batch: _Batch) -> np.ndarray:
    """Return (users, factors), the vectors of the least loss, by Newton steps that are halved until the loss falls."""
    present = np.zeros((len(batch.own), batch.own.shape[2]))
    direction, scale = np.zeros_like(present), np.ones(len(present))
    lowest = np.full(len(present), np.inf)
    steep = np.full(len(present), np.inf)  # the length of the gradient
    for _ in range(STEPS):
        proposed = present - scale[:, None] * direction
        values, gradient, hessian = batch.loss(proposed)
        better = values <= lowest
        present[better], lowest[better] = proposed[better], values[better]
        steep[better] = np.linalg.norm(gradient[better], axis=1)
        direction[better] = np.linalg.solve(hessian[better], gradient[better][:, :, None])[:, :, 0]
        scale = np.where(better, 1.0, scale / 2)
        if (steep <= PRECISION).all():
            break
    return present

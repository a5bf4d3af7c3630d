"""Choosing k of a list that are good and unlike each other: MMR and DPP, over blocks of users at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CELLS = 1 << 24
"""Numbers of candidates' vectors held at once: 64 MB of float32."""
SMALL = 1e-6
"""A candidate whose remaining part of the volume is below adds nothing new."""
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def mmr(vectors: np.ndarray, relevance: np.ndarray, there: np.ndarray, k: int, weight: float) -> np.ndarray:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): (users, k) places in the order chosen, -1 past the end.

    vectors: (users, length, dim) of length 1; relevance: (users, length) in [0, 1]; there: (users, length) bool. Each next one has the
    greatest weight * relevance - (1 - weight) * (its greatest cosine with one chosen, 0 at first); ties go to the earlier.
    """
    users, length = there.shape
    rows = np.arange(users)
    nearest = np.full((users, length), -np.inf)
    chosen, open_ = np.full((users, min(k, length)), -1), there.copy()
    for step in range(chosen.shape[1]):
        gain = weight * relevance - (0 if step == 0 else (1 - weight) * nearest)
        gain = np.where(open_, gain, -np.inf)
        best = gain.argmax(1)
        some = open_[rows, best]
        chosen[some, step] = best[some]
        open_[rows, best] = False
        nearest = np.maximum(nearest, _cosines(vectors, vectors[rows, best]))
    return chosen


def dpp(vectors: np.ndarray, relevance: np.ndarray, there: np.ndarray, k: int, weight: float) -> np.ndarray:
    """Greedy MAP of a determinantal point process (Chen et al. 2018, algorithm 1): (users, k) places in the order chosen, -1 past the end.

    Arguments as of `mmr`. The kernel is L_ij = q_i S_ij q_j with S_ij = (1 + cosine) / 2 and q = exp(a * relevance),
    a = weight / (2 (1 - weight)) (their section 5): each next one adds most to log det L. The Cholesky factor grows by a
    column a step. Where no candidate adds volume any more, the list ends.
    """
    users, length = there.shape
    rows, steps = np.arange(users), min(k, length)
    quality = np.exp(weight / (2 * (1 - weight)) * (relevance - 1))  # as they have it but for a constant
    left = np.where(there, 1.0, -np.inf)  # what S leaves of each: the quality takes no part in the factor
    factor = np.zeros((steps, users, length))
    chosen, going = np.full((users, steps), -1), np.ones(users, bool)
    for step in range(steps):
        best = np.where(left > SMALL, np.log(np.maximum(left, SMALL)) + 2 * np.log(quality), -np.inf).argmax(1)
        going &= left[rows, best] > SMALL
        if not going.any():
            break
        chosen[going, step] = best[going]
        root = np.sqrt(np.where(going, left[rows, best], 1.0))
        similar = (1 + _cosines(vectors, vectors[rows, best])) / 2
        before = np.einsum("sul,su->ul", factor[:step], factor[:step, rows, best])
        factor[step] = (similar - before) / root[:, None]
        left = left - factor[step] ** 2
        left[rows, best] = -np.inf
    return chosen


def in_blocks(
    choose: Choose, vectors: np.ndarray, places: np.ndarray, relevance: np.ndarray, there: np.ndarray, k: int
) -> np.ndarray:
    """`choose` for all users. vectors: (distinct, dim) of length 1; places: (users, length) which is whose."""
    users, length = there.shape
    size = max(1, CELLS // max(1, length * max(vectors.shape[1], k)))
    parts = [
        choose(vectors[places[start : start + size]], relevance[start : start + size], there[start : start + size], k)
        for start in range(0, users, size)
    ]
    return np.concatenate(parts) if parts else np.empty((0, min(k, length)), np.int64)


def _cosines(vectors: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(users, length)"""
    return np.matmul(vectors, chosen[:, :, None])[:, :, 0].astype(np.float64)

"""Greedy choice of k entries of a list that are relevant and different from each other: MMR and DPP."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MAX_CELLS = 1 << 24
"""Maximum size of an array of candidates' vectors: 64 MB of float32."""
MIN_VOLUME = 1e-6
"""DPP stops if every candidate's remaining variance is below this: it adds no volume."""
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""A choice: (vectors, relevance, filled, k) -> chosen places, as of `mmr`."""


def mmr(vectors: np.ndarray, relevance: np.ndarray, filled: np.ndarray, k: int, weight: float) -> np.ndarray:
    """Choose by maximal marginal relevance.

    Each next entry has the greatest weight * relevance - (1 - weight) * (its highest cosine with a chosen entry; 0 for
    the first choice). Ties go to the earlier entry.

    Args:
        vectors: (users, length, dim) of length 1.
        relevance: (users, length) in [0, 1].
        filled: (users, length) bool, False past the end of a list.
        k: The number of entries to choose.
        weight: Weight of the relevance, from 0 to 1.

    Returns:
        (users, k) places in the order chosen, -1 past the end.

    References:
        Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
        summaries", SIGIR 1998.
    """
    users, length = filled.shape
    rows = np.arange(users)
    nearest = np.full((users, length), -np.inf)  # highest cosine with a chosen entry
    chosen, remaining = np.full((users, min(k, length)), -1), filled.copy()
    for step in range(chosen.shape[1]):
        gain = weight * relevance - (0 if step == 0 else (1 - weight) * nearest)
        gain = np.where(remaining, gain, -np.inf)
        best = gain.argmax(1)
        valid = remaining[rows, best]
        chosen[valid, step] = best[valid]
        remaining[rows, best] = False
        nearest = np.maximum(nearest, _cosines(vectors, vectors[rows, best]))
    return chosen


def dpp(vectors: np.ndarray, relevance: np.ndarray, filled: np.ndarray, k: int, weight: float) -> np.ndarray:
    """Choose by greedy maximum a posteriori inference of a determinantal point process.

    The kernel is L_ij = q_i S_ij q_j with S_ij = (1 + cosine) / 2 and q = exp(a * relevance), a = weight / (2 (1 -
    weight)). Each next entry increases log det L most. The Cholesky factor grows by one column in each step. The list
    ends if no candidate adds volume.

    Args:
        vectors: (users, length, dim) of length 1.
        relevance: (users, length) in [0, 1].
        filled: (users, length) bool, False past the end of a list.
        k: The number of entries to choose.
        weight: Weight of the relevance, from 0 to below 1.

    Returns:
        (users, k) places in the order chosen, -1 past the end.

    References:
        Chen, Zhang and Zhou, "Fast greedy MAP inference for determinantal point process to improve recommendation
        diversity", NeurIPS 2018, algorithm 1 and section 5.
    """
    users, length = filled.shape
    rows, steps = np.arange(users), min(k, length)
    quality = np.exp(weight / (2 * (1 - weight)) * (relevance - 1))  # as in the paper, up to a constant factor
    # Schur complement of each candidate in S: q scales L by a diagonal matrix, so the factor of S alone suffices.
    variance = np.where(filled, 1.0, -np.inf)
    factor = np.zeros((steps, users, length))
    chosen, going = np.full((users, steps), -1), np.ones(users, bool)
    for step in range(steps):
        log_gain = np.log(np.maximum(variance, MIN_VOLUME)) + 2 * np.log(quality)
        best = np.where(variance > MIN_VOLUME, log_gain, -np.inf).argmax(1)
        going &= variance[rows, best] > MIN_VOLUME
        if not going.any():
            break
        chosen[going, step] = best[going]
        root = np.sqrt(np.where(going, variance[rows, best], 1.0))
        similar = (1 + _cosines(vectors, vectors[rows, best])) / 2
        before = np.einsum("sul,su->ul", factor[:step], factor[:step, rows, best])
        factor[step] = (similar - before) / root[:, None]
        variance = variance - factor[step] ** 2
        variance[rows, best] = -np.inf
    return chosen


def in_blocks(
    choose: Choose, vectors: np.ndarray, places: np.ndarray, relevance: np.ndarray, filled: np.ndarray, k: int
) -> np.ndarray:
    """Choose for all users, in blocks that bound the memory.

    Args:
        choose: The choice.
        vectors: (distinct, dim) of length 1.
        places: (users, length) row in `vectors` of each entry.
        relevance: (users, length) in [0, 1].
        filled: (users, length) bool, False past the end of a list.
        k: The number of entries to choose.

    Returns:
        (users, k) places in the order chosen, -1 past the end.
    """
    users, length = filled.shape
    size = max(1, MAX_CELLS // max(1, length * max(vectors.shape[1], k)))
    parts = [
        choose(vectors[places[start : start + size]], relevance[start : start + size], filled[start : start + size], k)
        for start in range(0, users, size)
    ]
    return np.concatenate(parts) if parts else np.empty((0, min(k, length)), np.int64)


def _cosines(vectors: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return (users, length) float64, the products of (users, length, dim) vectors with (users, dim) chosen ones."""
    return np.matmul(vectors, chosen[:, :, None])[:, :, 0].astype(np.float64)

"""Factorisations: lists of users with their trained vectors, and with vectors folded in from their histories.

    python benchmarks/fold_in.py --data ../shared/data/ml-100k

A fifth of the interactions is held out at random. `ials` and `svd` compute every user's vector from the history, so
they have one figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from anyrec import Dataset, Recommender

MODELS = ("bpr_mf", "ials", "svd")


def main() -> None:
    """Print ndcg@10 and the milliseconds for each folded user."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the data format")
    dataset = Dataset.read(parser.parse_args().data)
    for name in MODELS:
        config = {"model": {"type": name}, "split": {"protocol": "random", "validation": 0.0, "test": 0.2}}
        fitted = Recommender.from_config(config).fit(dataset, progress=False)
        state = fitted.model.before("test")
        classical, history, test = state.scorer.classical, state.scorer.matrix, fitted.model.split.test
        held_out = np.zeros(history.shape, bool)
        held_out[fitted.dataset.user_rows[test], fitted.dataset.item_rows[test]] = True
        users, items = np.arange(history.shape[0]), classical.item_vectors()
        trained = ndcg(classical.user_vectors(users, history) @ items.T, history.toarray() > 0, held_out)
        started = time.perf_counter()
        vectors = classical.user_vectors(np.full(len(users), -1), history)
        spent = 1000 * (time.perf_counter() - started) / len(users)
        folded = ndcg(vectors @ items.T, history.toarray() > 0, held_out)
        print(f"{name}: trained {trained:.4f}, folded in {folded:.4f}, {spent:.2f} ms for each user", flush=True)


def ndcg(scores: np.ndarray, seen: np.ndarray, held_out: np.ndarray, k: int = 10) -> float:
    """Return the mean ndcg@k of users with held-out items. All arguments: (users, items)."""
    top = np.argsort(np.where(seen, -np.inf, scores), axis=1)[:, ::-1][:, :k]
    gains = 1 / np.log2(np.arange(2, k + 2))
    counts = held_out.sum(1)
    ideal = np.concatenate([[0], np.cumsum(gains)])[np.minimum(counts, k)]
    found = (np.take_along_axis(held_out, top, 1) * gains).sum(1)
    return float((found[counts > 0] / ideal[counts > 0]).mean())


if __name__ == "__main__":
    main()

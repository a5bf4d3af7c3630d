"""LightFM (WARP) with metadata on a case of cold items; `cold.py --peers PYTHON` runs it and reads its scores.

    python benchmarks/peers_cold.py FOLDER '{"seed": 0, "epochs": 15, "identity": true}'

Runs in its own environment without anyrec: `pip install rectools-lightfm 'numpy<2'`. Reads FOLDER/case.npz and writes
FOLDER/scores.npy (cases, candidates). A user is represented by an id, a trained item by its metadata and, with
`identity`, its id, and a cold item by its metadata alone. Features of fewer than `least` trained items are excluded.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightfm import LightFM
from scipy import sparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    case = np.load(arguments.folder / "case.npz")
    np.save(arguments.folder / "scores.npy", scores(case, **arguments.options))


def scores(
    case: Mapping[str, np.ndarray],
    seed: int,
    epochs: int,
    identity: bool,
    components: int = 64,
    learning_rate: float = 0.05,
    alpha: float = 0.0,
    least: int = 2,
) -> np.ndarray:
    """Train LightFM and return scores (cases, candidates) float32."""
    shape = tuple(case["shape"])
    train = sparse.coo_matrix((np.ones(len(case["users"]), np.float32), (case["users"], case["items"])), shape)
    features = item_features(case, np.bincount(case["items"], minlength=shape[1]) > 0, identity, least)
    model = LightFM(components, loss="warp", learning_rate=learning_rate, item_alpha=alpha, random_state=seed)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    model.fit(train, item_features=features, epochs=epochs, num_threads=threads)
    biases, items = model.get_item_representations(features[case["candidates"]])
    return model.user_embeddings[case["cases"]] @ items.T + biases  # a user's bias does not change the order


def item_features(case: Mapping[str, np.ndarray], trained: np.ndarray, identity: bool, least: int) -> sparse.csr_matrix:
    """Return (items, features) float32 with rows that sum to 1.

    Args:
        case: The arrays of case.npz.
        trained: (items,) bool, the items that occur in training.
        identity: Add the id of each trained item.
        least: The number of trained items that a feature needs.
    """
    owners, columns = case["feature_items"], case["features"]
    ones = np.ones(len(owners), np.float32)
    metadata = sparse.csr_matrix((ones, (owners, columns)), (len(trained), columns.max() + 1))
    metadata.data[:] = 1  # a feature that an item has twice was summed to 2
    metadata = metadata[:, np.asarray(metadata[trained].sum(0)).ravel() >= least]
    if identity:
        metadata = sparse.hstack([metadata, sparse.diags(trained.astype(np.float32)).tocsr()[:, trained]])
    sums = np.asarray(metadata.sum(1)).ravel()
    return sparse.csr_matrix(sparse.diags((1 / np.maximum(sums, 1)).astype(np.float32)) @ metadata, dtype=np.float32)


if __name__ == "__main__":
    main()

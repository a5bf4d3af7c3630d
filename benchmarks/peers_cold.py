"""LightFM's WARP with metadata on a case of cold items: called by `cold.py --peers PYTHON`, which scores what it writes.

    python benchmarks/peers_cold.py FOLDER '{"seed": 0, "epochs": 15, "identity": true}'

Runs in an environment of its own, without anyrec: `pip install rectools-lightfm 'numpy<2'`. Reads FOLDER/case.npz, writes
FOLDER/scores.npy (cases, candidates). A user is their id; a trained item is its metadata and, with `identity`, its id; a cold item is
its metadata alone. Features that fewer than `least` trained items have are left out: nothing could be learned of them.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from lightfm import LightFM
from scipy import sparse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    case = np.load(arguments.folder / "case.npz")
    np.save(arguments.folder / "scores.npy", scores(case, **arguments.options))


def scores(case, seed, epochs, identity, components=64, learning_rate=0.05, alpha=0.0, least=2):
    """(cases, candidates) float32"""
    shape = tuple(case["shape"])
    train = sparse.coo_matrix((np.ones(len(case["users"]), np.float32), (case["users"], case["items"])), shape)
    features = item_features(case, np.bincount(case["items"], minlength=shape[1]) > 0, identity, least)
    model = LightFM(components, loss="warp", learning_rate=learning_rate, item_alpha=alpha, random_state=seed)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    model.fit(train, item_features=features, epochs=epochs, num_threads=threads)
    biases, items = model.get_item_representations(features[case["candidates"]])
    return model.user_embeddings[case["cases"]] @ items.T + biases  # a user's own bias orders nothing


def item_features(case, trained, identity, least):
    """(items, features) float32, each row's sum 1: metadata that enough trained items have, and the ids of those."""
    owners, columns = case["feature_items"], case["features"]
    ones = np.ones(len(owners), np.float32)
    metadata = sparse.csr_matrix((ones, (owners, columns)), (len(trained), columns.max() + 1))
    metadata.data[:] = 1  # one named twice
    metadata = metadata[:, np.asarray(metadata[trained].sum(0)).ravel() >= least]
    if identity:
        metadata = sparse.hstack([metadata, sparse.diags(trained.astype(np.float32)).tocsr()[:, trained]])
    sums = np.asarray(metadata.sum(1)).ravel()
    return sparse.csr_matrix(sparse.diags((1 / np.maximum(sums, 1)).astype(np.float32)) @ metadata, dtype=np.float32)


if __name__ == "__main__":
    main()

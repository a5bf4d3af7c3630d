"""Epochs until a model ranks by the planted preferences for new users: correlated data without images and noise.

    python benchmarks/correlated.py

1,000 users, 100 items, 13,600 interactions. ndcg@10 against the planted affinity (the number of planted preferences
that an item meets), which defines the gain and the ideal order, for 200 new users. Popularity and random lists are
printed for comparison.
"""

from __future__ import annotations

import time

import numpy as np

from anyrec.cli.demo import planted_ndcg
from anyrec.data.synthetic.generate import generate
from anyrec.data.synthetic.world import PREFERENCES
from anyrec.recommender import Recommender

K = 10
CONFIG = {
    "defaults": "fixed",
    "dim": 64,
    "id_dropout": 0.5,
    "features": {"image": None},
    "split": {"protocol": "none"},
    "loss": {"type": "full_softmax"},
}
TRAINING = {"batch_size": 512, "patience": None, "optimizer": {"learning_rate": 0.005}}


def main() -> None:
    visible = [name for name in PREFERENCES if name != "age"]  # age affects the style of images only
    world = generate(users=1000, items=100, interactions=13_600, seed=0, noise=0.0, missing=0.0, preferences=visible)
    new_users, truth, _ = world.new_users(200, seed=1)
    row_of = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    popular = np.tile(np.argsort(-np.bincount(world.dataset.item_rows), kind="stable")[:K], (len(truth), 1))
    random = np.random.default_rng(0).random(truth.shape).argsort(1)[:, :K]
    print(f"popularity {planted_ndcg(popular, truth):.3f}, chance {planted_ndcg(random, truth):.3f}")
    for epochs in (3, 6, 10, 15):
        started = time.perf_counter()
        recommender = Recommender.from_config({**CONFIG, "training": {**TRAINING, "epochs": epochs}})
        lists = recommender.fit(world.dataset, progress=False).recommend(new_users, K)
        rows = np.array([row_of[name] for name in lists["item_id"].to_pylist()]).reshape(len(truth), K)
        score, seconds = planted_ndcg(rows, truth), time.perf_counter() - started
        print(f"{epochs:>2} epochs: ndcg@{K} {score:.3f} in {seconds:.1f} s", flush=True)
        if score > 0.9:
            break


if __name__ == "__main__":
    main()

"""The correlated data, all features but images, no noise: how soon a model knows the planted truth for people it never saw.

    python benchmarks/correlated.py

1,000 users, 100 items, 13,600 interactions. ndcg@10 against the planted affinity (how many planted tastes an item meets), which is both
the gain and the ideal order, for 200 new people. Popularity and chance stand beside it.
"""

import time

import numpy as np

from anyrec.cli.demo import planted_ndcg
from anyrec.data.synthetic.generate import generate
from anyrec.data.synthetic.world import PREFERENCES
from anyrec.recommender import Recommender

K = 10


def main():
    visible = [name for name in PREFERENCES if name != "age"]  # the style of age shows in images alone
    world = generate(users=1000, items=100, interactions=13_600, seed=0, noise=0.0, missing=0.0, preferences=visible)
    people, truth, _ = world.new_users(200, seed=1)
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    config = {
        "defaults": "fixed",
        "dim": 64,
        "id_dropout": 0.5,
        "features": {"image": None},
        "split": {"protocol": "none"},
        "loss": {"type": "full_softmax"},
        "training": {"batch_size": 512, "patience": None, "optimizer": {"learning_rate": 0.005}},
    }

    def run(epochs):
        started = time.perf_counter()
        settings = {**config, "training": {**config["training"], "epochs": epochs}}
        recommender = Recommender.from_config(settings).fit(world.dataset, progress=False)
        lists = recommender.recommend(people, K)
        chosen = np.array([place[name] for name in lists["item_id"].to_pylist()]).reshape(len(truth), K)
        return planted_ndcg(chosen, truth), time.perf_counter() - started

    popular = np.tile(np.argsort(-np.bincount(world.dataset.item_rows), kind="stable")[:K], (len(truth), 1))
    random = np.random.default_rng(0).random(truth.shape).argsort(1)[:, :K]
    print(f"popularity {planted_ndcg(popular, truth):.3f}, chance {planted_ndcg(random, truth):.3f}")
    for epochs in (3, 6, 10, 15):
        score, seconds = run(epochs)
        print(f"{epochs:>2} epochs: ndcg@{K} {score:.3f} in {seconds:.1f} s", flush=True)
        if score > 0.9:
            break


if __name__ == "__main__":
    main()

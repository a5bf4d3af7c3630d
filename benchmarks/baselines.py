"""The classical baselines under P1 (see p1.py): name, ndcg@10 and recall@10 on validation and test, seconds to fit.

    python benchmarks/baselines.py --data ml-100k|ml-1m [--only ease,ials] [--out DIR]

Settings as in the published table: EASE l2 100 and 200; iALS 128 factors, regularization 20, alpha 3 and 1.
Validation is of the model of the training part; for the test each is fitted again on training and validation part together.
`numpy solve` is EASE's system by `numpy.linalg.inv` in float32, for its time.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from p1 import DATA, LENGTH, test_lists

from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender

SETTINGS = {
    "popularity": [{}, {}],
    "recent_popularity": [{}, {}],
    "bpr_mf": [{}, {}],
    "item_knn": [{}, {}],
    "content_knn": [{}, {}],
    "ease": [{"l2": 100.0}, {"l2": 200.0}],
    "ials": [{"alpha": 3.0}, {"alpha": 1.0}],
}
PROTOCOL = {
    "split": {"protocol": "leave_last_out"},
    "training": {"refit": True},
    "evaluation": {"candidates": "interacted", "k": [10, LENGTH]},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], required=True)
    parser.add_argument("--only", default=",".join(SETTINGS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / arguments.data)
    for name in arguments.only.split(","):
        options = SETTINGS[name][arguments.data == "ml-1m"]
        config = {"model": {"type": name, **options}, **PROTOCOL}
        recommender = Recommender.from_config(config)
        recommender.fit(dataset, progress=False)
        figures = "   ".join(
            f"{part} ndcg@10 {metrics['ndcg@10']:.4f} recall@10 {metrics['recall@10']:.4f}"
            for part, metrics in recommender.metrics.items()
        )
        print(f"{name:18} {figures}   fit {recommender.fit_seconds:.2f} s", flush=True)
        if name == "ease":
            print(f"{'numpy solve':18} {numpy_solve(recommender, options['l2']):.2f} s", flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            pq.write_table(test_lists(recommender), arguments.out / f"{name}.parquet")


def numpy_solve(recommender, l2):
    started = time.perf_counter()
    matrix = recommender.model.scorer.matrix
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices(len(gram))] += l2
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

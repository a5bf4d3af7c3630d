"""The classical baselines under P1 (see p1.py): ndcg@10 and recall@10 on validation and test, and seconds to fit.

    python benchmarks/baselines.py --data ml-100k|ml-1m [--only ease,ials] [--out DIR]

Options as in the published table: EASE l2 100 and 200; iALS 128 factors, regularization 20, alpha 3 and 1.
The validation metrics are those of a model of the training part. For the test metrics each model is fitted again on the
training and validation parts together. `fit` is the time of that last fit alone. `numpy solve` is the time of EASE's
system with `numpy.linalg.inv` in float32.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import DATA, LENGTH, argument_parser, metrics_line, test_lists
from scipy import sparse

from anyrec.core.contracts import TrainingMatrix
from anyrec.data.dataset import Dataset
from anyrec.model.classical import make_classical, training_matrix
from anyrec.recommender import Recommender

OPTIONS = {
    "popularity": [{}, {}],
    "recent_popularity": [{}, {}],
    "bpr_mf": [{}, {}],
    "item_knn": [{}, {}],
    "content_knn": [{}, {}],
    "ease": [{"l2": 100.0}, {"l2": 200.0}],
    "ials": [{"alpha": 3.0}, {"alpha": 1.0}],
}
"""Options of each model on ML-100K and on ML-1M."""
PROTOCOL = {
    "split": {"protocol": "leave_last_out"},
    "training": {"refit": True},
    "evaluation": {"candidates": "interacted", "k": [10, LENGTH]},
}


def main() -> None:
    parser = argument_parser(__doc__, required=True)
    parser.add_argument("--only", default=",".join(OPTIONS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / arguments.data)
    for name in arguments.only.split(","):
        options = OPTIONS[name][arguments.data == "ml-1m"]
        recommender = Recommender.from_config({"model": {"type": name, **options}, **PROTOCOL})
        recommender.fit(dataset, progress=False)
        training = training_data(recommender)
        print(
            f"{name:18} {metrics_line(recommender, '   ')}   fit {fit_seconds(recommender, training):.2f} s", flush=True
        )
        if name == "ease":
            print(f"{'numpy solve':18} {numpy_solve(training.matrix, options['l2']):.2f} s", flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            pq.write_table(test_lists(recommender), arguments.out / f"{name}.parquet")


def training_data(recommender: Recommender) -> TrainingMatrix:
    """Return what the classical component of a fitted recommender was fitted on."""
    learning, config = recommender.model.required_learning(), recommender.config
    return training_matrix(learning.dataset, learning.positives(learning.final_split(config).train), config.seed)


def fit_seconds(recommender: Recommender, training: TrainingMatrix) -> float:
    """Return the seconds that the component of a config takes to fit."""
    classical = make_classical(recommender.config, recommender.registry)
    started = time.perf_counter()
    classical.fit(training)
    return time.perf_counter() - started


def numpy_solve(matrix: sparse.csr_matrix, l2: float) -> float:
    """Return the seconds that EASE's system takes by `numpy.linalg.inv`."""
    started = time.perf_counter()
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices(len(gram))] += l2
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

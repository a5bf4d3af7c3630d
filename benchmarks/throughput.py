"""Training throughput on ML-1M with ids only, dimension 64: positive interactions per second of each trainer.

anyrec trains with batches of 4,096 unless the line says otherwise.

    python benchmarks/throughput.py [--epochs 2] [--profile]

`plain` is a minimal two-tower in torch: nn.Embedding, Adam, all logits of the batch at once.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import DATA, argument_parser
from implicit.bpr import BayesianPersonalizedRanking
from scipy.sparse import csr_matrix
from torch import nn
from torch.nn import functional

from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender

IDS = {
    "features": {"text": None, "image": None, "categorical": None, "continuous": None, "temporal": None},
    "fusion": {"type": "identity"},
}


def anyrec_run(dataset: Dataset, name: str, epochs: int, **changes: JsonObject | int) -> None:
    """Train with some changes to the config, and print the speed of the fastest epoch."""
    config = {
        "defaults": "fixed",
        **IDS,
        "dim": 64,
        "split": {"protocol": "leave_last_out"},
        "evaluation": {"candidates": "interacted", "k": [10]},
        "training": {"epochs": epochs, "batch_size": 4096, "evaluate_every": 1000, "patience": None},
        **changes,
    }
    recommender = Recommender.from_config(config).fit(dataset, progress=False)
    speed = max(entry["positives_per_second"] for entry in recommender.result.history)
    report(name, speed, f"{epochs} epochs, test ndcg@10 {recommender.metrics['test']['ndcg@10']:.4f}")


def plain(dataset: Dataset, loss: str, batch: int) -> None:
    """Train the minimal two-tower for some steps, and print its speed."""
    users, items = torch.from_numpy(dataset.user_rows), torch.from_numpy(dataset.item_rows)
    tables = nn.ModuleList([nn.Embedding(len(dataset.users), 64), nn.Embedding(len(dataset.items), 64)])
    optimizer = torch.optim.Adam(tables.parameters(), lr=0.003)
    steps = max(3, min(40, 200_000 // batch))
    started = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(len(users), (batch,))
        user, item = tables[0](users[rows]), tables[1](items[rows])
        if loss == "bpr":
            negative = tables[1](torch.randint(len(dataset.items), (batch,)))
            value = functional.softplus((user * negative).sum(1) - (user * item).sum(1)).mean()
        else:
            value = functional.cross_entropy(user @ item.T, torch.arange(batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    report(f"plain torch {loss}, batch {batch}", steps * batch / (time.perf_counter() - started))


def implicit_bpr(dataset: Dataset) -> None:
    """Train BPR of the library implicit for five epochs, and print its speed."""
    matrix = csr_matrix((np.ones(len(dataset.interactions), np.float32), (dataset.user_rows, dataset.item_rows)))
    model = BayesianPersonalizedRanking(factors=63, iterations=5, num_threads=2)
    started = time.perf_counter()
    model.fit(matrix, show_progress=False)
    report("implicit BPR (C++)", 5 * matrix.nnz / (time.perf_counter() - started))


def report(name: str, speed: float, more: str = "") -> None:
    """Print one line. speed: positives per second."""
    print(f"{name:42} {speed / 1e6:8.3f} M positives/s   {more}", flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / "ml-1m").sorted()
    runs = {
        "anyrec BPR": {"loss": {"type": "bpr"}, "negatives": {"type": "uniform"}, "negative_ratio": 1},
        "anyrec BPR, batch 16384": {
            "loss": {"type": "bpr"},
            "negatives": {"type": "uniform"},
            "negative_ratio": 1,
            "training": {"epochs": arguments.epochs, "batch_size": 16384, "evaluate_every": 1000, "patience": None},
        },
        **{
            f"anyrec softmax, in-batch blocks of {block}": {
                "loss": {"type": "softmax"},
                "negatives": {"type": "in_batch", "block": block},
            }
            for block in (32, 64, 128)
        },
        **{
            f"anyrec softmax, {size} shared negatives": {
                "loss": {"type": "softmax"},
                "negatives": {"type": "shared", "size": size},
            }
            for size in (32, 128)
        },
    }
    if arguments.profile:
        for name, changes in runs.items():
            with torch.profiler.profile() as profile:
                anyrec_run(dataset, name, 1, **changes)
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40))
        return
    for name, changes in runs.items():
        anyrec_run(dataset, name, arguments.epochs, **changes)
    plain(dataset, "bpr", 2048)
    plain(dataset, "softmax", 1024)
    plain(dataset, "softmax", 4096)
    implicit_bpr(dataset)


if __name__ == "__main__":
    main()

"""Rankers against logistic regression: ML-100K, rating 4 or 5 or not, by AUC, on the latest tenth of all ratings.

    python benchmarks/rankers.py [--search] [--only dcn,deepfm] [--seeds 3]
    python benchmarks/rankers.py --speed

All ratings by time: eight tenths train, the next validates, the last tests. Features of every model: user and item id, age, gender,
occupation, first digit and first three digits of the zip code, genres, year of release. Settings (SETTINGS; --search tries each of
the grids again) and the number of epochs are chosen on validation; then each model is trained again on training and validation part
together, and tested. The regression sees ids and categories as indicators, numbers standardised and by quantile bins, with its C
chosen on validation. Settings that were searched are printed with their validation AUC.

--speed: seconds to score 100 users against 3,706 items, by each ranker and by DCN-v2 pair by pair.
"""

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from p1 import DATA

from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.split import Split, save_split
from anyrec.evaluation.classification import auc, score_pairs
from anyrec.model.scoring import score_blocks
from anyrec.recommender import Recommender

BASE = {
    "defaults": "fixed",
    "data": {"min_rating": 4},
    "features": {"text": None, "identity": {"init_std": 0.01}},
    "dim": 16,
    "id_dropout": 0.0,
    "loss": {"type": "bce"},
    "negatives": {"type": "labelled"},
    "training": {
        "metric": "auc",
        "epochs": 8,
        "patience": 3,
        "refit": True,
        "precision": "float32",
        "optimizer": {"learning_rate": 0.003, "weight_decay": 1.0},
        "scheduler": {"type": "cosine"},
    },
    "evaluation": {"report": False},
}
GRID = {
    "dim": [8, 16],
    "training.scheduler.type": ["constant", "cosine"],
    "training.optimizer.weight_decay": [0.3, 1.0, 3.0],
}
HEAVY = {"training.optimizer.weight_decay": 3.0}
SETTINGS: dict[str, dict[str, object]] = {
    "dot": HEAVY,
    "mlp": HEAVY,
    "dcn": {"training.optimizer.weight_decay": 0.3},
    "deepfm": {"dim": 8, "training.scheduler.type": "constant", **HEAVY},
    "dlrm": HEAVY,
}
CS = [0.1, 0.3, 1.0, 3.0, 10.0]


class ByAUC(Recommender):
    """Chosen by the AUC over all ratings of a part, each a pair of its own."""

    def evaluate(self, split="test"):
        self._known = {}
        rows, labels = self.split.rows(split), label_interactions(self.dataset, self.config.data)
        scores = score_pairs(self, self.dataset.user_rows[rows], self.dataset.item_rows[rows])
        return {"auc": auc(labels.positive[rows], scores)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(["regression", *SETTINGS]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    if arguments.speed:
        return speed()
    dataset = Dataset.read(DATA / "ml-100k").sorted()
    split = by_time(dataset)
    print(f"{'model':20} {'validation':>17} {'test':>17} {'epochs':>8} {'seconds':>8}")
    names = arguments.only.split(",")
    if "regression" in names:
        regression(dataset, split)
    with tempfile.TemporaryDirectory() as folder:
        save_split(split, dataset, Path(folder))
        base = {**BASE, "split": {"file": str(Path(folder) / "split.parquet")}}
        for name in (name for name in names if name != "regression"):
            chosen = search(dataset, base, name) if arguments.search else SETTINGS[name]
            options = [*(f"{key}={value}" for key, value in chosen.items()), *arguments.overrides]
            report(name, [fit(dataset, base, name, options, seed) for seed in range(arguments.seeds)])


def by_time(dataset):
    """Eight tenths of all ratings, the next, the last. Of one moment all are on the same side."""
    ordered = np.sort(dataset.times)
    edges = ordered[[len(ordered) * 8 // 10, len(ordered) * 9 // 10]]
    parts = np.searchsorted(edges, dataset.times, side="right")
    return Split(*(np.flatnonzero(parts == part) for part in range(3)), "global_time")


def fit(dataset, base, name, options, seed):
    started = time.perf_counter()
    document = {**base, "interaction": {"type": name}, "seed": seed}
    config, _ = load_config(document, options)
    recommender = ByAUC(config, discover()).fit(dataset, progress=False)  # from_config would make a plain Recommender
    return recommender, time.perf_counter() - started


def search(dataset, base, name):
    """The settings of the grid with the best validation AUC, of seed 0."""
    found = []
    for values in itertools.product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        options = [*(f"{key}={value}" for key, value in chosen.items()), "training.refit=false"]
        recommender, _ = fit(dataset, base, name, options, 0)
        found.append((recommender.metrics["validation"]["auc"], chosen))
        print(f"    {name} {found[-1][0]:.4f} {chosen}", flush=True)
    return max(found, key=lambda pair: pair[0])[1]


def report(name, fits):
    recommenders, seconds = zip(*fits, strict=True)
    figures = ["", ""]
    for place, part in enumerate(("validation", "test")):
        values = [one.metrics[part]["auc"] for one in recommenders]
        figures[place] = f"{np.mean(values):.4f} +- {np.std(values):.4f}"
    epochs = np.mean([one.result.best_epoch for one in recommenders])
    print(f"{name:20} {figures[0]:>17} {figures[1]:>17} {epochs:8.1f} {np.mean(seconds):8.1f}", flush=True)


def regression(dataset, split):
    from sklearn.linear_model import LogisticRegression

    labels = label_interactions(dataset, load_config(BASE, [])[0].data).positive

    def measure(rows, part, c):
        table = indicators(dataset, rows)
        model = LogisticRegression(C=c, max_iter=2000).fit(table[rows], labels[rows])
        return auc(labels[part], model.decision_function(table[part]))

    started = time.perf_counter()
    found = [(measure(split.train, split.validation, c), c) for c in CS]
    best, c = max(found)
    tested = measure(np.union1d(split.train, split.validation), split.test, c)
    seconds = time.perf_counter() - started
    print(f"{'logistic regression':20} {best:17.4f} {tested:17.4f} {'':8} {seconds:8.1f}   C={c}", flush=True)


def indicators(dataset, rows):
    """(interactions, columns) csr: every feature of user and item; vocabularies, scales and bins from `rows` alone."""
    from scipy import sparse
    from sklearn.preprocessing import KBinsDiscretizer, MultiLabelBinarizer, OneHotEncoder, StandardScaler

    parts = []
    for side, places in (("user", dataset.user_rows), ("item", dataset.item_rows)):
        table = dataset.table(side).to_pandas()
        seen = np.unique(places[rows])
        for name in table.columns:
            column = table[[name]]
            if name.startswith("text."):
                continue
            if name == "categorical.genres":
                kept = MultiLabelBinarizer(sparse_output=True).fit(column[name].iloc[seen])
                made = kept.transform([[g for g in row if g in set(kept.classes_)] for row in column[name]])
            elif name.startswith("continuous."):
                filled = column.fillna(column.iloc[seen].mean())
                scaled = StandardScaler().fit(filled.iloc[seen]).transform(filled)
                bins = KBinsDiscretizer(16, quantile_method="averaged_inverted_cdf").fit(filled.iloc[seen])
                made = sparse.hstack([scaled, bins.transform(filled)])
            else:
                made = OneHotEncoder(handle_unknown="ignore").fit(column.iloc[seen]).transform(column)
            parts.append(sparse.csr_matrix(made)[places])
    return sparse.hstack(parts).tocsr()


def speed(users=100, items=3706, dim=64, fields=(("id", "age", "gender", "job"), ("id", "genres", "text"))):
    registry = discover()
    torch.manual_seed(0)
    sides = [torch.randn(count, len(names), dim) for count, names in zip((users, items), fields, strict=True)]
    for name in ("dcn", "deepfm", "dlrm", "dcn pair by pair"):
        cls = registry.get("interaction", name.split()[0])
        model = torch.nn.Module()
        model.interaction = cls(dim, None, fields).eval()
        model.score = model.interaction.score
        if name.endswith("pair"):
            ranker = model.interaction
            model.score = lambda u, i, ranker=ranker: ranker.out(ranker.hidden(u, i)).squeeze(-1)
        started = time.perf_counter()
        with torch.inference_mode():
            for block in sides[0].split(4527):
                score_blocks(model, block, sides[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:20} {time.perf_counter() - started:6.1f} s, peak {peak:.1f} GB", flush=True)


if __name__ == "__main__":
    main()

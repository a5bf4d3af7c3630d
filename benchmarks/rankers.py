"""Rankers compared with logistic regression on ML-100K: AUC of predicting a rating of at least 4.

    python benchmarks/rankers.py [--search] [--only dcn,deepfm] [--seeds 3]
    python benchmarks/rankers.py --speed

Ratings are split by time: the first eight tenths train, the ninth validates, the last tests. Features of all models:
user and item id, age, gender, occupation, first digit and first three digits of the zip code, genres, year of release.
Options (`OPTIONS`; `--search` searches the grid again and prints the validation AUC of each setting) and the number of
epochs are chosen on validation. Each model is then trained again on the training and validation parts together, and
tested. The regression reads ids and categories as indicators, and numbers both standardised and in quantile bins; its C
is chosen on validation.

`--speed` measures the seconds to score 100 users against 3,706 items, by each ranker and by DCN-v2 pair by pair.
"""

from __future__ import annotations

import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import DATA, argument_parser
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import KBinsDiscretizer, MultiLabelBinarizer, OneHotEncoder, StandardScaler
from torch import Tensor

from anyrec.core.contracts import Interaction
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.split import Part, Split, save_split
from anyrec.evaluation.classification import auc, score_pairs
from anyrec.model.fitted import FittedModel
from anyrec.model.scoring import score_blocks
from anyrec.model.two_tower import TwoTowerModel
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
OPTIONS: dict[str, dict[str, object]] = {
    "dot": HEAVY,
    "mlp": HEAVY,
    "dcn": {"training.optimizer.weight_decay": 0.3},
    "deepfm": {"dim": 8, "training.scheduler.type": "constant", **HEAVY},
    "dlrm": HEAVY,
}
CS = [0.1, 0.3, 1.0, 3.0, 10.0]


class ByAUC(Recommender):
    """A recommender whose metric is the AUC over all ratings of a part."""

    def evaluate(self, split: Part = "test") -> dict[str, float]:
        """Return the AUC of one part of the split."""
        return rating_auc(self.model, self.model.required_learning().split.rows(split))


def rating_auc(model: FittedModel, rows: np.ndarray) -> dict[str, float]:
    """Return the AUC over the ratings in `rows`: (ratings,) rows of the interactions."""
    learning = model.required_learning()
    scores = score_pairs(model, learning.dataset.user_rows[rows], learning.dataset.item_rows[rows])
    return {"auc": auc(learning.labels.positive[rows], scores)}


def auc_of_validation(model: TwoTowerModel, split: Split) -> Callable[[], dict[str, float]] | None:
    """Return a function that measures the validation part during training; None if that part is empty."""

    def validate() -> dict[str, float]:
        model.scorer.eval()
        return rating_auc(model.recomputed(), split.validation)

    return validate if len(split.validation) else None


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", default=",".join(["regression", *OPTIONS]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    if arguments.speed:
        speed()
        return
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
            chosen = search(dataset, base, name) if arguments.search else OPTIONS[name]
            options = [*(f"{key}={value}" for key, value in chosen.items()), *arguments.overrides]
            report(name, [fit(dataset, base, name, options, seed) for seed in range(arguments.seeds)])


def by_time(dataset: Dataset) -> Split:
    """Split the ratings by time: 80% train, 10% validate, 10% test. Ratings at the same time stay together."""
    ordered = np.sort(dataset.times)
    edges = ordered[[len(ordered) * 8 // 10, len(ordered) * 9 // 10]]
    parts = np.searchsorted(edges, dataset.times, side="right")
    return Split(*(np.flatnonzero(parts == part) for part in range(3)), "global_time")


def fit(dataset: Dataset, base: JsonObject, name: str, options: Sequence[str], seed: int) -> tuple[Recommender, float]:
    """Train a ranker with the AUC as validation metric; return it with the seconds it took."""
    started = time.perf_counter()
    config, _ = load_config({**base, "interaction": {"type": name}, "seed": seed}, options)
    with mock.patch("anyrec.training.fit._validation", auc_of_validation):  # training measures list metrics only
        recommender = ByAUC(config, discover()).fit(dataset, progress=False)
    return recommender, time.perf_counter() - started


def search(dataset: Dataset, base: JsonObject, name: str) -> JsonObject:
    """Return the options in the grid with the best validation AUC for seed 0."""
    found = []
    for values in itertools.product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        options = [*(f"{key}={value}" for key, value in chosen.items()), "training.refit=false"]
        recommender, _ = fit(dataset, base, name, options, 0)
        found.append((recommender.metrics["validation"]["auc"], chosen))
        print(f"    {name} {found[-1][0]:.4f} {chosen}", flush=True)
    return max(found, key=lambda pair: pair[0])[1]


def report(name: str, fits: Sequence[tuple[Recommender, float]]) -> None:
    """Print the mean and standard deviation of a ranker's AUC over its trainings."""
    recommenders, seconds = zip(*fits, strict=True)
    figures = ["", ""]
    for place, part in enumerate(("validation", "test")):
        values = [one.metrics[part]["auc"] for one in recommenders]
        figures[place] = f"{np.mean(values):.4f} +- {np.std(values):.4f}"
    epochs = np.mean([one.result.best_epoch for one in recommenders])
    print(f"{name:20} {figures[0]:>17} {figures[1]:>17} {epochs:8.1f} {np.mean(seconds):8.1f}", flush=True)


def regression(dataset: Dataset, split: Split) -> None:
    """Print the AUC of logistic regression."""
    labels = label_interactions(dataset, load_config(BASE, [])[0].data).positive

    def measure(rows: np.ndarray, part: np.ndarray, c: float) -> float:
        table = indicators(dataset, rows)
        model = LogisticRegression(C=c, max_iter=2000).fit(table[rows], labels[rows])
        return auc(labels[part], model.decision_function(table[part]))

    started = time.perf_counter()
    found = [(measure(split.train, split.validation, c), c) for c in CS]
    best, c = max(found)
    tested = measure(np.union1d(split.train, split.validation), split.test, c)
    seconds = time.perf_counter() - started
    print(f"{'logistic regression':20} {best:17.4f} {tested:17.4f} {'':8} {seconds:8.1f}   C={c}", flush=True)


def indicators(dataset: Dataset, rows: np.ndarray) -> sparse.csr_matrix:
    """Return all features as (interactions, columns), with vocabularies, scales and bins fitted on `rows`."""
    parts = []
    for side, places in (("user", dataset.user_rows), ("item", dataset.item_rows)):
        table = dataset.table(side).to_pandas()
        seen = np.unique(places[rows])
        for name in table.columns:
            column = table[[name]]
            if name.startswith("text."):
                continue
            if name == "categorical.genres":
                encoder = MultiLabelBinarizer(sparse_output=True).fit(column[name].iloc[seen])
                made = encoder.transform([[g for g in row if g in set(encoder.classes_)] for row in column[name]])
            elif name.startswith("continuous."):
                filled = column.fillna(column.iloc[seen].mean())
                scaled = StandardScaler().fit(filled.iloc[seen]).transform(filled)
                bins = KBinsDiscretizer(16, quantile_method="averaged_inverted_cdf").fit(filled.iloc[seen])
                made = sparse.hstack([scaled, bins.transform(filled)])
            else:
                made = OneHotEncoder(handle_unknown="ignore").fit(column.iloc[seen]).transform(column)
            parts.append(sparse.csr_matrix(made)[places])
    return sparse.hstack(parts).tocsr()


class InteractionScorer:
    """Scores feature vectors by an interaction, without towers."""

    device = torch.device("cpu")

    def __init__(self, interaction: Interaction, pair_by_pair: bool):
        """
        Args:
            interaction: The interaction.
            pair_by_pair: Compute the hidden layers of each pair, instead of sharing terms between pairs.
        """
        self.interaction, self.pair_by_pair = interaction, pair_by_pair

    def pair_width(self, items: Tensor) -> int:
        """Return about how many numbers the interaction holds for each user-item pair."""
        return 4 * items.shape[1] * items.shape[2]

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """Return scores (users, items)."""
        if self.pair_by_pair:
            return self.interaction.out(self.interaction.hidden(users, items)).squeeze(-1)
        return self.interaction.score(users, items)


def speed(users: int = 100, items: int = 3706, dim: int = 64) -> None:
    """Print the seconds to score all pairs of users and items with random feature vectors."""
    fields = ("id", "age", "gender", "job"), ("id", "genres", "text")
    registry = discover()
    torch.manual_seed(0)
    vectors = [torch.randn(count, len(names), dim) for count, names in zip((users, items), fields, strict=True)]
    for name in ("dcn", "deepfm", "dlrm", "dcn pair by pair"):
        interaction = registry.get("interaction", name.split()[0])(dim, None, fields).eval()
        scorer = InteractionScorer(interaction, name.endswith("pair"))
        started = time.perf_counter()
        with torch.inference_mode():
            score_blocks(scorer, *vectors)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:20} {time.perf_counter() - started:6.1f} s, peak {peak:.1f} GB", flush=True)


if __name__ == "__main__":
    main()

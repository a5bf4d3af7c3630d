"""The gain of each part of a sequence model: one change at a time to the sequence config, measured on validation.

    python benchmarks/ablation.py --data ml-100k|ml-1m [--seeds 3] [--only "one layer,gru"] [--set training.epochs=6]

Protocol P1 (benchmarks/p1.py), configs/DATA-sequence.json. Prints the last epoch's validation ndcg@10, mean and
standard deviation over the seeds, and the difference from the first line with its standard error over seeds, paired.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from common import CONFIGS, DATA, argument_parser, configured_split, names, with_split

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.order import position_from_end, time_order
from anyrec.data.positives import Positives
from anyrec.data.split import Split
from anyrec.recommender import Recommender

WINDOW = 100
SAMPLED = ["loss.type=softmax", "negatives.type=shared", "negatives.size=512", "negatives.alpha=1.0"]
CONTENT = ["features.categorical={}", "features.continuous={}"]
ITEM_CONTENT = [*CONTENT, "user.features.categorical=null", "user.features.continuous=null"]
RESIDUAL = "fusion.type=residual"
VARIANTS: dict[str, list[str]] = {
    "as it is": [],
    "+ items' categories and numbers (residual)": [*ITEM_CONTENT, RESIDUAL],
    "+ both sides' (residual)": [*CONTENT, RESIDUAL],
    "+ items' and titles (residual)": [*ITEM_CONTENT, 'features.text={"ngrams": 1}', RESIDUAL],
    "+ items' (sum)": ITEM_CONTENT,
    "+ both sides' (sum)": CONTENT,
    "+ user's id": ["user.features.identity={}", "id_dropout=0.1"],
    "the user's other positives unmasked": [],
    "512 popular negatives with logQ": SAMPLED,
    "512 popular negatives without logQ": SAMPLED,
    "transformer alone": ["features.history.fields={}"],
    "fading mean alone": ['features.history={"block": "mean", "window": 100, "same_time": "ordered"}'],
    "+ a slower mean": ['features.history.fields.slow={"block": "mean", "half_life": 50}'],
    "plain blocks (pre_norm)": ["features.history.variant=pre_norm"],
    "bidirectional": ["features.history.block=bidirectional"],
    "gru": ["features.history.block=gru", "features.history.hidden=4"],
    "one layer": ["features.history.layers=1"],
    "four layers": ["features.history.layers=4"],
    "no positions": ["features.history.use_position=false"],
    "+ time gaps": ["features.history.use_gap=true"],
    "window 50": ["features.history.window=50"],
    "window 200": ["features.history.window=200"],
    "the last 100 events alone": [],
    "no average of weights": ["training.average_epochs=0"],
}


@contextmanager
def no_mask() -> Iterator[None]:
    """Count the user's other positives as negatives."""
    original = Positives.contains
    Positives.contains = lambda self, users, items: torch.zeros_like(original(self, users, items))
    try:
        yield
    finally:
        Positives.contains = original


@contextmanager
def no_log_q() -> Iterator[None]:
    """Train without the logQ correction of sampled negatives."""
    loss = discover().get("loss", "softmax")
    loss.corrected = False
    try:
        yield
    finally:
        loss.corrected = True


CHANGES = {"the user's other positives unmasked": no_mask, "512 popular negatives without logQ": no_log_q}


def main() -> None:
    parser = argument_parser(__doc__, data="ml-100k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of lines, between commas")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / arguments.data)
    first = None
    for name in dict.fromkeys(["as it is", *names(arguments.only, list(VARIANTS))]):
        found = np.array([measure(dataset, arguments, name, seed) for seed in range(arguments.seeds)])
        first = found if first is None else first
        gain = found - first
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        print(f"{name:42} {found.mean():.4f} ({found.std():.4f})  {gain.mean():+.4f} +- {error:.4f}", flush=True)


def measure(dataset: Dataset, arguments: argparse.Namespace, name: str, seed: int) -> float:
    """Return validation ndcg@10 of the last epoch of a variant."""
    source = CONFIGS / f"{arguments.data}-sequence.json"
    config, _ = load_config(source, [*VARIANTS[name], *arguments.overrides, f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder, CHANGES.get(name, nullcontext)():
        if name == "the last 100 events alone":
            config = with_latest_events(config, dataset, Path(folder))
        recommender = Recommender.from_config(config).fit(dataset, progress=False)
    return recommender.result.history[-1]["validation"]["ndcg@10"]


def with_latest_events(config: Config, dataset: Dataset, folder: Path) -> Config:
    """Return the config with a split that trains on each user's last `WINDOW` training events only."""
    dataset = dataset.sorted()
    split = configured_split(config, dataset)
    order = time_order(dataset)
    order = order[np.isin(order, split.train)]
    latest = np.sort(order[position_from_end(dataset.user_rows[order]) < WINDOW])
    return with_split(config, Split(latest, split.validation, split.test, split.protocol), dataset, folder)


if __name__ == "__main__":
    main()

"""What each part of a sequence model adds: the strong config with one thing changed at a time, on validation.

    python benchmarks/ablation.py --data ml-100k|ml-1m [--seeds 3] [--only "no mask,gru"] [--set training.epochs=6]

P1 (benchmarks/p1.py), configs/D-sequence.json. Prints ndcg@10 of the last epoch on validation, mean and spread over the seeds, and
the difference from the first line with its standard error over seeds, paired.
"""

import argparse
import os
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.order import position_from_end, time_order
from anyrec.data.positives import Positives
from anyrec.data.split import Split, save_split, split_interactions
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))
WINDOW = 100
SAMPLED = ["loss.type=softmax", "negatives.type=shared", "negatives.size=512", "negatives.alpha=1.0"]
CONTENT = ["features.categorical={}", "features.continuous={}"]
OF_ITEMS = [*CONTENT, "user.features.categorical=null", "user.features.continuous=null"]
RESIDUAL = "fusion.type=residual"
VARIANTS: dict[str, list[str]] = {
    "as it is": [],
    "+ items' categories and numbers (residual)": [*OF_ITEMS, RESIDUAL],
    "+ both sides' (residual)": [*CONTENT, RESIDUAL],
    "+ items' and titles (residual)": [*OF_ITEMS, 'features.text={"ngrams": 1}', RESIDUAL],
    "+ items' (sum)": OF_ITEMS,
    "+ both sides' (sum)": CONTENT,
    "+ user's id": ["user.features.identity={}", "id_dropout=0.1"],
    "the user's other positives unmasked": [],
    "512 popular negatives with logQ": SAMPLED,
    "512 popular negatives without logQ": SAMPLED,
    "transformer alone": ["features.history.fields={}"],
    "fading mean alone": ["features.history.block=mean", "features.history.fields={}"],
    "+ a slower mean": ['features.history.fields.slow={"block": "mean", "half_life": 50}'],
    "plain blocks (pre_norm)": ["features.history.variant=pre_norm"],
    "bidirectional": ["features.history.block=bidirectional"],
    "gru": ["features.history.block=gru"],
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
def no_mask():
    """The user's other positives count as negatives."""
    original = Positives.contains
    Positives.contains = lambda self, users, items: torch.zeros_like(original(self, users, items))
    try:
        yield
    finally:
        Positives.contains = original


@contextmanager
def no_log_q():
    loss = discover().get("loss", "softmax")
    loss.corrected = False
    try:
        yield
    finally:
        loss.corrected = True


CHANGES = {"the user's other positives unmasked": no_mask, "512 popular negatives without logQ": no_log_q}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], default="ml-100k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of lines, between commas")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(VARIANTS)
    dataset = Dataset.read(DATA / arguments.data)
    first = None
    for name in dict.fromkeys(["as it is", *names]):
        found = np.array([measure(dataset, arguments, name, seed) for seed in range(arguments.seeds)])
        first = found if first is None else first
        apart = found - first
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else np.nan
        print(f"{name:42} {found.mean():.4f} ({found.std():.4f})  {apart.mean():+.4f} +- {error:.4f}", flush=True)


def measure(dataset, arguments, name, seed):
    source = ROOT / "configs" / f"{arguments.data}-sequence.json"
    config, _ = load_config(source, [*VARIANTS[name], *arguments.overrides, f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder, CHANGES.get(name, nullcontext)():
        if name == "the last 100 events alone":
            file = latest_split(config, dataset, Path(folder))
            config = config.model_copy(update={"split": config.split.model_copy(update={"file": str(file)})})
        recommender = Recommender.from_config(config).fit(dataset, progress=False)
    assert recommender.result is not None
    return recommender.result.history[-1]["validation"]["ndcg@10"]


def latest_split(config, dataset, folder):
    """The same split, but that only each user's last training events are learned from."""
    dataset = dataset.sorted()
    positive = label_interactions(dataset, config.data).positive
    split, _ = split_interactions(dataset, config.split, config.seed, positive)
    order = time_order(dataset)
    order = order[np.isin(order, split.train)]
    latest = np.sort(order[position_from_end(dataset.user_rows[order]) < WINDOW])
    save_split(Split(latest, split.validation, split.test, split.protocol), dataset, folder)
    return folder / "split.parquet"


if __name__ == "__main__":
    main()

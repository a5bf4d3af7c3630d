"""Seconds per epoch of the causal transformer, alone or in turns with a minimal one in torch on the same machine.

anyrec alone, which prints lines `epoch N seconds S cpu C`; in turns with plain_transformer.py; the softmax by blocks
compared with autograd's; tokens with and without padding:

    python benchmarks/sequence.py --data ml-100k|ml-1m [--epochs 2] [--all] [--variant pre_norm --hidden 1]
    python benchmarks/sequence.py --data ml-1m --compare-plain [--rounds 2] [--all]
    python benchmarks/sequence.py --parts
    python benchmarks/sequence.py --data ml-1m --padding

Two gated blocks, dimension 64, two heads, SwiGLU width 256, window 100, softmax over all items, dropout 0.2, steps of
128 windows. An epoch trains on the last 100 training interactions of each user (`--all`: on all), as the plain
transformer and RecTools do, and on the items that occur in the data.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from common import DATA, argument_parser
from torch.nn import functional

from anyrec.core.discovery import discover
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.order import position_from_end, time_order
from anyrec.recommender import Recommender

HERE = Path(__file__).parent
WINDOW, BATCH, HELD_OUT = 100, 128, 2
LINE = re.compile(r"^epoch \d+ seconds ([\d.]+)", re.MULTILINE)
CONFIG = {
    "defaults": "fixed",
    "dim": 64,
    "id_dropout": 0.0,
    "features": {
        **dict.fromkeys(["text", "image", "categorical", "continuous"]),
        "identity": {"init_std": 0.02},
        "history": {"window": WINDOW, "same_time": "ordered"},
    },
    "user": {"features": {"identity": None}},
    "fusion": {"type": "identity"},
    "loss": {"type": "full_softmax"},
    "split": {"protocol": "leave_last_out"},
    "evaluation": {"candidates": "interacted", "k": [10]},
    "training": {
        "batch_size": BATCH * WINDOW,
        "evaluate_every": 1000,
        "patience": None,
        "optimizer": {"learning_rate": 0.001, "weight_decay": 0.01},
    },
}


def main() -> None:
    parser = argument_parser(__doc__, data="ml-1m")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--variant", choices=["ligr", "pre_norm"], default="ligr")
    parser.add_argument("--hidden", type=int, default=4, help="width of the perceptrons, in dimensions")
    parser.add_argument("--compare-plain", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--padding", action="store_true")
    arguments = parser.parse_args()
    if arguments.parts:
        parts()
    elif arguments.padding:
        padding(arguments.data)
    elif arguments.compare_plain:
        compare_plain(arguments.data, arguments.rounds, arguments.all)
    else:
        layers = {"variant": arguments.variant, "hidden": arguments.hidden}
        train(arguments.data, arguments.epochs, arguments.all, layers)


def train(name: str, epochs: int, everything: bool, layers: JsonObject) -> None:
    """Train anyrec's transformer and print a line for each epoch.

    Args:
        name: The dataset.
        epochs: The number of epochs.
        everything: Train on all interactions of each user instead of the last ones.
        layers: Options of the history encoder.
    """
    dataset = only_occurring(Dataset.read(DATA / name))
    if not everything:
        dataset = latest(dataset, WINDOW + HELD_OUT)
    history = {**CONFIG["features"]["history"], **layers}
    config = {
        **CONFIG,
        "features": {**CONFIG["features"], "history": history},
        "training": {**CONFIG["training"], "epochs": epochs},
    }
    began = [time.process_time()]

    def report(entry: JsonObject) -> None:
        spent = time.process_time() - began[0]
        print(f"epoch {entry['epoch']} seconds {entry['seconds']:.2f} cpu {spent:.2f}", flush=True)
        began[0] = time.process_time()

    Recommender.from_config(config).fit(dataset, progress=False, report=report)


def only_occurring(dataset: Dataset) -> Dataset:
    """Return the dataset without items that have no interaction."""
    items = dataset.items.take(pa.array(np.unique(dataset.item_rows)))
    return Dataset(dataset.users, items, dataset.interactions, dataset.root, dataset.roles)


def latest(dataset: Dataset, count: int) -> Dataset:
    """Return the dataset with each user's last `count` interactions."""
    order = time_order(dataset)
    rows = np.sort(order[position_from_end(dataset.user_rows[order]) < count])
    return Dataset(dataset.users, dataset.items, dataset.interactions.take(pa.array(rows)), dataset.root, dataset.roles)


def compare_plain(name: str, rounds: int, everything: bool) -> None:
    """Train the plain transformer and anyrec's in turns, and print the median seconds of an epoch."""
    commands = {
        "plain": [str(HERE / "plain_transformer.py"), "--data", name, "--epochs", "2"],
        "ours": [__file__, "--data", name, "--epochs", "2"],
    }
    if everything:
        commands["ours, all interactions"] = [*commands["ours"], "--all"]
    seconds = {who: [] for who in commands}
    for _ in range(rounds):
        for who, command in commands.items():
            printed = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout
            seconds[who].append(float(LINE.findall(printed)[-1]))
    plain = statistics.median(seconds["plain"])
    for who, found in seconds.items():
        middle = statistics.median(found)
        each = ", ".join(f"{s:.1f}" for s in found)
        print(f"{name} {who:24} {middle:7.2f} s per epoch (of {each})   {plain / middle:.2f}x")


def parts() -> None:
    """Time the loss and gradients of 12,800 positions against 3,706 items, dimension 64."""
    loss = discover().get("loss", "full_softmax")()
    users, items = (torch.randn(rows, 64, requires_grad=True) for rows in (12_800, 3706))
    target = torch.randint(3706, (12_800,))
    ways = {
        "by blocks": lambda: loss.over_catalogue(users, items, target, lambda low, high, scores: scores.zero_(), None),
        "by autograd": lambda: functional.cross_entropy(users @ items.T, target),
    }
    for name, way in ways.items():
        found = []
        for _ in range(5):
            started = time.perf_counter()
            way().backward()
            found.append(time.perf_counter() - started)
        print(f"softmax {name:18} {1000 * min(found):6.0f} ms")


def padding(name: str) -> None:
    """Print how many tokens are saved by packing sequences without padding."""
    dataset = Dataset.read(DATA / name)
    lengths = np.bincount(dataset.user_rows) - HELD_OUT
    padded, real = len(lengths) * WINDOW, np.minimum(lengths, WINDOW).sum()
    cut = (np.ceil(lengths / WINDOW) * WINDOW).sum()
    print(f"{name}: the last {WINDOW} of each user: {real:,} tokens, padded {padded:,}: {1 - real / padded:.0%} saved")
    total = lengths.sum()
    print(f"{name}: all interactions in windows: {total:,} tokens, padded {cut:,.0f}: {1 - total / cut:.0%} saved")


if __name__ == "__main__":
    main()

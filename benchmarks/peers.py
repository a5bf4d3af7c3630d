"""Metrics by ranx and RecTools for a small random case, by user: the reference values of tests/test_peer_metrics.py.

    python benchmarks/peers.py tests/data/peer_metrics.json
    python benchmarks/peers.py --time FOLDER

The second command is called by evaluation.py: it prints RecTools's metrics for the tables in the folder, and seconds.
Runs in its own environment without anyrec: `pip install ranx rectools pyarrow`, which need numpy below 2.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import ranx
from rectools import metrics as rt
from rectools.metrics.distances import PairwiseDistanceCalculator

warnings.filterwarnings("ignore")
USERS, TRAINED, ITEMS, CATEGORIES, LENGTH = 60, 100, 80, 6, 20
KS = [1, 5, 10, 20]
RANX = ("recall", "precision", "ndcg", "hit_rate", "map", "mrr")


class CosineDistance(PairwiseDistanceCalculator):
    """1 - cosine of two items' categories, and 1 if an item has no category. Items are identified by their row."""

    def __init__(self, categories: np.ndarray):
        norm = np.linalg.norm(categories, axis=1, keepdims=True)
        self.unit = categories / np.where(norm == 0, 1, norm)

    def _get_distances_for_item_pairs(self, items_0, items_1):
        left, right = (self.unit[np.asarray(items, dtype=int)] for items in (items_0, items_1))
        return 1 - (left * right).sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default="tests/data/peer_metrics.json")
    parser.add_argument("--time", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.time:
        print(json.dumps(timed(arguments.time)))
        return
    case = draw(np.random.default_rng(21))
    versions = {name: version(name) for name in ("ranx", "rectools", "numpy", "pandas")}
    found = {"versions": versions, "ks": KS, **case, "ranx": by_ranx(case), "rectools": by_rectools(case)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(name)}: {_dump(value)}" for name, value in found.items())
    arguments.out.write_text(f"{{\n{lines}\n}}\n")


class Case(TypedDict):
    """Lists, held-out items and histories by user, and categories (items, categories) of 0 and 1."""

    num_items: int
    lists: list[list[int]]
    targets: list[list[int]]
    history: list[list[int]]
    categories: list[list[int]]


def draw(rng: np.random.Generator) -> Case:
    """Draw lists, held-out items, histories and categories.

    All items differ in popularity, so that the order of ties in popularity has no effect; one item has no interaction.
    Every sixth list is short. About half of the held-out items are in the list. Some items are in no list, some have no
    category.
    """
    history = np.zeros((TRAINED, ITEMS), bool)
    for item, count in enumerate(rng.permutation(ITEMS)):
        history[rng.choice(TRAINED, count, replace=False), item] = True
    liking = 1.5 * rng.normal(size=ITEMS)
    lists, targets = [], []
    for user in range(USERS):
        fresh = np.flatnonzero(~history[user])
        fresh = fresh[np.argsort(-liking[fresh] - rng.gumbel(size=len(fresh)))]
        listed, rest = fresh[: rng.integers(1, LENGTH) if user % 6 == 5 else LENGTH], fresh[LENGTH:]
        number = rng.integers(1, 7)
        hits = min(len(listed), rng.binomial(number, 0.5))
        lists.append(listed)
        targets.append(np.concatenate([rng.choice(listed, hits, replace=False), rest[: number - hits]]))
    return {
        "num_items": ITEMS,
        "lists": [row.tolist() for row in lists],
        "targets": [row.tolist() for row in targets],
        "history": [np.flatnonzero(row).tolist() for row in history],
        "categories": (rng.random((ITEMS, CATEGORIES)) < 0.25).astype(int).tolist(),
    }


def by_ranx(case: Case) -> dict[str, list[float]]:
    """Return ranx's metrics by name, each (users,).

    Ranks are passed as decreasing scores, ids as zero-padded strings because ranx sorts users by id.
    """
    qrels = ranx.Qrels({f"u{user:03}": {f"i{item}": 1 for item in row} for user, row in enumerate(case["targets"])})
    run = {
        f"u{user:03}": {f"i{item}": -float(place) for place, item in enumerate(row)}
        for user, row in enumerate(case["lists"])
    }
    names = [f"{name}@{k}" for name in RANX for k in KS]
    found = ranx.evaluate(qrels, ranx.Run(run), names, return_mean=False)
    return {name: values.tolist() for name, values in found.items()}


def by_rectools(case: Case) -> dict[str, list[float] | float]:
    """Return RecTools's metrics by name, each (users,), and coverage as a number.

    They use the options nearest to anyrec's; ndcg and map are returned with the other options as well.
    """
    reco, held_out, history = _table(case["lists"]), _table(case["targets"]), _table(case["history"])
    catalog = range(case["num_items"])
    found = {}
    for k in KS:
        metrics = _metrics(k, CosineDistance(np.array(case["categories"], float)))
        metrics |= {f"ndcg_default@{k}": rt.NDCG(k), f"map_divide_by_k@{k}": rt.MAP(k, divide_by_k=True)}
        for name, metric in metrics.items():
            if name.startswith("coverage"):
                found[name] = metric.calc(reco, catalog)
                continue
            if name.startswith("serendipity"):
                values = metric.calc_per_user(reco, held_out, history, catalog)
            elif name.startswith(("novelty", "popularity")):
                values = metric.calc_per_user(reco, history)
            elif name.startswith("diversity"):
                values = metric.calc_per_user(reco)
            else:
                values = metric.calc_per_user(reco, held_out)
            found[name] = values.reindex(range(len(case["lists"]))).tolist()
    return found


def timed(folder: Path) -> dict[str, dict[str, float]]:
    """Return RecTools's means for the tables in a folder, and the seconds with and without its diversity."""
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("reco", "held_out", "history", "categories")]
    reco, held_out, history, categories = tables
    settings = json.loads((folder / "settings.json").read_text())
    distance = CosineDistance(categories.to_numpy())
    metrics = {name: metric for k in settings["ks"] for name, metric in _metrics(k, distance).items()}
    without = {name: metric for name, metric in metrics.items() if not name.startswith("diversity")}
    seconds = {}
    for label, chosen in (("without diversity", without), ("all", metrics)):
        started = time.perf_counter()
        found = rt.calc_metrics(chosen, reco, held_out, history, settings["catalog"])
        seconds[label] = time.perf_counter() - started
    return {"seconds": seconds, "metrics": found}


def _metrics(k: int, distance: CosineDistance) -> dict[str, object]:
    return {
        f"recall@{k}": rt.Recall(k),
        f"precision@{k}": rt.Precision(k),
        f"ndcg@{k}": rt.NDCG(k, divide_by_achievable=True),
        f"hit_rate@{k}": rt.HitRate(k),
        f"map@{k}": rt.MAP(k),
        f"mrr@{k}": rt.MRR(k),
        f"novelty@{k}": rt.MeanInvUserFreq(k),
        f"popularity@{k}": rt.AvgRecPopularity(k),
        f"serendipity@{k}": rt.Serendipity(k),
        f"coverage@{k}": rt.CatalogCoverage(k, normalize=True),
        f"diversity@{k}": rt.IntraListDiversity(k, distance),
    }


def _table(rows: list[list[int]]) -> pd.DataFrame:
    pairs = [(user, item, place + 1) for user, row in enumerate(rows) for place, item in enumerate(row)]
    return pd.DataFrame(pairs, columns=["user_id", "item_id", "rank"])


def _dump(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    lines = (f"  {json.dumps(name)}: {json.dumps(inner, separators=(',', ':'))}" for name, inner in value.items())
    return "{\n" + ",\n".join(lines) + "\n }"


if __name__ == "__main__":
    main()

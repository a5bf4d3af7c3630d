"""Updates of a trained model: none, history only, with steps, full retraining; ndcg@10 and processor seconds.

    OMP_NUM_THREADS=1 python benchmarks/update.py --data ml-1m --model ids|sequence [--epochs 10] [--seed 0]
        [--set update.learning_rate=0.3]

The model is trained on the first 80 % of each user's history by time, updated with the next 10 %, and measured on the
last 10 %: lists of ten items of each user without the items that the model knows the user had. Full retraining trains
on the first 90 %. Items whose first interaction is in the next 10 % are new in the update.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from common import DATA, MOVIELENS, argument_parser

from anyrec import Dataset, Recommender
from anyrec.core.types import JsonObject
from anyrec.data.order import position_from_end, time_order

IDS: JsonObject = {
    "defaults": "fixed",
    "dim": 64,
    "features": {"text": None, "image": None, "temporal": None},
    "loss": {"type": "softmax"},
    "training": {"batch_size": 2048, "patience": 2},
}
SEQUENCE: JsonObject = {
    "defaults": "fixed",
    "dim": 64,
    "features": {"text": None, "image": None, "temporal": None, "history": {"window": 50, "layers": 1, "heads": 2}},
    "user": {"features": {"identity": None}},
    "loss": {"type": "full_softmax"},
    "training": {"batch_size": 6400, "patience": 2, "optimizer": {"learning_rate": 0.002}},
}


def main() -> None:
    """Print ndcg@10 and processor seconds of each way."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", default="ml-1m", choices=MOVIELENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=("ids", "sequence"), default="ids")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the trainings; the best one counts")
    parser.add_argument("--set", action="append", default=[], help="a value of the update, as update.epochs=3")
    args = parser.parse_args()
    source = json.loads(json.dumps({"ids": IDS, "sequence": SEQUENCE}[args.model]))
    source["training"]["epochs"] = args.epochs
    source |= {"split": {"protocol": "leave_last_out"}, "evaluation": {"k": [10]}}
    source["update"] = {key.split(".")[1]: json.loads(value) for key, value in (one.split("=") for one in args.set)}
    source["seed"] = args.seed
    dataset = Dataset.read(DATA / args.data).sorted()
    parts = parts_of(dataset)
    targets = part_of(dataset, parts == 2)
    known = np.isin(np.arange(len(dataset.items)), dataset.item_rows[parts == 0])
    old, late = part_of(dataset, parts == 0, known), part_of(dataset, parts == 1)
    print(f"{len(dataset.users):,} users, {len(dataset.items):,} items, {(~known).sum()} of them new in the update")

    old_model, spent = timed(lambda: Recommender.from_config(source).fit(old, progress=False))
    show("no update", old_model, spent, targets)
    wider, spent = timed(lambda: old_model.add(late))
    show("history only", wider, spent, targets)
    updated, spent = timed(lambda: old_model.update(late, progress=False))
    show("update with steps", updated, spent, targets)
    print(f"  {updated.joined}; {updated.updated}", flush=True)
    again, spent = timed(lambda: Recommender.from_config(source).fit(part_of(dataset, parts < 2), progress=False))
    show("full retraining", again, spent, targets)


def parts_of(dataset: Dataset) -> np.ndarray:
    """Return (interactions,) 0 for the first 80 % of each user's history, 1 for the next 10 %, 2 for the last 10 %."""
    order = time_order(dataset)
    later = np.empty(len(order), np.int64)
    later[order] = position_from_end(dataset.user_rows[order])
    count = np.bincount(dataset.user_rows, minlength=len(dataset.users))[dataset.user_rows]
    share = (later + 0.5) / count
    return np.where(share < 0.1, 2, np.where(share < 0.2, 1, 0))


def part_of(dataset: Dataset, rows: np.ndarray, items: np.ndarray | None = None) -> Dataset:
    """Return the interactions `rows`, (interactions,) bool, with all records, or those of `items`, (items,) bool."""
    things = dataset.items if items is None else dataset.items.filter(pa.array(items))
    return Dataset(dataset.users, things, dataset.interactions.filter(pa.array(rows)), dataset.root, dataset.roles)


def show(name: str, model: Recommender, seconds: float, targets: Dataset) -> None:
    """Print a line: the mean ndcg@10 of all users, and the processor seconds."""
    print(f"{name}: ndcg@10 {ndcg(model, targets).mean():.4f}, {seconds:.1f} s", flush=True)


def ndcg(model: Recommender, targets: Dataset, k: int = 10) -> np.ndarray:
    """Return (users,) ndcg@k of the lists against the interactions of `targets`; 0 for a user the model does not know.

    An item that is not in `targets.items` cannot be listed.
    """
    wanted = np.zeros((len(targets.users), len(targets.items)), bool)
    wanted[targets.user_rows, targets.item_rows] = True
    lists = model.recommend(None, k)
    users = {one: row for row, one in enumerate(targets.ids("user").to_pylist())}
    items = {one: row for row, one in enumerate(targets.ids("item").to_pylist())}
    owner = np.array([users[one] for one in lists["user_id"].to_pylist()])
    found = np.array([items[one] for one in lists["item_id"].to_pylist()])
    gains = 1 / np.log2(np.arange(2, k + 2))
    hits = wanted[owner, found] * gains[lists["rank"].to_numpy() - 1]
    best = np.concatenate([[0], np.cumsum(gains)])[np.minimum(wanted.sum(1), k)]
    return np.bincount(owner, hits, minlength=len(users)) / np.maximum(best, gains[0])


def timed(call: Callable[[], Recommender]) -> tuple[Recommender, float]:
    """Return the result of a call and its processor seconds."""
    started = time.process_time()
    return call(), time.process_time() - started


if __name__ == "__main__":
    main()

"""The published protocol P1 on MovieLens: leave-last-out, all items that occur ranked, a tie counts half a place.

    python benchmarks/p1.py --data ml-100k --seed 0 [--config configs/ml-100k.json] [--out lists.parquet] [--set key=value]

Prints one line: validation and test ndcg@10 and recall@10, epochs and seconds.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.data.dataset import Dataset
from anyrec.load_config import load_config
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    source = arguments.config or ROOT / "configs" / f"{arguments.data}-p1.json"
    config, _ = load_config(source, [*arguments.overrides, f"seed={arguments.seed}"])
    started = time.perf_counter()
    dataset = Dataset.read(DATA / arguments.data, config.data)
    recommender = Recommender.from_config(config).fit(dataset)
    seconds = time.perf_counter() - started
    parts = [
        f"{part} ndcg@10 {metrics['ndcg@10']:.4f} recall@10 {metrics['recall@10']:.4f}"
        for part, metrics in recommender.metrics.items()
    ]
    epochs = f"best epoch {recommender.result.best_epoch} of {len(recommender.result.history)}"
    print(f"{arguments.data} seed {arguments.seed}: {'; '.join(parts)}; {epochs}; {seconds:.0f} s", flush=True)
    if arguments.out:
        pq.write_table(test_lists(recommender), arguments.out)


def test_lists(recommender):
    """Each test user's top 20 of the items that occur, less those of train and validation: user_id, item_id, rank."""
    data, split = recommender.dataset, recommender.split
    known = np.concatenate([split.train, split.validation])
    occurring = data.ids("item").take(pa.array(np.unique(data.item_rows)))
    users = data.ids("user").take(pa.array(np.unique(data.user_rows[split.test])))
    wide = recommender.recommend(
        users, 20 + int(np.bincount(data.user_rows[known]).max()), exclude_seen=False, candidates=occurring
    )
    listed = pa.table({"user_id": wide["user_id"], "item_id": wide["item_id"]})
    taken = (
        data.interactions.take(pa.array(known))
        .select(["user_id", "item_id"])
        .append_column("taken", pa.array(np.ones(len(known), bool)))
    )
    joined = (
        listed.append_column("place", pa.array(np.arange(len(listed))))
        .join(taken, ["user_id", "item_id"])
        .sort_by("place")
    )
    left = joined.filter(joined["taken"].is_null()).select(["user_id", "item_id"])
    ids = left["user_id"].to_numpy()
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    rank = np.arange(len(ids)) - np.repeat(starts, np.diff(np.append(starts, len(ids)))) + 1
    return left.append_column("rank", pa.array(rank)).filter(pa.array(rank <= 20))


if __name__ == "__main__":
    main()

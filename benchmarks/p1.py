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
from anyrec.evaluation.held_out import rank_held_out
from anyrec.load_config import load_config
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
LENGTH = 20
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
    """Each test user's best items, those of train and validation left out: user_id, item_id, rank."""
    ranking = rank_held_out(recommender, "test", length=LENGTH)
    rows, places = np.nonzero(ranking.lists >= 0)
    data = recommender.dataset
    return pa.table(
        {
            "user_id": data.ids("user").take(pa.array(ranking.users[rows])),
            "item_id": data.ids("item").take(pa.array(ranking.lists[rows, places])),
            "rank": pa.array(places + 1),
        }
    )


if __name__ == "__main__":
    main()

"""Write the top-K lists of all users to a Parquet file, block by block, and add items without training again.

python examples/batch_lists.py
"""

import tempfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from anyrec import Recommender
from anyrec.data.synthetic.generate import generate
from anyrec.serving.batch import write_lists

NEW_ITEMS = [{"item_id": "new item", "categorical": {"category": "kitchen"}, "text": {"title": "Pan with a lid"}}]


def main() -> None:
    dataset = generate(users=400, items=60, interactions=6000, seed=0).dataset
    config = {"defaults": "fixed", "features": {"image": None}, "training": {"epochs": 6}}
    recommender = Recommender.from_config(config).fit(dataset, progress=False)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lists.parquet"  # .csv, .jsonl and .json are written as well, by the file's ending
        done = write_lists(recommender, path, 5, progress=False)
        lists = pq.read_table(path)
    print(f"{done['users']} users, {done['rows']} rows, columns: {', '.join(lists.column_names)}")

    wider = recommender.add_items(NEW_ITEMS)  # a new recommender that shares the trained model
    ranks = wider.recommend(k=61).filter(pc.field("item_id") == "new item")["rank"]
    print(f"after add_items: {len(wider.dataset.items)} items; the new one has mean rank {pc.mean(ranks).as_py():.1f}")


if __name__ == "__main__":
    main()

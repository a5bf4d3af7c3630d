"""Train a recommender from pandas tables, list items for known users, save the model and load it again.

python examples/train_from_pandas.py
"""

import tempfile
from pathlib import Path

import pandas as pd

from anyrec import Dataset, Recommender
from anyrec.data.synthetic.generate import generate


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Users, items and interactions as an application has them: plain columns, one row for each record."""
    made = generate(users=300, items=60, interactions=4000, seed=0).dataset
    users = made.users.select(["user_id", "categorical.occupation", "continuous.age"]).to_pandas()
    items = made.items.select(["item_id", "text.title", "categorical.category"]).to_pandas()
    interactions = made.interactions.select(["user_id", "item_id", "timestamp"]).to_pandas()
    users.columns = ["user_id", "occupation", "age"]
    items.columns = ["item_id", "title", "category"]
    return users, items, interactions


def main() -> None:
    users, items, interactions = tables()

    # A feature column is named `group.name`: the group decides how it is encoded.
    users = users.rename(columns={"occupation": "categorical.occupation", "age": "continuous.age"})
    items = items.rename(columns={"title": "text.title", "category": "categorical.category"})
    dataset = Dataset.from_tables(users, items, interactions)

    config = {"name": "shop", "training": {"epochs": 3}}  # every other key is chosen to fit the data
    recommender = Recommender.from_config(config).fit(dataset, progress=False)
    print(f"test ndcg@10: {recommender.metrics['test']['ndcg@10']:.3f}")

    top = recommender.recommend(["user1", "user2"], k=3)
    print(top.to_pandas()[["user_id", "item_id", "rank"]].to_string(index=False))

    with tempfile.TemporaryDirectory() as folder:
        recommender.save(Path(folder) / "model")
        loaded = Recommender.load(Path(folder) / "model")
    same = loaded.recommend(["user1", "user2"], k=3)["item_id"].equals(top["item_id"])
    print(f"the loaded model returns the same items: {same}")


if __name__ == "__main__":
    main()

"""Add an encoder for a new kind of feature: colours written as `#rrggbb`.

    python examples/custom_encoder.py

The class alone makes `"colour": {"main": "#1f77b4"}` in a record work. In a project, put it into a file in `./plugins`.
This script writes that file into a temporary folder and names the folder with `plugins`.
"""

import tempfile
from pathlib import Path

import pyarrow as pa

from anyrec import Dataset, Recommender
from anyrec.data.synthetic.generate import generate

PLUGIN = '''
import pyarrow as pa
import torch

from anyrec import Encoder


class Colour(Encoder):
    """A colour by its three channels, each between 0 and 1."""

    type = "colour"

    def prepare(self, column: pa.Array) -> torch.Tensor:
        """(rows,) texts -> (rows, 3) float32. Called once for each table; missing values are masked by the caller."""
        codes = [code or "#000000" for code in column.to_pylist()]
        return torch.tensor([[int(code[n : n + 2], 16) / 255 for n in (1, 3, 5)] for code in codes])
'''
COLOURS = {"health": "#2ca02c", "tools": "#7f7f7f", "books": "#8c564b", "kitchen": "#ff7f0e", "music": "#9467bd"}


def coloured_items() -> Dataset:
    """Synthetic data whose items have a colour, which stands for the category, and no other feature."""
    made = generate(users=300, items=60, interactions=4000, seed=0).dataset
    colours = [COLOURS.get(category, "#1f77b4") for category in made.items["categorical.category"].to_pylist()]
    items = pa.table({"item_id": made.items["item_id"], "colour.main": colours})
    return Dataset.from_tables(made.users.select(["user_id", "categorical.occupation"]), items, made.interactions)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "colour.py").write_text(PLUGIN)
        config = {"user": {"features": {"history": None}}, "item": {"features": {"identity": None}}}
        recommender = Recommender.from_config(config, plugins=[folder]).fit(coloured_items(), progress=False)
    print(*(line for line in recommender.describe() if "colour" in line), sep="\n")
    print(f"test ndcg@10 of a model that knows items by colour alone: {recommender.metrics['test']['ndcg@10']:.3f}")


if __name__ == "__main__":
    main()

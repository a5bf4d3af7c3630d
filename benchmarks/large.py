"""Seconds and memory of reading and training on many interactions. See benchmarks/RESULTS.md for results.

python benchmarks/large.py make FOLDER --rows 10000000 --users 500000 --items 100000
python benchmarks/large.py fit FOLDER [--steps 200] [--limit 400MB]
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anyrec import Dataset, Recommender
from anyrec.core.load_config import load_config
from anyrec.core.windows import SequencePacker

BLOCK = 2_000_000
CONFIG = {"features": {"history": {"type": "history"}}, "training": {"epochs": 1}, "blend": None}
"""The sequence model of the defaults, although the order of these data means nothing; without a blend: one epoch."""


def ids(letter: str, numbers: np.ndarray) -> pa.Array:
    """Return ids like u17."""
    return pc.binary_join_element_wise(letter, pa.array(numbers).cast(pa.string()), "")


def make(folder: Path, rows: int, users: int, items: int) -> None:
    """Write users, items and interactions as Parquet: users uniform, items skewed, times in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for start in range(0, rows, BLOCK):
            size = min(BLOCK, rows - start)
            user, item = rng.integers(0, users, size), (items * rng.random(size) ** 3).astype(np.int64)
            times = 1_500_000_000 + rng.integers(0, 100_000_000, size)
            writer.write_table(pa.table([ids("u", user), ids("i", item), times], schema=schema))
    pq.write_table(pa.table({"user_id": ids("u", np.arange(users))}), folder / "users.parquet")
    pq.write_table(pa.table({"item_id": ids("i", np.arange(items))}), folder / "items.parquet")


def fit(folder: Path, steps: int, limit: str) -> None:
    """Read the data and train some steps, and print seconds and the highest resident memory so far."""
    started = time.perf_counter()
    say("imports", started)
    config = {**CONFIG, "data": {"memory_limit": limit}}
    dataset = Dataset.read(folder, load_config(config)[0].data)
    say("read", started)
    epoch = SequencePacker.epoch

    def some(packer: SequencePacker, generator: object) -> object:
        for step, batch in enumerate(islice(epoch(packer, generator), steps)):
            if step in (0, steps - 1):
                say(f"step {step + 1}", started)
            yield batch
        raise SystemExit

    SequencePacker.epoch = some
    Recommender.from_config(config).fit(dataset, progress=False)


def say(stage: str, started: float) -> None:
    """Print the seconds since the start, and the highest resident memory."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{stage:12} {time.perf_counter() - started:8.1f} s   highest {highest:6.2f} GiB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "fit"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--limit", default="1TB", help="data.memory_limit")
    asked = parser.parse_args()
    if asked.action == "make":
        make(asked.folder, asked.rows, asked.users, asked.items)
    else:
        fit(asked.folder, asked.steps, asked.limit)

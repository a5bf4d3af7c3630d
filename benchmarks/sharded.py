"""Memory and speed of training a large catalogue of ids on one process and on several that divide its table.

    OMP_NUM_THREADS=1 python benchmarks/sharded.py [--items 5000000] [--processes 1 2]

Generates positives of uniform users and items, and trains user and item ids with in-batch negatives, then with the
softmax over all items. Each training runs in new processes of one thread. See benchmarks/RESULTS.md for results.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from anyrec.core.contracts import Encoder
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.core.processes import Processes
from anyrec.core.ragged import Prepared
from anyrec.core.sharded_tables import join_tables
from anyrec.encoders.identity import Identity
from anyrec.model.towers import ItemTower, UserTower
from anyrec.model.two_tower_network import TwoTower
from anyrec.training import loop
from anyrec.training.loop import FitOptions
from anyrec.training.samples import Samples, TrainingData
from tests.gloo import run

DIM = 64
LOSSES = {
    "sampled": {"loss": {"type": "softmax"}, "negatives": {"type": "in_batch"}, "batch_size": 4096, "steps": 200},
    "full": {"loss": {"type": "full_softmax"}, "batch_size": 64, "steps": 3},
}
"""The trainings: loss, positives of a step and number of steps."""


def ids(count: int) -> Encoder:
    """Return the encoder of `count` ids, with its table."""
    encoder = Identity(None, DIM)
    encoder.context.shard_rows = 1_000_000
    encoder.restore({"vocabulary": pa.array(np.arange(count))})
    encoder.build()
    return encoder


def measure(together: Processes, name: str, users: int, items: int, folder: str) -> None:
    """Train in this process and write what it took."""
    torch.manual_seed(0)
    options = {**LOSSES[name]}
    batch, steps = options.pop("batch_size"), options.pop("steps")
    config, _ = load_config(
        {"defaults": "fixed", "dim": DIM, "training": {"batch_size": batch, "epochs": 1}, **options}
    )
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(count, (batch * steps,), generator=draw) for count in (users, items)]
    none = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    samples = Samples(rows[0], rows[1], None, none, none, {})
    columns = [{"identity.id": Prepared(torch.arange(n), torch.ones(n, dtype=torch.bool))} for n in (users, items)]
    before = resident()
    model = TwoTower(UserTower({"identity.id": ids(users)}, DIM), ItemTower({"identity.id": ids(items)}, DIM))
    begins: list[tuple[float, float]] = []
    take = loop.Step.take

    def timed(*arguments: Any) -> torch.Tensor:
        begins.append(now())
        return take(*arguments)

    steps_only = FitOptions(progress=False, processes=together)
    data = TrainingData(columns[0], columns[1], samples, users, items)
    with mock.patch.object(loop, "join_tables", lambda _: None), mock.patch.object(loop.Step, "take", timed):
        loop.train(model, data, config, discover(), steps_only)
    first = steps // 5  # the first steps create the state of the optimizer
    wall, processor = ((end - begin) / (steps - first) for end, begin in zip(now(), begins[first], strict=True))
    found = {"step": wall, "before": before, "peak": resident(), "cpu": processor}
    if not together.alone:
        join_tables(model)
        if together.first:
            save_file(model.state_dict(), Path(folder) / "model.safetensors")
    found["end"] = resident()
    (Path(folder) / f"{name}-{together.size}-{together.rank}.json").write_text(json.dumps(found))


def now() -> tuple[float, float]:
    """Return the time of the clock and that of the processor, in seconds."""
    return time.perf_counter(), time.process_time()


def resident() -> float:
    """Return the highest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run all trainings and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    asked = parser.parse_args()
    print(
        "| loss | processes | GB before the model | highest GB in training | when it is saved | s/step | "
        "processor s/step |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        for name in asked.losses:
            for size in asked.processes:
                run(measure, size, name, asked.users, asked.items, folder)
                parts = [json.loads((Path(folder) / f"{name}-{size}-{rank}.json").read_text()) for rank in range(size)]
                most = {key: max(part[key] for part in parts) for key in parts[0]}
                shown = " | ".join(f"{most[key]:.2f}" for key in ("before", "peak", "end"))
                print(f"| {name} | {size} | {shown} | {most['step']:.3f} | {most['cpu']:.3f} |", flush=True)


if __name__ == "__main__":
    main()

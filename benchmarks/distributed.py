"""Speed of training on ML-1M: one process with two threads against two processes with one thread each.

    python benchmarks/distributed.py [--epochs 2] [--only ids,features,sequence] [--profile]

Both train the same steps. Positive interactions per second of the fastest epoch, validation excluded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from common import DATA, argument_parser

ROOT = Path(__file__).parent.parent
IDS = {"text": None, "image": None, "categorical": None, "continuous": None, "temporal": None}
CASES = {
    "ids": {
        "features": IDS,
        "fusion": {"type": "identity"},
        "loss": {"type": "softmax"},
        "negatives": {"type": "in_batch"},
        "training": {"batch_size": 4096},
    },
    "features": {"loss": {"type": "softmax"}, "negatives": {"type": "in_batch"}, "training": {"batch_size": 4096}},
    "sequence": {
        "features": {**IDS, "history": {"window": 100}},
        "user": {"features": {"identity": None}},
        "fusion": {"type": "sum"},
        "loss": {"type": "full_softmax"},
        "training": {"batch_size": 12_800},
    },
}


def train(name: str, epochs: int, profiled: bool) -> None:
    """Train one case in each of the joined processes; the first prints its speed as JSON."""
    import torch

    from anyrec.core.processes import joined
    from anyrec.data.dataset import Dataset
    from anyrec.recommender import Recommender

    case = CASES[name]
    training = {"epochs": epochs, "evaluate_every": 1000, "patience": None, **case["training"]}
    config = {"defaults": "fixed", "dim": 64, "split": {"protocol": "leave_last_out"}, **case, "training": training}
    with joined() as processes:
        torch.set_num_threads(2 // processes.size)
        speeds: list[float] = []
        profiler = torch.profiler.profile() if profiled and processes.first else None
        with profiler or nullcontext():
            Recommender.from_config(config).fit(
                Dataset.read(DATA / "ml-1m"),
                progress=False,
                report=lambda entry: speeds.append(entry["positives_per_second"]),
            )
        if processes.first:
            if profiler is not None:
                print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25), file=sys.stderr)
            print(json.dumps(max(speeds)), flush=True)


def measured(name: str, epochs: int, processes: int, profiled: bool) -> float:
    """Run `train` in new processes, and return the speed."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    options = ["--only", name, "--epochs", str(epochs), "--train", *(["--profile"] if profiled else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(2 // processes)}
    command = [sys.executable, *launcher, __file__, *options]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--profile", action="store_true", help="print where the time of the first process goes")
    parser.add_argument("--train", action="store_true", help="train here; used by the benchmark itself")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if arguments.train:
        train(names[0], arguments.epochs, arguments.profile)
        return
    for name in names:
        one, two = (measured(name, arguments.epochs, size, arguments.profile) for size in (1, 2))
        print(f"{name:<10} 1 process {one:>10,.0f}/s   2 processes {two:>10,.0f}/s   {two / one:.2f}x", flush=True)


if __name__ == "__main__":
    main()

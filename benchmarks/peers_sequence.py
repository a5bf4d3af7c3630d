"""RecTools' SASRec: seconds of a training epoch, alone or in turns with anyrec, so that the ratio is of one run.

    python benchmarks/peers_sequence.py --data ml-100k|ml-1m [--rounds 2] [--fraction 0.25]
        [--with ANYREC_PYTHON] [--ours "benchmarks/sequence.py --data {data} --epochs 2 ..."]

Runs in its own environment without anyrec: `pip install 'rectools[torch]' torch==2.13.0 'pyarrow<22'` (numpy below 2).
Window 100, 64 factors, two blocks, two heads, softmax over all items, batches of 128, P1's training part, float32. The
first epoch warms up and is not counted; an epoch is timed from its first batch to its last. anyrec uses layers of the
same shape: pre-norm, perceptrons as wide as the vectors. `--with` names the interpreter that runs `--ours` from the
repository's folder, once per round; the last of its lines `epoch N seconds S [cpu C]` counts. On a busy machine compare
processor seconds, with one thread. Both processes inherit the environment, so OMP_NUM_THREADS applies to both.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import statistics
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")
ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))
OURS = "benchmarks/sequence.py --data {data} --epochs 2 --variant pre_norm --hidden 1"
LINE = re.compile(r"^epoch \d+ seconds ([\d.]+)(?: cpu ([\d.]+))?", re.MULTILINE)


class Stopwatch(Callback):
    """Records the seconds and processor seconds of each epoch, scaled up to all of its batches."""

    seconds: list[tuple[float, float]] = []  # of the class, because the trainer is copied with its callbacks

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Record the epoch's time."""
        share = trainer.num_training_batches / len(trainer.train_dataloader)
        spent = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        Stopwatch.seconds.append((spent[0] / share, spent[1] / share))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fraction", type=float, default=1.0, help="of an epoch's batches; its time is scaled up")
    parser.add_argument("--with", dest="python", help="interpreter that has anyrec")
    parser.add_argument("--ours", default=OURS)
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    dataset = Dataset.construct(training_part(DATA / arguments.data))
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=100,
        loss="softmax",
        batch_size=128,
        get_trainer_func=trainer,
        get_trainer_func_kwargs={"fraction": arguments.fraction},
    )
    model.fit_partial(dataset, 1, 1)
    theirs, ours = [], []
    for turn in range(1, arguments.rounds + 1):
        model.fit_partial(dataset, 1, 1)
        theirs.append(Stopwatch.seconds[-1])
        print(f"round {turn} rectools {described(theirs[-1])}", flush=True)
        if arguments.python:
            command = [arguments.python, *shlex.split(arguments.ours.format(data=arguments.data))]
            ours.append(last_epoch(command))
            print(f"round {turn} ours     {described(ours[-1])}", flush=True)
    sizes = f"{torch.get_num_threads()} threads, {arguments.fraction:.0%} of RecTools' batches"
    print(f"{arguments.data}, {sizes}: rectools {described(median(theirs))} per epoch")
    if ours:
        ratios = [mine and other / mine for other, mine in zip(median(theirs), median(ours), strict=True)]
        print(f"ours {described(median(ours))}: {ratios[0]:.2f} times as fast, {ratios[1]:.2f} by processor time")


def trainer(fraction: float) -> Trainer:
    """Return a trainer of one epoch. fraction: of the epoch's batches."""
    return Trainer(
        max_epochs=1,
        limit_train_batches=fraction,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Stopwatch()],
    )


def training_part(folder: Path) -> pd.DataFrame:
    """Return the interactions without each user's last two, as RecTools reads them."""
    table = pd.read_parquet(folder / "interactions.parquet")
    moment = "timestamp" if "timestamp" in table else "position"
    table = table.sort_values(["user_id", moment], kind="stable")
    table = table[table.groupby("user_id").cumcount(ascending=False) >= 2]
    order = table.groupby("user_id").cumcount()  # interactions at the same time keep their order
    return pd.DataFrame(
        {
            "user_id": table["user_id"],
            "item_id": table["item_id"],
            "weight": 1.0,
            "datetime": pd.Timestamp("2001-09-01") + pd.to_timedelta(order, unit="min"),
        }
    )


def last_epoch(command: list[str]) -> tuple[float, ...]:
    """Return the seconds and processor seconds (0 if not printed) of the last epoch that the command prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = LINE.findall(done.stdout)
    if done.returncode or not found:
        raise SystemExit(f"{shlex.join(command)} gave no line 'epoch N seconds S':\n{done.stdout}{done.stderr}")
    return tuple(float(number or 0) for number in found[-1])


def median(pairs: list[tuple[float, ...]]) -> list[float]:
    """Return the median of each position."""
    return [statistics.median(numbers) for numbers in zip(*pairs, strict=True)]


def described(seconds: Sequence[float]) -> str:
    """Return seconds and processor seconds as text."""
    return f"{seconds[0]:.2f} s (cpu {seconds[1]:.2f} s)"


if __name__ == "__main__":
    main()

"""The published protocol P1 on MovieLens: leave-last-out, all items that occur are ranked, a tie counts half a place.

    python benchmarks/p1.py --data ml-100k --seed 0 [--config configs/ml-100k-sequence.json] [--final]
        [--out lists.parquet] [--set key=value] [--protocol cold-items|cold-users]

Prints one line for each epoch and one at the end: validation and test ndcg@10 and recall@10, epochs and seconds. The
test metrics of sequence models are measured with `--final`: one training for all the config's epochs on the training
and the validation part together, with options that were chosen on validation before.

`--out` writes the best 20 items of each test user: user_id, item_id, rank. The cold-start protocols
(benchmarks/cold.py) train with `configs/ml-1m-cold-items.json` or the sequence config, and measure the test fold alone.
The seed determines what they hold out, so `lists.targets.parquet` (user_id, item_id) and `lists.candidates.parquet`
(item_id) are written next to the lists.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cold import fit_anyrec
from cold_protocols import PROTOCOLS, ColdCase, best_items, mean_metrics, score
from common import (
    CONFIGS,
    DATA,
    LENGTH,
    argument_parser,
    configured_split,
    lists_table,
    metrics_line,
    print_epoch,
    read_config,
    test_lists,
    with_split,
)

from anyrec.core.config import Config
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.split import Split
from anyrec.recommender import Recommender


def main() -> None:
    parser = argument_parser(__doc__, required=True)
    parser.add_argument("--protocol", choices=["leave-last-out", *PROTOCOLS], default="leave-last-out")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    if arguments.protocol == "leave-last-out":
        leave_last_out(arguments)
    else:
        cold_start(arguments)


def leave_last_out(arguments: argparse.Namespace) -> None:
    """Train and measure under P1."""
    source = arguments.config or CONFIGS / f"{arguments.data}-p1.json"
    config, _ = load_config(read_config(source), [*arguments.overrides, f"seed={arguments.seed}"])
    started = time.perf_counter()
    dataset = Dataset.read(DATA / arguments.data, config.data)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.final:
            config = with_validation_in_training(config, dataset, Path(folder))
        recommender = Recommender.from_config(config).fit(dataset, progress=False, report=print_epoch)
    seconds = time.perf_counter() - started
    epochs = f"best epoch {recommender.result.best_epoch} of {len(recommender.result.history)}"
    figures = metrics_line(recommender, "; ")
    print(f"{arguments.data} seed {arguments.seed}: {figures}; {epochs}; {seconds:.0f} s", flush=True)
    if arguments.out:
        pq.write_table(test_lists(recommender), arguments.out)


def cold_start(arguments: argparse.Namespace) -> None:
    """Train and measure under a cold-start protocol, on its test fold."""
    name = "ml-1m-cold-items" if arguments.protocol == "cold-items" else f"{arguments.data}-sequence"
    started, source = time.perf_counter(), arguments.config or CONFIGS / f"{name}.json"
    dataset = Dataset.read(DATA / arguments.data)
    case = PROTOCOLS[arguments.protocol](dataset, arguments.seed, "test")
    scorer = fit_anyrec(dataset, case, arguments.seed, source, arguments.overrides)
    figures = " ".join(f"{name} {value:.4f}" for name, value in mean_metrics(score(case, scorer)).items())
    seconds = time.perf_counter() - started
    print(f"{arguments.data} {arguments.protocol} seed {arguments.seed}: test {figures}; {seconds:.0f} s", flush=True)
    if arguments.out:
        write_case(arguments.out, dataset, case, best_items(case, scorer, LENGTH))


def write_case(path: Path, dataset: Dataset, case: ColdCase, lists: np.ndarray) -> None:
    """Write the lists (cases, length) of item rows, and the targets and candidates next to them."""
    users, items = dataset.ids("user").take(pa.array(case.users)), dataset.ids("item")
    pq.write_table(lists_table(users, items, lists), path)
    targets = pa.table({"user_id": users, "item_id": items.take(pa.array(case.targets))})
    pq.write_table(targets, path.with_suffix(".targets.parquet"))
    candidates = pa.table({"item_id": items.take(pa.array(case.candidates))})
    pq.write_table(candidates, path.with_suffix(".candidates.parquet"))


def with_validation_in_training(config: Config, dataset: Dataset, folder: Path) -> Config:
    """Return the config with a split whose training part also contains the validation part."""
    dataset = dataset.sorted()
    split = configured_split(config, dataset)
    both = np.union1d(split.train, split.validation)
    return with_split(config, Split(both, np.empty(0, np.int64), split.test, split.protocol), dataset, folder)


if __name__ == "__main__":
    main()

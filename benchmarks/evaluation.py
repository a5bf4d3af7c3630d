"""The cost of evaluation: metrics compared with RecTools, and ranking a large catalogue in bounded memory.

    python benchmarks/evaluation.py [--model ease] [--peers /path/to/other/python]
    python benchmarks/evaluation.py --simulate [--users 20000]

The first command ranks ML-1M under P1 (see p1.py) by a classical model, and measures the seconds that all ranking and
list metrics at 5, 10 and 20 take once the lists are there. With `--peers`, a Python that has RecTools (see peers.py),
it also measures `calc_metrics` for the metrics that both have, and compares the figures.
The second command draws random vectors for 100,000 items and 1,000,000 users with one held-out item and 20 others each,
ranks the held-out items of some users, and prints users per second and the peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from baselines import OPTIONS, PROTOCOL
from common import DATA, ROOT, argument_parser

from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.list_metrics import CatalogueStatistics, list_metrics
from anyrec.evaluation.measure import catalogue_statistics
from anyrec.evaluation.ranking import Ranking, metrics_by_user, rank_targets
from anyrec.recommender import Recommender

KS = [5, 10, 20]
NUM_ITEMS, NUM_USERS, DIM, ITEMS_PER_USER = 100_000, 1_000_000, 32, 20
GIB = 1 << 30


class PeerResult(TypedDict):
    """What peers.py --time prints: seconds by set of metrics, and the mean of each metric."""

    seconds: dict[str, float]
    metrics: dict[str, float]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", choices=list(OPTIONS), default="ease")
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--users", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(arguments.users)
    else:
        compare(arguments.model, arguments.peers)


def compare(name: str, python: str | None) -> None:
    """Print the seconds of all metrics, and those of RecTools if another interpreter has it."""
    config = {"model": {"type": name, **OPTIONS[name][1]}, **PROTOCOL}
    recommender = Recommender.from_config(config)
    recommender.fit(Dataset.read(DATA / "ml-1m"), progress=False)
    started = time.perf_counter()
    ranking = rank_held_out(recommender.model, "test", length=max(KS))
    print(f"{name}: {len(ranking.users)} users ranked in {time.perf_counter() - started:.2f} s", flush=True)
    catalogue = catalogue_statistics(recommender.model)
    whole, found = timed(ranking, catalogue)
    print(
        f"anyrec, all: {whole:.3f} s for {len(found)} figures; bar 3 s: {'met' if whole <= 3 else 'MISSED'}", flush=True
    )
    if not python:
        return
    # RecTools spends most of its time on diversity, so it is compared without it as well.
    # Calibration and Gini are ours only.
    mine = {"all": whole, "without diversity": timed(ranking, replace(catalogue, traits=None))[0]}
    peer = by_rectools(python, ranking, catalogue)
    for label, seconds in peer["seconds"].items():
        ratio = seconds / mine[label]
        print(f"RecTools, {label}: {seconds:.2f} s, anyrec {mine[label]:.3f} s, {ratio:.0f}x", end="")
        print(f"; bar 5x: {'met' if ratio >= 5 else 'MISSED'}")
    different = [metric for metric, other in peer["metrics"].items() if abs(np.nanmean(found[metric]) - other) > 1e-9]
    print(f"{len(peer['metrics']) - len(different)} of {len(peer['metrics'])} means equal RecTools's to 1e-9")
    for metric in different:
        print(f"  {metric}: {np.nanmean(found[metric]):.8f}, RecTools {peer['metrics'][metric]:.8f}")


def timed(ranking: Ranking, catalogue: CatalogueStatistics) -> tuple[float, dict[str, np.ndarray]]:
    """Return the seconds of all metrics, and the metrics."""
    started = time.perf_counter()
    found = metrics_by_user(ranking, KS) | list_metrics(ranking, catalogue, KS)
    return time.perf_counter() - started, found


def by_rectools(python: str, ranking: Ranking, catalogue: CatalogueStatistics) -> PeerResult:
    """Measure the same lists by RecTools in another interpreter."""
    users, places = np.nonzero(ranking.lists >= 0)
    past, items = catalogue.history.take(np.arange(len(catalogue.history.offsets) - 1))
    tables = {
        "reco": {"user_id": ranking.users[users], "item_id": ranking.lists[users, places], "rank": places + 1},
        "held_out": {"user_id": ranking.targets, "item_id": ranking.items},
        "history": {"user_id": past, "item_id": items},
        "categories": {str(column): values for column, values in enumerate(catalogue.traits.toarray().T)},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, columns in tables.items():
            pq.write_table(pa.table(columns), Path(folder) / f"{name}.parquet")
        settings = {"ks": KS, "catalog": np.flatnonzero(catalogue.rankable).tolist()}
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        command = [python, ROOT / "benchmarks" / "peers.py", "--time", folder]
        # without PYTHONPATH, which would add a numpy that the interpreter cannot use
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def simulate(count: int) -> None:
    """Rank the held-out items of `count` of the users."""
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(rng.standard_normal((n, DIM), np.float32)) for n in (NUM_USERS, NUM_ITEMS))
    chosen = np.sort(rng.choice(NUM_USERS, count, replace=False))
    targets = Pairs.of(chosen, rng.integers(0, NUM_ITEMS, count), NUM_USERS)
    exclude = Pairs(rng.integers(0, NUM_ITEMS, NUM_USERS * ITEMS_PER_USER), np.arange(NUM_USERS + 1) * ITEMS_PER_USER)
    before = peak()
    started = time.perf_counter()
    ranking = rank_targets(lambda rows: users[rows] @ items.T, targets, exclude, length=max(KS))
    seconds = time.perf_counter() - started
    metrics_by_user(ranking, KS)
    print(f"{count:,} of {NUM_USERS:,} users, {NUM_ITEMS:,} items, {torch.get_num_threads()} threads")
    print(f"{count / seconds:.0f} users/s: {NUM_USERS / count * seconds / 60:.0f} min for all of them")
    print(f"peak {peak():.2f} GiB, {before:.2f} before ranking; bar 4 GiB: {'met' if peak() <= 4 else 'MISSED'}")


def peak() -> float:
    """Return the peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    main()

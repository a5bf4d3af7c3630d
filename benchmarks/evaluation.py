"""What evaluation costs: reckoning the metrics beside RecTools, and ranking a large catalogue in bounded memory.

    python benchmarks/evaluation.py [--model ease] [--peers /path/to/other/python]
    python benchmarks/evaluation.py --simulate [--users 20000]

The first: ML-1M under P1 (see p1.py), the test users' 20 best by a classical model; then the seconds of every metric of a user and
of a list at 5, 10 and 20, scoring and ranking done. With --peers, a Python that has RecTools (see peers.py), its seconds of
`calc_metrics` for the metrics that both have, and how far the figures lie apart.
The second: 100,000 items and 1,000,000 users made of random vectors, one held-out item and 20 others each; ranks the
held-out items of some of the users, and prints users a second and the memory at its peak.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from baselines import PROTOCOL, SETTINGS

from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.list_metrics import list_metrics
from anyrec.evaluation.measure import catalogue_statistics
from anyrec.evaluation.ranking import metrics_by_user, rank_targets
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))
KS = [5, 10, 20]
NUM_ITEMS, NUM_USERS, DIM, EACH = 100_000, 1_000_000, 32, 20
GIB = 1 << 30


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SETTINGS), default="ease")
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--users", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(arguments.users)
    else:
        compare(arguments.model, arguments.peers)


def compare(name, python):
    config = {"model": {"type": name, **SETTINGS[name][1]}, **PROTOCOL}
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
    # RecTools spends most of its time on diversity, so that it is compared without too; ours has calibration and Gini besides.
    mine = {"all": whole, "without diversity": timed(ranking, replace(catalogue, traits=None))[0]}
    peer = by_rectools(python, ranking, catalogue)
    for label, seconds in peer["seconds"].items():
        ratio = seconds / mine[label]
        print(f"RecTools, {label}: {seconds:.2f} s, anyrec {mine[label]:.3f} s, {ratio:.0f}x", end="")
        print(f"; bar 5x: {'met' if ratio >= 5 else 'MISSED'}")
    apart = [metric for metric, other in peer["metrics"].items() if abs(np.nanmean(found[metric]) - other) > 1e-9]
    print(f"{len(peer['metrics']) - len(apart)} of {len(peer['metrics'])} means equal RecTools's to 1e-9")
    for metric in apart:
        print(f"  {metric}: {np.nanmean(found[metric]):.8f}, RecTools {peer['metrics'][metric]:.8f}")


def timed(ranking, catalogue):
    started = time.perf_counter()
    found = metrics_by_user(ranking, KS) | list_metrics(ranking, catalogue, KS)
    return time.perf_counter() - started, found


def by_rectools(python, ranking, catalogue):
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
        # Its own packages alone: a PYTHONPATH of ours would bring it a numpy that it cannot use.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def simulate(count):
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(rng.standard_normal((n, DIM), np.float32)) for n in (NUM_USERS, NUM_ITEMS))
    chosen = np.sort(rng.choice(NUM_USERS, count, replace=False))
    targets = Pairs.of(chosen, rng.integers(0, NUM_ITEMS, count), NUM_USERS)
    exclude = Pairs(rng.integers(0, NUM_ITEMS, NUM_USERS * EACH), np.arange(NUM_USERS + 1) * EACH)
    before = peak()
    started = time.perf_counter()
    ranking = rank_targets(lambda rows: users[rows] @ items.T, targets, exclude, length=max(KS))
    seconds = time.perf_counter() - started
    metrics_by_user(ranking, KS)
    print(f"{count:,} of {NUM_USERS:,} users, {NUM_ITEMS:,} items, {torch.get_num_threads()} threads")
    print(f"{count / seconds:.0f} users/s: {NUM_USERS / count * seconds / 60:.0f} min for all of them")
    print(f"peak {peak():.2f} GiB, {before:.2f} before ranking; bar 4 GiB: {'met' if peak() <= 4 else 'MISSED'}")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    main()

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
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from baselines import PROTOCOL, SETTINGS

from anyrec.data.dataset import Dataset
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.lists import list_metrics
from anyrec.evaluation.measure import catalogue_of
from anyrec.evaluation.ranking import Pairs, metrics_by_user, rank_targets
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
    ranking = rank_held_out(recommender, "test", length=max(KS))
    print(f"{name}: {len(ranking.users)} users ranked in {time.perf_counter() - started:.2f} s", flush=True)
    catalogue = catalogue_of(recommender, "test")
    started = time.perf_counter()
    found = metrics_by_user(ranking, KS) | list_metrics(ranking, catalogue, KS)
    seconds = time.perf_counter() - started
    print(
        f"anyrec    {len(found):3} figures in {seconds:.3f} s; bar 3 s: {'met' if seconds <= 3 else 'MISSED'}",
        flush=True,
    )
    if not python:
        return
    peer = by_rectools(python, ranking, catalogue)
    for label, other in peer["seconds"].items():
        bar = "met" if other >= 5 * seconds else "MISSED"
        print(f"RecTools, {label}: {other:.2f} s, {other / seconds:.0f}x; bar 5x: {bar}")
    gaps = {metric: abs(np.nanmean(found[metric]) - other) for metric, other in peer["metrics"].items()}
    apart = {metric: gap for metric, gap in gaps.items() if gap > 1e-9}
    print(f"{len(gaps) - len(apart)} of {len(gaps)} means equal RecTools's to 1e-9")
    for metric, gap in apart.items():
        print(f"  {metric}: {np.nanmean(found[metric]):.6f}, RecTools {peer['metrics'][metric]:.6f}")


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
    users, items = (torch.from_numpy(rng.normal(size=(n, DIM)).astype(np.float32)) for n in (NUM_USERS, NUM_ITEMS))
    chosen = np.sort(rng.choice(NUM_USERS, count, replace=False))
    targets = Pairs.of(chosen, rng.integers(0, NUM_ITEMS, count), NUM_USERS)
    drawn = rng.integers(0, NUM_ITEMS, NUM_USERS * EACH)
    exclude = Pairs.of(np.repeat(np.arange(NUM_USERS), EACH), drawn, NUM_USERS)
    del drawn
    before = peak()
    started = time.perf_counter()
    ranking = rank_targets(lambda rows: users[rows] @ items.T, targets, exclude, length=max(KS))
    seconds = time.perf_counter() - started
    metrics_by_user(ranking, KS)
    print(f"{count} of {NUM_USERS} users, {NUM_ITEMS} items, {torch.get_num_threads()} threads")
    print(f"{count / seconds:.0f} users/s ({NUM_USERS / count * seconds / 60:.0f} min for all)")
    print(f"peak {peak():.2f} GiB, {before:.2f} of them for the data; bar 4 GiB: {'met' if peak() <= 4 else 'MISSED'}")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    main()

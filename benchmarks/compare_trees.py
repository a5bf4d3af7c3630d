"""Times two checkouts against each other: an epoch on ML-1M, one user's list, and exact search.

    python benchmarks/compare_trees.py OTHER_CHECKOUT [--rounds 3]

Runs alternate, each in a process of its own, and the ratio of the medians is printed. Both checkouts run in this
environment; ANYREC_DATA names the folder of real data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data")).resolve() / "ml-1m"
USERS, VECTORS, DIM, QUERIES, K = 1000, 200_000, 64, 256, 10


def milliseconds(program: Callable[[], object], repeats: int) -> float:
    """Return the median time of a program."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        program()
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


def measure(tree: Path) -> dict[str, float]:
    """Time the checkout `tree`, which is first on the import path: milliseconds by name."""
    import numpy as np

    import anyrec
    from anyrec import Dataset, Recommender

    assert Path(anyrec.__file__).is_relative_to(tree), anyrec.__file__
    config = json.loads((tree / "configs/ml-1m-p1.json").read_text())
    config["training"] = {**config.get("training", {}), "epochs": 1, "patience": None, "refit": False}
    epochs: list[float] = []
    recommender = Recommender.from_config(config).fit(
        Dataset.read(DATA), progress=False, report=lambda entry: epochs.append(1000 * entry["seconds"])
    )
    users = iter(recommender.dataset.ids("user").to_pylist()[: USERS + 1])
    recommender.recommend([next(users)], K)
    rng = np.random.default_rng(0)
    index = recommender.registry.get("index", "exact")(DIM, "dot")
    index.build(rng.normal(size=(VECTORS, DIM)).astype(np.float32))
    queries = rng.normal(size=(QUERIES, DIM)).astype(np.float32)
    index.search(queries, K)
    return {
        "epoch, ML-1M, ids": epochs[0],
        "list of one user": milliseconds(lambda: recommender.recommend([next(users)], K), USERS),
        "exact search, 256 queries": milliseconds(lambda: index.search(queries, K), 9),
        "exact search, one query": milliseconds(lambda: index.search(queries[:1], K), 51),
    }


def main() -> None:
    """Alternate the two checkouts and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.other.resolve())))
        return
    found: dict[Path, list[dict[str, float]]] = {options.other.resolve(): [], ROOT: []}
    for _ in range(options.rounds):
        for tree, rounds in found.items():
            command = [sys.executable, __file__, str(tree), "--measure"]
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True
            )
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
    others, ours = found.values()
    for name in ours[0]:
        before, after = (statistics.median(one[name] for one in rounds) for rounds in (others, ours))
        print(f"{name:28} {before:10.3f} ms {after:10.3f} ms   ratio {after / before:.3f}")


if __name__ == "__main__":
    main()

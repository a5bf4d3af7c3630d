"""Processor time of one user's list, for three models of MovieLens-100K: one thread, one user per request.

    python benchmarks/request.py [--folder /tmp/models] [--users 200] [--rounds 5]

- plain: the model alone scores all 1,682 items;
- faiss: 200 candidates of an HNSW index, in a pipeline of one source;
- staged: 300 candidates of four sources, a DCN ranker that keeps 50, five rules.

Trains the models for one epoch (their quality does not affect the time), or loads them from `--folder`, where they are
also saved. Prints the milliseconds of processor time of one call of `recommend`, as the minimum of several rounds over
the same users, and of a loaded model's first call, which also computes the values that are cached between requests.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from common import DATA, argument_parser

from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender

NOW = 1_715_000_000_000_000
GENRES = "item.categorical.genres"
COMMON = ["Drama", "Comedy", "Action", "Thriller", "Romance", "Horror", "Children's", "War", "Sci-Fi", "Crime"]
BASE = {
    "dim": 64,
    "training": {"epochs": 1, "batch_size": 1024},
    "features": {"history": {"window": 50, "layers": 1}},
    "evaluation": {"report": False, "baselines": []},
    "split": {"protocol": "none"},
}
INDEX = {"type": "faiss", "kind": "hnsw"}
SOURCES = [{"type": name} for name in ("model", "item_to_item", "history", "popularity")]
RULES = [
    {"type": "where", "where": {GENRES: {"overlaps": COMMON}}},
    {"type": "history", "at_least": 1},
    {"type": "boost", "where": {GENRES: {"overlaps": ["Drama"]}}, "factor": 1.5},
    {"type": "diversity", "method": "mmr"},
    {"type": "calibrate", "feature": GENRES},
]
RANK = {"type": "dcn", "k": 50, "training": {"epochs": 1, "users": 300, "candidates": 50}}
STAGES = {"retrieve": {"k": 300, "sources": SOURCES}, "rank": RANK, "rerank": {"rules": RULES}}
CONFIGS = {
    "plain": BASE,
    "faiss": {**BASE, "index": INDEX, "pipeline": {"retrieve": {"k": 200}}},
    "staged": {**BASE, "index": INDEX, "pipeline": STAGES},
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        train(folder)
        for name in CONFIGS:
            measure(name, folder / name, options.users, options.rounds)


def train(folder: Path) -> None:
    """Train and save the models that are not in `folder`."""
    missing = [name for name in CONFIGS if not (folder / name).exists()]
    dataset = Dataset.read(DATA / "ml-100k") if missing else None
    for name in missing:
        Recommender.from_config(load_config(CONFIGS[name])[0]).fit(dataset, progress=False).save(folder / name)


def measure(name: str, folder: Path, users: int, rounds: int) -> None:
    """Print the processor time of a request to one model."""
    model = Recommender.load(folder)
    if model.pipeline is not None and model.pipeline.ranker is not None:
        with torch.no_grad():  # a ranker whose gate is 0 is skipped and costs nothing
            model.pipeline.ranker.gate.fill_(1.0)
    ids = model.dataset.ids("user").to_pylist()[:users]
    first = milliseconds(model, ids[:1])
    found = [milliseconds(model, ids) for _ in range(rounds)]
    print(f"{name:8} {min(found):6.2f} ms of processor time per request; the first {first:.0f} ms")


def milliseconds(model: Recommender, ids: list[int | str]) -> float:
    """Return the mean processor time of one request for each of `ids`, in milliseconds."""
    started = time.process_time()
    for user in ids:
        model.recommend([user], 10, now=NOW)
    return 1000 * (time.process_time() - started) / len(ids)


if __name__ == "__main__":
    main()

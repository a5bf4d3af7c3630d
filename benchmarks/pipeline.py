"""The whole pipeline on MovieLens under protocol P1 (benchmarks/p1.py): the gain of its ranker, and its speed.

    python benchmarks/pipeline.py --data ml-1m --seed 0 [--config configs/ml-1m-pipeline.json] [--model folder]
        [--set key=value]

Trains the retriever of the config on the training part, or loads it from `--model`, where it is also saved. Trains the
ranker on the validation part, and prints:

- validation: ndcg@10 among the candidates, with the ranker and in the model's own order, on users that are withheld
  from the ranker's training. Options are chosen by it;
- test: ndcg@10 and recall@10 of retrieval alone and of the pipeline with the same retriever, ties count half a place,
  with the 95% interval of the difference over users;
- speed: users per second and each stage's fraction of the time, for the top 20 of all users from 1,000 candidates, 100
  of which are reranked for diversity; and for the top 100 without rules.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import CONFIGS, DATA, argument_parser, print_epoch

from anyrec.core.config import Config
from anyrec.core.load_config import load_config
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import metrics_by_user
from anyrec.pipeline.fit import rank_through
from anyrec.pipeline.pipeline import Pipeline
from anyrec.recommender import Recommender
from anyrec.serving.batch import write_lists
from anyrec.storage.model_directory import MANIFEST

RULE = {"type": "diversity", "method": "mmr", "relevance": 0.8}


def main() -> None:
    parser = argument_parser(__doc__, data="ml-1m")
    parser.add_argument("--config", type=Path, default=CONFIGS / "ml-1m-pipeline.json")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    config, _ = load_config(arguments.config, [*arguments.overrides, f"seed={arguments.seed}"])
    recommender = fitted_retriever(config, arguments)
    started = time.perf_counter()
    staged = recommender.with_pipeline(config.pipeline, progress=False)
    print(f"validation: {staged.notes[-1]} {time.perf_counter() - started:.0f} s to train", flush=True)
    compare(recommender, staged)
    for k, rules in ((20, [RULE]), (100, [])):
        ranked = with_rules(staged, rules)
        for _ in range(2):  # the first call also computes cached values
            spent = speed(ranked, k)
        print(f"top {k}, rules {[rule['type'] for rule in rules]}: {spent}", flush=True)


def fitted_retriever(config: Config, arguments: argparse.Namespace) -> Recommender:
    """Return the model without its pipeline, trained or loaded, with its data."""
    dataset = Dataset.read(DATA / arguments.data, config.data)
    if arguments.model and (arguments.model / MANIFEST).is_file():
        return Recommender.load(arguments.model).with_data(dataset)
    alone = config.model_copy(update={"pipeline": None})
    started = time.perf_counter()
    recommender = Recommender.from_config(alone).fit(dataset, progress=False, report=print_epoch)
    print(f"retriever: {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.model:
        recommender.save(arguments.model)
    return recommender


def compare(recommender: Recommender, staged: Recommender) -> None:
    """Print test metrics of the model alone and of the pipeline."""
    own, through = rank_held_out(recommender.model, "test"), rank_through(staged.model, staged.stages(), "test", 100)
    assert (own.users == through.users).all()
    before, after = (metrics_by_user(ranking, [10]) for ranking in (own, through))
    for name in ("ndcg@10", "recall@10"):
        gain = after[name] - before[name]
        error = 1.96 * gain.std() / np.sqrt(len(gain))
        print(
            f"test {name}: retrieval {before[name].mean():.4f}, pipeline {after[name].mean():.4f}, "
            f"difference {gain.mean():+.4f} (95% {gain.mean() - error:+.4f} to {gain.mean() + error:+.4f}), "
            f"{len(gain):,} users",
            flush=True,
        )


def with_rules(staged: Recommender, rules: list[JsonObject]) -> Recommender:
    """Set the pipeline's rules; the fitted sources and the ranker stay."""
    rerank = staged.config.pipeline.rerank.model_validate({"k": 100, "rules": rules})
    made = Pipeline(staged.config.pipeline.model_copy(update={"rerank": rerank}), staged.registry)
    made.check(staged.model)
    made.sources, made.ranker = staged.pipeline.sources, staged.pipeline.ranker
    staged.pipeline = made
    return staged


def speed(recommender: Recommender, k: int) -> str:
    """Return users per second of the top k of all users, and each stage's fraction of the time."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = write_lists(recommender, Path(folder) / "lists.parquet", k, progress=False)
        seconds = time.perf_counter() - started
    total = done["latency_ms"].pop("total")
    shares = ", ".join(f"{stage} {value / total:.0%}" for stage, value in done["latency_ms"].items())
    return f"{done['users'] / seconds:,.0f} users per second ({seconds:.1f} s; {shares})"


if __name__ == "__main__":
    main()

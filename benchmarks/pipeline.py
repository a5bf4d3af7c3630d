"""The whole pipeline on MovieLens by the protocol P1 (benchmarks/p1.py): what its ranker adds, and how fast it is.

    python benchmarks/pipeline.py --data ml-1m --seed 0 [--config configs/ml-1m-pipeline.json] [--model folder] [--set key=value]

Trains the retriever of the config on the training part (or takes it from --model, where it is kept), teaches the ranker on the validation
part, and prints:

- validation: ndcg@10 among the candidates on users kept from the ranker, with it and in the model's own order: what settings are chosen by;
- test: ndcg@10 and recall@10 of retrieval alone and of the pipeline, same retriever, ties counting half, with the 95% interval of the
  difference over users;
- speed: the top 20 of every user from 1,000 candidates, of which 100 are passed on and reranked for diversity: users a second, and each
  stage's share; and the top 100, without rules.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import metrics_by_user
from anyrec.pipeline.fit import rank_through
from anyrec.recommender import Recommender
from anyrec.serving.batch import write_lists
from anyrec.storage.model_directory import MANIFEST

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))
RULE = {"type": "diversity", "method": "mmr", "relevance": 0.8}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], default="ml-1m")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "ml-1m-pipeline.json")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    config, _ = load_config(arguments.config, [*arguments.overrides, f"seed={arguments.seed}"])
    recommender = retriever(config, arguments)
    started = time.perf_counter()
    staged = recommender.with_pipeline(config.pipeline, progress=False)
    print(f"validation: {staged.notes[-1]} {time.perf_counter() - started:.0f} s to teach", flush=True)
    compare(recommender, staged)
    for k, rules in ((20, [RULE]), (100, [])):
        ranked = with_rules(staged, rules)
        for _ in range(2):  # the first call also looks up what is kept
            spent = speed(ranked, k)
        print(f"top {k}, rules {[rule['type'] for rule in rules]}: {spent}", flush=True)


def retriever(config, arguments):
    """The model alone, trained or read, beside its data."""
    dataset = Dataset.read(DATA / arguments.data, config.data)
    if arguments.model and (arguments.model / MANIFEST).is_file():
        return Recommender.load(arguments.model).with_data(dataset)
    alone = config.model_copy(update={"pipeline": None})
    started = time.perf_counter()
    recommender = Recommender.from_config(alone).fit(dataset, progress=False, report=report)
    print(f"retriever: {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.model:
        recommender.save(arguments.model)
    return recommender


def report(entry):
    figures = {name: value for name, value in entry.get("validation", {}).items() if name == "ndcg@10"}
    told = "".join(f" validation {name} {value:.4f}" for name, value in figures.items())
    print(f"epoch {entry['epoch']} loss {entry['loss']:.4f} seconds {entry['seconds']:.1f}{told}", flush=True)


def compare(recommender, staged):
    own, through = rank_held_out(recommender.model, "test"), rank_through(staged.model, staged.stages(), "test", 100)
    assert (own.users == through.users).all()
    before, after = (metrics_by_user(ranking, [10]) for ranking in (own, through))
    for name in ("ndcg@10", "recall@10"):
        gain = after[name] - before[name]
        error = 1.96 * gain.std() / np.sqrt(len(gain))
        print(
            f"test {name}: retrieval {before[name].mean():.4f}, pipeline {after[name].mean():.4f}, "
            f"difference {gain.mean():+.4f} (95% {gain.mean() - error:+.4f} to {gain.mean() + error:+.4f}), {len(gain):,} users",
            flush=True,
        )


def with_rules(staged, rules):
    """The same stages, sources and ranker, with other rules."""
    from anyrec.pipeline.pipeline import Pipeline

    rerank = staged.config.pipeline.rerank.model_validate({"k": 100, "rules": rules})
    made = Pipeline(staged.config.pipeline.model_copy(update={"rerank": rerank}), staged.registry)
    made.check(staged)
    made.sources, made.ranker = staged.pipeline.sources, staged.pipeline.ranker
    staged.pipeline = made
    return staged


def speed(recommender, k):
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = write_lists(recommender, Path(folder) / "lists.parquet", k, progress=False)
        seconds = time.perf_counter() - started
    total = done["latency_ms"].pop("total")
    shares = ", ".join(f"{stage} {value / total:.0%}" for stage, value in done["latency_ms"].items())
    return f"{done['users'] / seconds:,.0f} users a second ({seconds:.1f} s; {shares})"


if __name__ == "__main__":
    main()

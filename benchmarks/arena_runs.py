"""One run of the arena: a model on one split of one data set, in a process of its own.

    python benchmarks/arena_runs.py TASK FOLDER

TASK is the JSON of a `Task`. The run writes FOLDER/<key>.json, a record of its figures, and FOLDER/<key>.npz: `users`,
the rows of the measured users, and an array for each metric.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from arena_cold import COLD, run_cold
from arena_protocols import PROTOCOLS, Case, load
from arena_task import DEFAULT, KS, LIGHTGCN, MAIN, METRICS, Clock, Outcome, Task, chosen
from lightgcn import Options, train

from anyrec.core.config import Config
from anyrec.core.contracts import Context
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.learning import LearningData
from anyrec.data.pairs import Pairs
from anyrec.data.split import Part
from anyrec.evaluation.held_out import HeldOut, held_out, rank_held_out, rank_pairs
from anyrec.evaluation.ranking import Ranking, metrics_by_user, ranking_metrics
from anyrec.model.build import choose_device, training_context
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender
from anyrec.training.fit import fit
from anyrec.training.tune import tune

TEMPERATURES, LAYERS = (0.07, 0.1, 0.14, 0.2, 0.28, 0.4), (1, 2, 3, 4)
"""Values of LightGCN's options. They move to a neighbour as long as validation improves."""
Number = TypeVar("Number", int, float)


def run(task: Task) -> Outcome:
    """Train and measure the model of a task."""
    dataset = load(task.data)
    if task.protocol in COLD:
        return run_cold(dataset, task)
    case = PROTOCOLS[task.protocol].make(dataset, task.cut)
    with tempfile.TemporaryDirectory() as folder:
        source = {**case.source(Path(folder)), "seed": task.seed}
        if task.model == DEFAULT:
            return run_default(case, source, task.overrides)
        learning, config, registry, context = prepared(case, source)
        if task.model == LIGHTGCN:
            return run_lightgcn(learning, config, registry, context, task.trials)
        return run_classical(learning, source, registry, context, task)


def run_default(case: Case, source: JsonObject, overrides: tuple[str, ...] = ()) -> Outcome:
    """Fit with nothing set but what the protocol needs (and `overrides`)."""
    config, _ = load_config(source, overrides)
    recommender, clock = Recommender.from_config(config), Clock()
    recommender.fit(case.dataset, progress=False, trained=clock.stop)
    validation = recommender.metrics.get("validation", {}).get(MAIN)
    return outcome(
        rank_held_out(recommender.model, "test"), clock.seconds, validation=validation, options=chosen(recommender)
    )


def prepared(case: Case, source: JsonObject) -> tuple[LearningData, Config, Registry, Context]:
    """Return what a fit needs, for a config that is not fitted to the data."""
    config, _ = load_config(source)
    learning, _ = LearningData.make(case.dataset, config)
    return learning, config, discover(), training_context(config, learning.dataset, choose_device(config), True)


def run_classical(
    learning: LearningData, source: JsonObject, registry: Registry, context: Context, task: Task
) -> Outcome:
    """Tune a classical model on validation, and fit it again on training and validation."""
    config, _ = load_config(source)
    clock = Clock()
    found = tune(learning, config, registry, context, task.model, trials=task.trials)
    clock.stop()
    final, _ = load_config({**source, "model": {"type": task.model, **found.options}, "training": {"refit": True}})
    fitting = Clock()
    model = fit_both_parts(learning, final, registry, context)
    fitting.stop()
    ranking = rank_held_out(model, "test")
    return outcome(ranking, fitting.seconds, clock.seconds, found.value, found.options, len(found.tried))


def fit_both_parts(learning: LearningData, config: Config, registry: Registry, context: Context) -> FittedModel:
    """Fit on training and validation. config: has `training.refit`."""
    model = fit(config, learning, registry, context, split=learning.final_split(config)).model
    return replace(model, before_refit={})


def run_lightgcn(
    learning: LearningData, config: Config, registry: Registry, context: Context, trials: int | None = None
) -> Outcome:
    """Choose LightGCN's options and steps on validation by `trials` runs, and train it on training and validation."""
    carrier_config, _ = load_config({**config.model_dump(mode="json"), "model": {"type": "popularity"}})
    carrier = fit(carrier_config, learning, registry, context).model
    parts: dict[Part, HeldOut] = {"validation": held_out(carrier, "validation"), "test": held_out(carrier, "test")}
    dataset, clock = learning.dataset, Clock()
    num_items = len(dataset.items)

    def pairs(rows: np.ndarray) -> Pairs:
        rows = learning.positives(rows)
        return Pairs.of(dataset.user_rows[rows], dataset.item_rows[rows], len(dataset.users))

    def validate(score: Callable[[np.ndarray], torch.Tensor]) -> float:
        return ranking_metrics(rank_pairs(carrier, parts["validation"], score), KS)[MAIN]

    known = pairs(learning.split.train)
    tried: dict[tuple[float, int], tuple[float, int]] = {}

    def attempt(temperature: float, layers: int) -> float:
        if (temperature, layers) not in tried:
            if trials is not None and len(tried) >= trials:
                return -1.0
            options = Options(layers, temperature)
            score, steps = train(known, num_items, options, config.seed, validate, context.device)
            tried[temperature, layers] = validate(score), steps
        return tried[temperature, layers][0]

    temperature = highest(lambda value: attempt(value, Options.layers), TEMPERATURES, Options.temperature)
    layers = highest(lambda value: attempt(temperature, value), LAYERS, Options.layers)
    clock.stop()
    value, steps = tried[temperature, layers]
    final = Options(layers, temperature, steps=steps)
    fitting = Clock()
    both = pairs(np.union1d(learning.split.train, learning.split.validation))
    score, _ = train(both, num_items, final, config.seed, device=context.device)
    fitting.stop()
    options = {"temperature": temperature, "layers": layers, "steps": steps}
    ranking = rank_pairs(carrier, parts["test"], score)
    return outcome(ranking, fitting.seconds, clock.seconds, value, options, len(tried))


def highest(measure: Callable[[Number], float], values: tuple[Number, ...], start: Number) -> Number:
    """Return the first of `values`, from `start`, that is better than both of its neighbours."""
    place = values.index(start)
    while True:
        around = [near for near in (place - 1, place, place + 1) if 0 <= near < len(values)]
        best = max(around, key=lambda near: measure(values[near]))
        if measure(values[best]) <= measure(values[place]):
            return values[place]
        place = best


def outcome(
    ranking: Ranking,
    seconds: float,
    tuning_seconds: float = 0.0,
    validation: float | None = None,
    options: JsonObject | None = None,
    trials: int = 1,
) -> Outcome:
    """Return the outcome of a ranking of the test targets."""
    found = metrics_by_user(ranking, KS)
    by_user = {name: found[name] for name in METRICS}
    return Outcome(ranking.users, by_user, seconds, tuning_seconds, validation, options or {}, trials)


def main() -> None:
    task, folder = Task.of(json.loads(sys.argv[1])), Path(sys.argv[2])
    found = run(task)
    used = resource.getrusage(resource.RUSAGE_SELF)
    record = {
        **asdict(task),
        "users": len(found.users),
        **{name: float(values.mean()) for name, values in found.by_user.items()},
        "validation": found.validation,
        "options": found.options,
        "trials_done": found.trials,
        "seconds": round(found.seconds, 2),
        "tuning_seconds": round(found.tuning_seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / (1 << 20), 3),
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads",
    }
    values = {name: column.astype(np.float32) for name, column in found.by_user.items()}
    with open(folder / f"{task.key}.npz", "wb") as file:
        np.savez_compressed(file, allow_pickle=False, users=found.users, **values)
    (folder / f"{task.key}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()

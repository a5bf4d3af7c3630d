"""The cold-start protocols of the arena: the cases of benchmarks/cold_protocols.py.

The default config trains on the training rows of the case, with the last interaction of each user as its validation
part, and reads the history of a case from the request. Classical models score from the same histories; their options
are chosen on the cases of the validation fold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from arena_protocols import SEED, timed
from arena_task import DEFAULT, MAIN, METRICS, Clock, Outcome, Task, chosen
from cold import HISTORY, scorer_of, training_data
from cold_protocols import PROTOCOLS as COLD_PROTOCOLS
from cold_protocols import ColdCase, Scorer, history_matrix, score

from anyrec.core.config import SplitConfig
from anyrec.core.contracts import Classical
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.core.registry import Registry
from anyrec.core.types import JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.split import Split, save_split, split_interactions
from anyrec.model.classical import training_matrix
from anyrec.recommender import Recommender
from anyrec.training.tune import TRIALS, climb


@dataclass(frozen=True)
class ColdProtocol:
    """A cold-start protocol.

    Attributes:
        title: One line for the report.
        valid: Whether the protocol is meaningful for a data set.
        classical: The classical models that can score there; None for all that read a history, or nothing of a user.
    """

    title: str
    valid: Callable[[Dataset], bool]
    classical: tuple[str, ...] | None = None


COLD: dict[str, ColdProtocol] = {
    "cold-items": ColdProtocol(
        "a tenth of the items is in no training data and is ranked among itself",
        lambda dataset: timed(dataset) and bool(dataset.features("item")),
        ("popularity", "content_knn"),
    ),
    "cold-users": ColdProtocol("users in no training data, with a history of five items", timed),
}


class Attempt(NamedTuple):
    """The options of one trial, and their metric on the validation fold."""

    options: JsonObject
    value: float


def run_cold(dataset: Dataset, task: Task) -> Outcome:
    """Train and measure the model of a task."""
    case = COLD_PROTOCOLS[task.protocol](dataset, SEED, "test")
    if task.model == DEFAULT:
        return _run_default(dataset, case, task)
    return _run_classical(dataset, case, task)


def _run_default(dataset: Dataset, case: ColdCase, task: Task) -> Outcome:
    clock, known = Clock(), training_data(dataset, case)
    with tempfile.TemporaryDirectory() as folder:
        save_split(last_validates(known), known, Path(folder))
        source = {
            "seed": task.seed,
            "data": {"unknown_ids": "keep", "history": HISTORY},
            "split": {"file": f"{folder}/split.parquet"},
        }
        config, _ = load_config(source, task.overrides)
        recommender = Recommender.from_config(config)
        recommender.fit(known, progress=False, trained=clock.stop)
        values = measured(case, scorer_of(recommender.model, dataset, case))
    return Outcome(case.users, values, clock.seconds, options=chosen(recommender))


def last_validates(dataset: Dataset) -> Split:
    """Return a split in which the last interaction of each user validates, and nothing tests."""
    split, _ = split_interactions(dataset, SplitConfig(protocol="leave_last_out"), SEED)
    train = np.union1d(split.train, split.validation)
    return Split(train, split.test, np.empty(0, np.int64), split.protocol)


def _run_classical(dataset: Dataset, case: ColdCase, task: Task) -> Outcome:
    registry, clock = discover(), Clock()
    validation = COLD_PROTOCOLS[task.protocol](dataset, SEED, "validation")
    cls = registry.get("classical", task.model)
    tried = 0

    def attempt(options: JsonObject) -> Attempt:
        nonlocal tried
        tried += 1
        scorer = classical_scorer(dataset, validation, registry, task, options)
        return Attempt(options, float(measured(validation, scorer)[MAIN].mean()))

    training = training_matrix(dataset, validation.train, task.seed)
    start = {option: getattr(cls.Params(), option) for option in cls.search}
    start |= {key: value for key, value in cls().automatic(training).items() if start.get(key, 0) is None}
    best = climb(attempt(start), cls.search, attempt, task.trials or TRIALS)
    clock.stop()
    fitting = Clock()
    scorer = classical_scorer(dataset, case, registry, task, best.options)
    fitting.stop()
    values = measured(case, scorer)
    return Outcome(case.users, values, fitting.seconds, clock.seconds, best.value, best.options, tried)


def classical_scorer(dataset: Dataset, case: ColdCase, registry: Registry, task: Task, options: JsonObject) -> Scorer:
    """Score by a classical model that was fitted on the training rows, from each case's history.

    Raises:
        ConfigError: For a value that the options do not allow.
    """
    params = registry.params("classical", task.model, options)
    model = registry.get("classical", task.model)(params)
    model.fit(training_matrix(dataset, case.train, task.seed))
    history = history_matrix(case, len(dataset.items))
    return lambda batch: model.score(case.users[batch], history[batch])[:, case.candidates]


def measured(case: ColdCase, scorer: Scorer) -> dict[str, np.ndarray]:
    """Return (cases,) values of each of METRICS."""
    found: dict[str, np.ndarray] = {}
    ranks = score(case, scorer)["rank"]
    for name in METRICS:
        metric, k = name.split("@")
        hit = ranks <= int(k)
        found[name] = hit.astype(float) if metric == "recall" else np.where(hit, 1 / np.log2(ranks + 1), 0.0)
    return found


def can_score(cls: type[Classical], protocol: str) -> bool:
    """Return whether a classical model can score the cases of a protocol."""
    wanted = COLD[protocol].classical
    return (cls.by_history or not cls.personal) if wanted is None else cls.type in wanted

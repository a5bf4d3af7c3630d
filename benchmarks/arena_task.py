"""The task and the outcome of one run of the arena."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field

import numpy as np

from anyrec.core.types import JsonObject
from anyrec.recommender import Recommender

DEFAULT, LIGHTGCN = "default", "lightgcn"
"""Names of the models that are not classical."""
METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20")
KS = (10, 20)
MAIN = "ndcg@10"
"""The metric that options are chosen by."""
WHOLE = "-"
"""Name of the only cut of a protocol with one split."""


@dataclass(frozen=True)
class Task:
    """One run: a model on one split of one data set.

    Attributes:
        data: Name of the data set.
        protocol: Name of the protocol.
        cut: Name of the cut.
        model: "default", "lightgcn" or the name of a classical model.
        seed: Seed of the model.
        trials: Most fits for the options of a classical model; None for the product's number.
        overrides: `key=value` settings of the default config, to measure a change of it.
    """

    data: str
    protocol: str
    cut: str = WHOLE
    model: str = DEFAULT
    seed: int = 0
    trials: int | None = None
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the task's files."""
        digest = hashlib.sha256(json.dumps([self.trials, self.overrides]).encode()).hexdigest()[:6]
        cut = "" if self.cut == WHOLE else f"-{self.cut}"
        return f"{self.data}-{self.protocol}{cut}-{self.model}-{self.seed}-{digest}"

    @classmethod
    def of(cls, document: JsonObject) -> Task:
        """Return the task of a JSON object that has other keys as well, such as a record."""
        own = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{**own, "overrides": tuple(own.get("overrides", ()))})


@dataclass
class Outcome:
    """The figures of a run.

    Attributes:
        users: (users,) rows of the measured users.
        by_user: (users,) values of each of METRICS.
        seconds: Duration of the training with the chosen options.
        tuning_seconds: Duration of the choice of the options.
        validation: The main metric on validation; None if it was not measured.
        options: The chosen options, for the report.
        trials: Number of fits for the choice.
    """

    users: np.ndarray
    by_user: dict[str, np.ndarray]
    seconds: float
    tuning_seconds: float = 0.0
    validation: float | None = None
    options: JsonObject = field(default_factory=dict)
    trials: int = 1


def chosen(recommender: Recommender) -> JsonObject:
    """Return what a fit of the default config chose, for the report: its epochs, and the weights of a blend."""
    found: JsonObject = {}
    if recommender.result is not None:
        found = {"best epoch": recommender.result.best_epoch, "epochs": len(recommender.result.history)}
    for line in recommender.describe():
        if line.startswith("blend: "):
            found["blend"] = line.removeprefix("blend: ")
    return found


class Clock:
    """Measures the time from its creation to `stop`."""

    def __init__(self) -> None:
        self.seconds, self._started = 0.0, time.perf_counter()

    def stop(self) -> None:
        """End the measurement."""
        self.seconds = time.perf_counter() - self._started

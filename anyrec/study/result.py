"""What a study found: its trials, the best one, and the metrics of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyrec.core.config import Config
from anyrec.core.notebook import html_table
from anyrec.core.types import JsonObject
from anyrec.recommender import Recommender
from anyrec.study.space import Searched, short_names


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    Attributes:
        number: Its number, from 0.
        state: `complete`, `pruned`, `stopped` (the time was over), `failed` or `interrupted`.
        values: The values of the searched keys.
        objectives: Its objectives; of an interrupted trial the best value so far of the first one, if it has one.
        metrics: Validation metrics at its best epoch.
        epochs: Number of epochs.
        seconds: Seconds of the training.
        problem: Why it failed.
    """

    number: int
    state: str
    values: JsonObject
    objectives: list[float]
    metrics: Mapping[str, float]
    epochs: int
    seconds: float
    problem: str = ""

    def found(self, names: Sequence[str]) -> str:
        """Return the objectives as text: `ndcg@10 0.3127, parameters 26,816`. names: Names of the objectives."""
        return ", ".join(f"{name} {figure(value)}" for name, value in zip(names, self.objectives, strict=False))

    def described(self) -> str:
        """Return the values as text: `dim 32, learning_rate 0.0031`."""
        names = short_names(list(self.values))
        return ", ".join(
            f"{names[key]} {value:.4g}" if isinstance(value, float) else f"{names[key]} {value}"
            for key, value in self.values.items()
        )


@dataclass(frozen=True)
class StudyResult:
    """The result of a study.

    Attributes:
        folder: The study's folder: journal, trials, best.json and the report.
        config: Complete config of the best trial.
        best: The best trial.
        trials: All trials in their order.
        space: The searched keys.
        objectives: Names of the objectives; the best trial is that of the first one.
        importance: Share of each searched key in the variation of the first objective.
        front: Numbers of the trials that no other trial beats in all objectives.
        seconds: Seconds of the search.
        metrics: Metrics of the best trial's model by part of the split; its test part was measured after the search.
        final_metrics: The same of the final model, which can have a blend and a refit; empty without one.
        tests: How often the test part was measured for this study.
        started: Whether trial 0 has the values of the config itself.
        recommender: The final model; None without one.

    Example:
        >>> result = tune({"dim": 32}, Dataset.read("data.json"), trials=20)
        >>> result.config.training.optimizer.learning_rate
        >>> result.recommender.recommend(["user 1"])
    """

    folder: Path
    config: Config
    best: Trial
    trials: list[Trial]
    space: Sequence[Searched]
    objectives: list[str]
    importance: Mapping[str, float]
    front: list[int]
    seconds: float
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    final_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tests: int = 0
    started: bool = False
    recommender: Recommender | None = None

    @property
    def metric(self) -> str:
        """The metric that the report compares on validation and test: the first objective that is one."""
        return next((one for one in self.objectives if one in self.best.metrics), self.config.training.metric)

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        found = self.best.found(self.objectives)
        about = f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)}, best is {self.best.number} with {found}"
        return f"StudyResult({about}: {self.best.described()})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the trials with their objectives and values."""
        keys, count = [one.key for one in self.space], len(self.objectives)
        rows = [
            (one.number, one.state, *[*one.objectives, *[None] * count][:count], *map(one.values.get, keys))
            for one in self.trials
        ]
        return html_table(repr(self), ["trial", "state", *self.objectives, *keys], rows)


def figure(value: float) -> str:
    """Return a number with four decimals, or with thousands if it is large."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"

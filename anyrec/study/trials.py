"""One trial of a study: a training with some values, measured on the validation part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError
from anyrec.core.files import json_lines
from anyrec.core.registry import Registry
from anyrec.core.types import Json, JsonObject
from anyrec.data.dataset import Dataset
from anyrec.data.learning import LearningData
from anyrec.data.split import Part
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.model.build import choose_device, training_context
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower import TwoTowerModel
from anyrec.study.trial_configs import TrialConfigs
from anyrec.training.fit import Fitted, fit
from anyrec.training.loop import FitOptions
from anyrec.training.tracker import TrackedResult
from anyrec.training.tracking import Tracking


@dataclass(frozen=True)
class StudySetup:
    """What the trials of a study share; it can be sent to other processes.

    Attributes:
        base: The complete config of the study.
        dataset: The data.
        folder: The study's folder.
        tracked: Whether the trackers of the config record the trials.
    """

    base: Config
    dataset: Dataset
    folder: Path
    tracked: bool = True

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial: its epochs and its checkpoints."""
        return self.folder / "trials" / f"{number:04d}"


@dataclass(frozen=True)
class Task:
    """A trial to run: its number, and the values of the searched keys."""

    number: int
    values: JsonObject


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: `complete`, `stopped` (by the answer to an epoch) or `failed`.
        metrics: Validation metrics at the best epoch; of a trial that was stopped before a validation at its last one.
        epochs: Number of epochs.
        seconds: Seconds of the training.
        parameters: Number of the model's parameters.
        idle: Searched keys that have no effect together with the others.
        problem: Why it failed.
    """

    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    parameters: int = 0
    idle: list[str] = field(default_factory=list)
    problem: str = ""


class Stopped(Exception):
    """A trial that is ended early.

    Args:
        parameters: Number of the model's parameters.
    """

    def __init__(self, parameters: int):
        super().__init__()
        self.parameters = parameters


class TrialRunner:
    """Runs trials one after another, with the data in memory.

    Args:
        setup: What the trials share.
        registry: The components; by default those of the config's plugins.
    """

    def __init__(self, setup: StudySetup, registry: Registry | None = None):
        self.setup = setup
        self.registry = registry or discover(setup.base.plugins)
        self.configs = TrialConfigs(setup.base, self.registry, setup.dataset)

    @cached_property
    def learning(self) -> LearningData:
        """The data with its labels and its split, which are the same for all trials."""
        return LearningData.make(self.setup.dataset.sorted(), self.setup.base)[0]

    def config_of(self, values: Mapping[str, Json]) -> tuple[Config, list[str]]:
        """Return the config that a trial is trained with, and the searched keys without effect.

        The validation part is not trained on, and what follows the training (blend, pipeline) is left out.

        Raises:
            ConfigError: If the values do not go together.
        """
        config, idle = self.configs.make(values)
        training = config.training.model_copy(update={"refit": False})
        return config.model_copy(update={"training": training, "blend": None, "pipeline": None}), idle

    def run(self, task: Task, report: Callable[[JsonObject], bool]) -> Outcome:
        """Run a trial, or go on with it from its last checkpoint.

        Args:
            task: The trial.
            report: Called with each epoch's entry of metrics.jsonl. If it returns True, the trial ends there.
        """
        try:
            config, idle = self.config_of(task.values)
            try:
                outcome = self._trained(config, task.number, report)
            except Stopped as stopped:
                outcome = self._stopped(config, task.number, stopped.parameters)
            return replace(outcome, idle=idle)
        except AnyrecError as error:
            return Outcome("failed", problem=" ".join(str(error).split()))
        except Exception as error:
            return Outcome("failed", problem=f"{type(error).__name__}: {error}")

    def restored(self, task: Task, complete: bool) -> FittedModel:
        """Return the model of a trial from its checkpoints, with the weights of its best epoch.

        Args:
            task: The trial.
            complete: Whether it is complete. One that was ended early is not trained on. A classical model, which has
                no checkpoints, is fitted again.
        """
        config, _ = self.config_of(task.values)
        return self._fit(config, task.number, further=complete).model

    def measure(self, model: FittedModel, part: Part) -> dict[str, float]:
        """Return the metrics of a model on a part of the split."""
        return ranking_metrics(rank_held_out(model, part), model.config.evaluation.k)

    def _trained(self, config: Config, number: int, report: Callable[[JsonObject], bool]) -> Outcome:
        """Run a trial. Raises Stopped if `report` ends it."""
        started, sizes = time.perf_counter(), [0]
        with self._tracking(config, number) as tracking:

            def each_epoch(entry: JsonObject) -> None:
                tracking.epoch(entry)
                if report(entry):
                    raise Stopped(sizes[-1])

            fitted = self._fit(config, number, each_epoch, lambda model: sizes.append(_parameters(model)))
            outcome = self._outcome(fitted, time.perf_counter() - started)
            tracking.finish(TrackedResult(fitted.model, {"validation": outcome.metrics}, save=None))
        return outcome

    def _stopped(self, config: Config, number: int, parameters: int) -> Outcome:
        """Return the outcome of a trial that was ended early. If no epoch was validated, its last weights are now."""
        history = json_lines(self.setup.trial_folder(number) / "metrics.jsonl")
        name = config.training.metric
        validated = [one["validation"] for one in history if "validation" in one]
        able = [metrics for metrics in validated if not math.isnan(metrics[name])]
        if not validated:
            metrics = self.measure(self._fit(config, number, further=False).model, "validation")
        else:
            metrics = max(able, key=lambda one: one[name]) if able else validated[-1]
        return Outcome("stopped", metrics, len(history), sum(one["seconds"] for one in history), parameters)

    def _fit(
        self,
        config: Config,
        number: int,
        report: Callable[[JsonObject], None] | None = None,
        started: Callable[[FittedModel], None] | None = None,
        further: bool = True,
    ) -> Fitted:
        """Train a config in the folder of a trial, from its last checkpoint; arguments as for `FitOptions`."""
        context = training_context(config, self.learning.dataset, choose_device(config), trusted=True)
        folder = self.setup.trial_folder(number)
        options = FitOptions(folder, resume=True, progress=False, report=report, started=started, further=further)
        return fit(config, self.learning, self.registry, context, options=options)

    def _outcome(self, fitted: Fitted, seconds: float) -> Outcome:
        """Return the outcome of a training: the validation metrics of its best epoch."""
        if fitted.result is None:
            return Outcome("complete", self.measure(fitted.model, "validation"), 0, seconds)
        history = fitted.result.history
        metrics = history[fitted.result.best_epoch - 1]["validation"]
        seconds = sum(one["seconds"] for one in history)
        return Outcome("complete", metrics, len(history), seconds, _parameters(fitted.model))

    def _tracking(self, config: Config, number: int) -> Tracking:
        """Start the trackers of a trial, whose runs have its number and name the study."""
        study = config.name
        named = config.model_copy(update={"name": f"{study}-{number:04d}"})
        named = named if self.setup.tracked else named.model_copy(update={"tracking": {}})
        folder = self.setup.trial_folder(number)
        tracking = Tracking.of(named, self.registry, folder=folder, resume=True, group=study)
        tracking.start(named)
        return tracking


def _parameters(model: FittedModel) -> int:
    """Return the number of a model's parameters; 0 for a classical model."""
    return sum(one.numel() for one in model.scorer.parameters()) if isinstance(model, TwoTowerModel) else 0

"""The training loop: epochs, validation, checkpoints. All data are on the device; a batch is an index_select."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from anyrec.core.config import Config
from anyrec.core.errors import AnyrecError, ConfigError, Fault
from anyrec.core.files import save_json_lines
from anyrec.core.notebook import html_table
from anyrec.core.parallel import one_thread_elsewhere
from anyrec.core.processes import ALONE, Processes
from anyrec.core.progress import Bar, progress_bar
from anyrec.core.registry import Registry
from anyrec.core.scratch import Scratch, kept
from anyrec.core.sharded_tables import join_tables, sharded_tables, whole_tables
from anyrec.core.types import JsonObject
from anyrec.core.windows import Batch
from anyrec.model.fitted import FittedModel
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.batch_statistics import batch_statistics_refused
from anyrec.training.checkpoints import FOLDER, Checkpoints, clear_checkpoints
from anyrec.training.exchange import GradientSum, LimitedNorms, clip_gradients
from anyrec.training.kept_gradients import KeptGradients
from anyrec.training.make_objective import make_objective
from anyrec.training.objective import TrainingObjective
from anyrec.training.optimizers import Optimizer, learning_rate
from anyrec.training.progress import Progress
from anyrec.training.run_origin import run_origin
from anyrec.training.samples import TrainingData
from anyrec.training.weight_average import Average

TRAINING = "training"
"""Text of the progress bar of the steps."""


@dataclass(frozen=True)
class FitOptions:
    """Options of a training that do not change its result.

    Attributes:
        run_dir: Folder for checkpoints and metrics.jsonl; None to write neither.
        resume: Continue from the last checkpoint in `run_dir`.
        progress: Show a progress bar.
        report: Called with each epoch's entry of metrics.jsonl; that of a second training also has its `stage`.
        started: Called with the untrained model before the first epoch.
        processes: The processes that train the model together; the first one shows, reports and writes.
        further: Train on after a checkpoint that is continued; without it the model has its best weights so far.
    """

    run_dir: Path | None = None
    resume: bool = False
    progress: bool = True
    report: Callable[[JsonObject], None] | None = None
    started: Callable[[FittedModel], None] | None = None
    processes: Processes = ALONE
    further: bool = True

    def within(self, folder: str) -> FitOptions:
        """Return the options for a second training, which writes to a subfolder of `run_dir`."""
        run_dir = None if self.run_dir is None else self.run_dir / folder
        report = None if self.report is None else partial(_report_stage, self.report, folder)
        return replace(self, run_dir=run_dir, report=report, started=None)


def _report_stage(report: Callable[[JsonObject], None], stage: str, entry: JsonObject) -> None:
    """Report an epoch of a second training."""
    report({"stage": stage, **entry})


@dataclass
class TrainingResult:
    """The history of a training.

    Attributes:
        history: One entry for each epoch, as in metrics.jsonl.
        best_epoch: The epoch whose weights the model has, from 1.
        best_metric: Its validation metric; None if nothing was validated.
    """

    history: list[JsonObject]
    best_epoch: int
    best_metric: float | None

    def __repr__(self) -> str:
        metric = "" if self.best_metric is None else f" with {self.best_metric:.4f}"
        return f"TrainingResult({len(self.history)} epochs, best epoch {self.best_epoch}{metric})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: loss, seconds and validation metrics of each epoch."""
        names = list(dict.fromkeys(name for entry in self.history for name in entry.get("validation", {})))
        rows = [
            (entry["epoch"], entry["loss"], entry["seconds"], *map(entry.get("validation", {}).get, names))
            for entry in self.history
        ]
        return html_table(repr(self), ["epoch", "loss", "seconds", *(f"validation {name}" for name in names)], rows)


def train(
    model: TwoTower,
    data: TrainingData,
    config: Config,
    registry: Registry,
    run: FitOptions,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    tables: dict[str, str] | None = None,
) -> TrainingResult:
    """Train a network in place. It ends with the weights of its best epoch, in evaluation mode.

    Args:
        model: The network.
        data: The prepared features and the samples, on the device.
        config: Complete config.
        registry: The components.
        run: Options that do not change the result. A resumed training ends with the same weights as one without
            interruption; one that is not resumed removes the checkpoints of an older run.
        validate: Returns the validation metrics of the network with its present weights. Without it the last epoch
            counts as the best one.
        tables: Hashes of the data by name, which a checkpoint must have to be resumed.

    Raises:
        ConfigError: If validation does not return the metric `training.metric`, or the checkpoint is of another run.
        AnyrecError: If the loss is not finite.
    """
    options, device, group = config.training, data.samples.users.device, run.processes
    generator = torch.Generator(device).manual_seed(config.seed)
    objective = make_objective(model, data, config, registry, generator, group)
    optimizer = Optimizer(model, options.optimizer)
    step = Step(objective, optimizer, options.gradient_clip, group)
    batches = data.packer or Batches(objective.rows, options.batch_size, objective.sampler.group_size, data.scratch)
    average = Average(model, options.average_epochs * batches.count) if options.average_epochs else None
    bf16 = not isinstance(objective.precision, nullcontext)
    origin = {} if run.run_dir is None else run_origin(model, data, config, tables or {}, bf16)
    state, best, checkpoints = Progress(origin=origin), None, None
    if run.run_dir is not None:
        checkpoints = Checkpoints(run.run_dir / FOLDER, model, optimizer, average, generator, group)
        if not run.resume and group.first:
            clear_checkpoints(run.run_dir)
        if run.resume and (checkpoints.exist or not run.further):
            state, best = checkpoints.load(config, origin)
    steps = batches.count * options.epochs
    safe = batch_statistics_refused(model, group)
    with progress_bar(TRAINING, steps, run.progress and group.first) as bar, step, safe:
        bar.advance(state.step)
        while run.further and state.epoch < options.epochs and not _waited_enough(state, config):
            started = time.perf_counter()
            loss = _train_epoch(step, average, batches.epoch(generator), state, config, steps, bar)
            entry = _entry(state, loss, objective.rows, started, config, steps)
            if validate is not None and (state.epoch % options.evaluate_every == 0 or state.epoch == options.epochs):
                with average.in_place() if average is not None else nullcontext():
                    entry["validation"] = step.validated(validate)
                    best = _keep_best(state, entry["validation"], config, model, best)
            state.history.append(entry)
            _keep(state, best, checkpoints, run)
    _use_best(model, best, average)
    join_tables(model)
    return TrainingResult(state.history, state.best_epoch or state.epoch, state.best_metric)


def _train_epoch(
    step: Step,
    average: Average | None,
    batches: Iterable[Batch],
    state: Progress,
    config: Config,
    steps: int,
    bar: Bar,
) -> float:
    """Train one epoch and count it in `state`.

    Args:
        step: Changes the weights.
        average: The running average of the weights, if there is one.
        batches: The batches of the epoch.
        state: Counts epochs and steps.
        config: Complete config.
        steps: Number of steps of the whole training, for the schedule of the learning rate.
        bar: Shows the steps.

    Returns:
        The mean loss of the batches with at least one positive.
    """
    options, objective = config.training, step.objective
    objective.start_epoch()
    total, learned = torch.zeros((), device=objective.model.device), 0  # summed on the device: no wait at each step
    with one_thread_elsewhere() if objective.uses_own_threads else nullcontext():
        for batch in batches:
            rate = learning_rate(state.step, steps, options.scheduler, options.optimizer.learning_rate)
            state.step += 1
            if len(batch.rows):  # a window of events can lack positives
                total += step.take(batch, rate)
                learned += 1
                if average is not None:
                    average.update(state.step)
            bar.advance()
    state.epoch += 1
    return step.processes.sum(total).item() / max(1, learned)


class Step:
    """One step of the optimizer. All processes take the same step. A context, which watches tables with a norm limit.

    Args:
        objective: Computes the loss of a batch.
        optimizer: Changes the weights.
        clip: Largest norm of the gradient of all weights; None for no limit.
        processes: The processes that train the model together.
    """

    def __init__(self, objective: TrainingObjective, optimizer: Optimizer, clip: float | None, processes: Processes):
        self.objective, self.optimizer, self.clip, self.processes = objective, optimizer, clip, processes
        self.limited = LimitedNorms(processes, objective.model)
        self.divided: list[nn.Parameter] = [table.weight for table in sharded_tables(objective.model)]
        """Tables of which each process has other rows: their gradients are complete where the rows are."""
        # A softmax over all items reads all rows.
        self.kept = KeptGradients(objective.model, [] if objective.compare.all_items else optimizer.dense)
        divided, kept = ({id(one) for one in part} for part in (self.divided, self.kept.parameters))
        dense = [one for one in optimizer.dense if id(one) not in divided | kept]
        sparse = [one for one in [*optimizer.sparse, *self.kept.parameters] if id(one) not in divided]
        self.gradients = GradientSum(processes, dense, sparse)

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *error: object) -> None:
        self.limited.remove()
        self.kept.remove()

    def take(self, batch: Batch, rate: float) -> Tensor:
        """Change the weights, and return the loss of the batch before it; with several processes this one's part of it.

        Args:
            batch: The batch, the same in all processes.
            rate: Learning rate.
        """
        self.optimizer.set_rate(rate)
        self.optimizer.zero_grad()
        loss = self.objective.loss(batch)
        loss.backward()
        self.gradients.take(self.objective.division.fills)
        self.limited.agree()
        self.kept.fill()
        if self.clip is not None:
            clip_gradients(self.processes, list(self.objective.model.parameters()), self.divided, self.clip)
        self.optimizer.step()
        self.kept.clear()
        return loss.detach()

    def validated(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return the metrics that `validate` measures in the first process."""
        with whole_tables(self.objective.model):
            metrics = self.processes.agree(validate() if self.processes.first else None)
        self.limited.copy_first()
        return metrics


class Batches:
    """Row numbers of the positives, in a new order in each epoch, in batches of whole groups.

    The last group of an epoch is filled with its first rows, so these occur twice.

    Attributes:
        rows: Number of positives.
        group: Positives that share negatives.
        size: Positives of a batch: the largest multiple of `group` that is at most the batch size.
        total: Positives of an epoch with the repeated ones.
        count: Batches of an epoch.
    """

    def __init__(self, rows: int, batch_size: int, group: int, scratch: Scratch | None = None):
        """
        Args:
            rows: Number of positives.
            batch_size: Largest number of positives in a batch.
            group: Positives that share negatives (`Sampler.group_size`).
            scratch: Where the order of an epoch is kept; None for memory.
        """
        self.rows, self.scratch = rows, scratch
        self.group = min(group, rows, batch_size)
        self.size = max(self.group, min(batch_size, rows) // self.group * self.group)
        self.total = math.ceil(rows / self.group) * self.group
        self.count = math.ceil(self.total / self.size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch. generator: draws the order."""
        order = torch.randperm(self.rows, generator=generator, device=generator.device)
        order = kept(torch.cat([order, order[: self.total - self.rows]]), self.scratch)
        for rows in order.split(self.size):
            yield Batch(rows)


def _keep_best(
    state: Progress, metrics: dict[str, float], config: Config, model: TwoTower, best: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    """Return a copy of the weights if the validation metric is the best so far, else `best`."""
    name = config.training.metric
    if name not in metrics:
        hint = f"It gives: {', '.join(metrics)}."
        raise ConfigError(Fault("/training/metric", f"validation gives no '{name}'.", hint))
    if not math.isnan(metrics[name]) and (state.best_metric is None or metrics[name] > state.best_metric):
        state.best_metric, state.best_epoch = metrics[name], state.epoch
        return {key: value.detach().clone() for key, value in model.state_dict().items()}
    return best


def _use_best(model: TwoTower, best: dict[str, Tensor] | None, average: Average | None) -> None:
    """Give the network its final weights: the best validated ones, or else the average; switch to evaluation mode."""
    if best is not None:
        model.load_state_dict(best)
    elif average is not None:
        average.put(average.values)
    model.eval()


def _waited_enough(state: Progress, config: Config) -> bool:
    """Return whether the last `patience` validations had no better metric. Epochs without validation do not count."""
    patience = config.training.patience
    later = sum("validation" in entry for entry in state.history[state.best_epoch :])
    return patience is not None and state.best_metric is not None and later >= patience


def _entry(state: Progress, loss: float, positives: int, started: float, config: Config, steps: int) -> JsonObject:
    """Return the entry of metrics.jsonl of the last epoch.

    Args:
        state: The training after the epoch.
        loss: Mean loss.
        positives: Positives of an epoch.
        started: `time.perf_counter` at the start of the epoch.
        config: Complete config.
        steps: Number of steps of the whole training.

    Raises:
        AnyrecError: If the loss is not finite.
    """
    if not math.isfinite(loss):
        fix = "lower training.optimizer.learning_rate, or set training.gradient_clip."
        raise AnyrecError(f"the loss is {loss} after epoch {state.epoch}: {fix}")
    seconds, options = time.perf_counter() - started, config.training
    return {
        "epoch": state.epoch,
        "loss": loss,
        "seconds": seconds,
        "positives_per_second": positives / seconds,
        "learning_rate": learning_rate(state.step - 1, steps, options.scheduler, options.optimizer.learning_rate),
    }


def _keep(state: Progress, best: dict[str, Tensor] | None, checkpoints: Checkpoints | None, run: FitOptions) -> None:
    """Write metrics.jsonl, one JSON object in a line for each epoch, and a checkpoint; report the last epoch."""
    if run.run_dir is not None and run.processes.first:
        save_json_lines(run.run_dir / "metrics.jsonl", state.history)
    if checkpoints is not None:
        checkpoints.save(best, state)
    if run.report is not None and run.processes.first:
        run.report(state.history[-1])

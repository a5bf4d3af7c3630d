"""The training loop. All data are tensors on the device; a batch is an index_select."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.errors import AnyrecError, ConfigError, Fault
from anyrec.core.files import atomic_write
from anyrec.core.parallel import one_thread_elsewhere
from anyrec.core.progress import progress_bar
from anyrec.core.registry import Registry
from anyrec.core.windows import Batch
from anyrec.model.towers import TowerScorer
from anyrec.training.checkpoints import (
    FOLDER,
    Progress,
    clear_checkpoints,
    load_checkpoint,
    run_origin,
    save_checkpoint,
)
from anyrec.training.make_objective import make_objective
from anyrec.training.objective import TrainingObjective
from anyrec.training.optimizers import Optimizer, learning_rate
from anyrec.training.samples import TrainingData
from anyrec.training.weight_average import Average

CHECKPOINT = "last.safetensors"


@dataclass
class TrainingResult:
    """history: one entry an epoch; best_epoch: the one whose weights the model now has, from 1."""

    history: list[dict[str, Any]]
    best_epoch: int
    best_metric: float | None


def train(
    model: TowerScorer,
    data: TrainingData,
    config: Config,
    registry: Registry,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    report: Callable[[dict[str, Any]], None] | None = None,
    tables: dict[str, str] | None = None,
) -> TrainingResult:
    """Train `model` in place and leave it with its best epoch's weights.

    validate: metrics of the model as it stands; without it the last epoch counts as the best.
    run_dir: gets metrics.jsonl and checkpoints/; resume: go on from there, exactly as if never stopped. Without resume, an
    older run's checkpoints are removed. tables: hashes of the data, which a checkpoint must agree with to be resumed.
    Raises ConfigError for a metric that validation does not give, AnyrecError when the loss is no longer finite.
    """
    options, samples = config.training, data.samples
    device = samples.users.device
    generator = torch.Generator(device).manual_seed(config.seed)
    objective = make_objective(model, data, config, registry, generator)
    optimizer = Optimizer(model, options.optimizer)
    batches = data.packer or Batches(objective.rows, options.batch_size, objective.sampler.group_size)
    average = Average(model, options.average_epochs * batches.count) if options.average_epochs else None
    bf16 = not isinstance(objective.precision, nullcontext)
    origin = {} if run_dir is None else run_origin(model, data, config, tables or {}, bf16)
    state = Progress(origin=origin)
    best: dict[str, Tensor] | None = None
    folder = None if run_dir is None else run_dir / FOLDER
    if run_dir is not None and not resume:
        clear_checkpoints(run_dir)
    if resume and folder is not None and (folder / CHECKPOINT).is_file():
        state, best = load_checkpoint(folder / CHECKPOINT, model, optimizer, average, generator, config, origin)
    steps = batches.count * options.epochs
    with progress_bar("training", steps, progress) as bar:
        bar.advance(state.step)
        while state.epoch < options.epochs and not _waited_enough(state, config):
            started = time.perf_counter()
            model.train()
            total, learned = torch.zeros((), device=device), 0
            with one_thread_elsewhere() if objective.uses_own_threads else nullcontext():
                for batch in batches.epoch(generator):
                    rate = learning_rate(state.step, steps, options.scheduler, options.optimizer.learning_rate)
                    state.step += 1
                    if len(batch.rows):  # a window of events may hold no positive, and there is then nothing to learn
                        total += _step(objective, optimizer, batch, rate, options.gradient_clip)
                        learned += 1
                        if average is not None:
                            average.update(state.step)
                    bar.advance()
            state.epoch += 1
            entry = _entry(state, total, objective.rows, max(1, learned), started, config, steps)
            if validate is not None and (state.epoch % options.evaluate_every == 0 or state.epoch == options.epochs):
                with average.in_place() if average is not None else nullcontext():
                    entry["validation"] = validate()
                    best = _keep_best(state, entry["validation"], config, model, best)
            state.history.append(entry)
            if run_dir is not None and folder is not None:
                _write_log(run_dir / "metrics.jsonl", state.history)
                save_checkpoint(folder / CHECKPOINT, model, best, optimizer, average, state, generator)
            if report is not None:
                report(entry)
    if best is not None:
        model.load_state_dict(best)
    elif average is not None:
        average.put(average.values)
    model.eval()
    return TrainingResult(state.history, state.best_epoch or state.epoch, state.best_metric)


def _step(objective: TrainingObjective, optimizer: Optimizer, batch: Batch, rate: float, clip: float | None) -> Tensor:
    """Moves the model against the batch's gradient; the batch's loss."""
    optimizer.set_rate(rate)
    optimizer.zero_grad()
    loss = objective.loss(batch)
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(objective.model.parameters(), clip)
    optimizer.step()
    return loss.detach()


class Batches:
    """Row numbers of the positives, in a new order each epoch, cut into batches of whole groups.

    The last group is filled up from the epoch's first rows, which are so seen twice.
    """

    def __init__(self, rows: int, batch_size: int, group: int):
        self.rows = rows
        self.group = min(group, rows, batch_size)
        self.size = max(self.group, min(batch_size, rows) // self.group * self.group)
        self.total = math.ceil(rows / self.group) * self.group
        self.count = math.ceil(self.total / self.size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(self.rows, generator=generator, device=generator.device)
        for rows in torch.cat([order, order[: self.total - self.rows]]).split(self.size):
            yield Batch(rows)


def _keep_best(
    state: Progress, metrics: dict[str, float], config: Config, model: TowerScorer, best: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    name = config.training.metric
    if name not in metrics:
        raise ConfigError(
            Fault("/training/metric", f"validation gives no '{name}'.", f"It gives: {', '.join(metrics)}.")
        )
    if not math.isnan(metrics[name]) and (state.best_metric is None or metrics[name] > state.best_metric):
        state.best_metric, state.best_epoch = metrics[name], state.epoch
        return {key: value.detach().clone() for key, value in model.state_dict().items()}
    return best


def _waited_enough(state: Progress, config: Config) -> bool:
    """Whether `patience` validations in a row brought no better metric. Epochs that were not validated do not count."""
    patience = config.training.patience
    later = sum("validation" in entry for entry in state.history[state.best_epoch :])
    return patience is not None and state.best_metric is not None and later >= patience


def _entry(
    state: Progress, total: Tensor, positives: int, batches: int, started: float, config: Config, steps: int
) -> dict[str, Any]:
    loss = total.item() / batches
    if not math.isfinite(loss):
        raise AnyrecError(
            f"the loss is {loss} after epoch {state.epoch}: lower training.optimizer.learning_rate, or set training.gradient_clip."
        )
    seconds, options = time.perf_counter() - started, config.training
    return {
        "epoch": state.epoch,
        "loss": loss,
        "seconds": seconds,
        "positives_per_second": positives / seconds,
        "learning_rate": learning_rate(state.step - 1, steps, options.scheduler, options.optimizer.learning_rate),
    }


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in history), encoding="utf-8")

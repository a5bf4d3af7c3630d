"""The training loop. All data are tensors on the device; a batch is an index_select."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyrec.config import Config
from anyrec.contracts import Loss, Negatives, Sampler
from anyrec.data.positives import Positives
from anyrec.errors import AnyrecError, ConfigError, Fault
from anyrec.memory import keep_freed_memory
from anyrec.model import IDENTITY, Columns, Model, Tower
from anyrec.plugins import Registry
from anyrec.progress import progress_bar
from anyrec.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from anyrec.training.optimizers import Optimizer, learning_rate
from anyrec.training.samples import Samples, TrainingData

CHECKPOINT = "last.safetensors"


@dataclass
class TrainingResult:
    """history: one entry an epoch; best_epoch: the one whose weights the model now has, from 1."""

    history: list[dict[str, Any]]
    best_epoch: int
    best_metric: float | None


def train(
    model: Model,
    data: TrainingData,
    config: Config,
    registry: Registry,
    *,
    validate: Callable[[], dict[str, float]] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Train `model` in place and leave it with its best epoch's weights.

    validate: metrics of the model as it stands; without it the last epoch counts as the best.
    run_dir: gets metrics.jsonl and checkpoints/; resume: go on from there, exactly as if never stopped.
    Raises ConfigError for a metric that validation does not give, AnyrecError when the loss is no longer finite.
    """
    keep_freed_memory()
    options, samples = config.training, data.samples
    device = samples.users.device
    generator = torch.Generator(device).manual_seed(config.seed)
    stepper = make_stepper(model, data, config, registry, generator)
    optimizer = Optimizer(model, options.optimizer)
    batches = Batches(stepper.rows, options.batch_size, stepper.sampler.group_size)
    state = Progress(config=_fingerprint(config, samples))
    best: dict[str, Tensor] | None = None
    folder = None if run_dir is None else run_dir / "checkpoints"
    if resume and folder is not None and (folder / CHECKPOINT).is_file():
        state, best = load_checkpoint(folder / CHECKPOINT, model, optimizer, generator, state.config)
    steps = batches.count * options.epochs
    with progress_bar("training", steps, progress) as bar:
        bar.advance(state.step)
        while state.epoch < options.epochs and not _waited_enough(state, config):
            started = time.perf_counter()
            model.train()
            total = torch.zeros((), device=device)
            for rows in batches.epoch(generator, device):
                optimizer.set_rate(learning_rate(state.step, steps, options.scheduler, options.optimizer.learning_rate))
                optimizer.zero_grad()
                loss = stepper.loss(rows)
                loss.backward()
                if options.gradient_clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
                optimizer.step()
                total += loss.detach()
                state.step += 1
                bar.advance()
            state.epoch += 1
            entry = _entry(state, total, batches, started, options.optimizer.learning_rate, config, steps)
            if validate is not None and (state.epoch % options.evaluate_every == 0 or state.epoch == options.epochs):
                entry["validation"] = validate()
                best = _keep_best(state, entry["validation"], config, model, best)
            state.history.append(entry)
            if run_dir is not None and folder is not None:
                _write_log(run_dir / "metrics.jsonl", state.history)
                save_checkpoint(folder / CHECKPOINT, model, best, optimizer, state, generator)
            if report is not None:
                report(entry)
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return TrainingResult(state.history, state.best_epoch or state.epoch, state.best_metric)


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

    def epoch(self, generator: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
        order = torch.randperm(self.rows, generator=generator, device=device)
        return torch.cat([order, order[: self.total - self.rows]]).split(self.size)


class Stepper:
    """The loss of one batch of positives."""

    def __init__(
        self, model: Model, data: TrainingData, config: Config, registry: Registry, generator: torch.Generator
    ):
        self.model, self.data, self.generator = model, data, generator
        self.ratio = config.negative_ratio
        params = registry.params("loss", config.loss.type, config.loss.options(), "/loss")
        self.objective: Loss = registry.get("loss", config.loss.type)(params)
        self.objective.num_items = data.num_items  # type: ignore[assignment]
        samples = data.samples
        self.rows = len(samples.users)
        self.positives = Positives(samples.users, samples.items, data.num_users, data.num_items)
        params = registry.params("sampler", config.negatives.type, config.negatives.options(), "/negatives")
        self.sampler: Sampler = registry.get("sampler", config.negatives.type)(self.positives, params)
        self.explicit = (
            Explicit(samples, data.num_users) if config.explicit_negatives and len(samples.negatives[0]) else None
        )
        self.precision = _autocast(config, samples.users.device)
        if self.objective.all_items:
            self.sampler.group_size = 1

    def loss(self, rows: Tensor) -> Tensor:
        """rows: (batch,) of the positives."""
        samples, model = self.data.samples, self.model
        users, items = samples.users[rows], samples.items[rows]
        weight = None if samples.weights is None else samples.weights[rows]
        drawn = self._negatives(users, items)
        with self.precision:
            user_vectors = encode(model, "user", self.data.users, users)
            item_vectors, negative_vectors = self._items(items, drawn)
            positive = model.score(user_vectors, item_vectors.unsqueeze(1)).squeeze(1).float()
            negative = score_groups(model, user_vectors, negative_vectors).float()
            if self.explicit is not None:
                negative, drawn = self._with_explicit(negative, drawn, users, user_vectors)
        if drawn.valid is not None and getattr(self.sampler, "keep_hardest", False):
            negative, drawn = _hardest(negative, drawn, self.ratio)
        if self.objective.temperature != 1.0:
            positive, negative = positive / self.objective.temperature, negative / self.objective.temperature
        if self.objective.corrected and drawn.log_q is not None:
            groups = len(drawn.log_q)
            negative = (negative.view(groups, -1, negative.shape[1]) - drawn.log_q.unsqueeze(1)).view_as(negative)
        penalty = model.user.fusion.take_penalty() + model.item.fusion.take_penalty()
        heads = self._heads(rows, user_vectors, item_vectors)
        return self.objective(positive, negative, drawn.valid, weight) + heads + penalty

    def _negatives(self, users: Tensor, items: Tensor) -> Negatives:
        if not self.objective.all_items:
            return self.sampler.sample(users, items, self.ratio, self.generator)
        every = torch.arange(self.data.num_items, device=users.device).unsqueeze(0)
        return Negatives(every, ~self.positives.contains(users, every), None)

    def _items(self, items: Tensor, drawn: Negatives) -> tuple[Tensor, Tensor]:
        """Representations of the positives (batch, ...) and of the negatives (groups, negatives, ...)."""
        columns, model = self.data.items, self.model
        if (
            drawn.items.numel() == items.numel() and drawn.items.data_ptr() == items.data_ptr()
        ):  # in-batch: the same rows
            vectors = encode(model, "item", columns, items)
            return vectors, vectors.view(*drawn.items.shape, *vectors.shape[1:])
        if self.objective.all_items:
            vectors = model.represent("item", columns, drawn.items[0])
            return vectors.index_select(0, items), vectors.unsqueeze(0)
        vectors = encode(model, "item", columns, torch.cat([items, drawn.items.flatten()]))
        positive, negative = vectors[: len(items)], vectors[len(items) :]
        return positive, negative.view(*drawn.items.shape, *vectors.shape[1:])

    def _with_explicit(
        self, negative: Tensor, drawn: Negatives, users: Tensor, user_vectors: Tensor
    ) -> tuple[Tensor, Negatives]:
        """One more column: an item that the user was seen to dislike, where there is one."""
        assert self.explicit is not None
        items, there = self.explicit.draw(users, self.generator)
        vectors = encode(self.model, "item", self.data.items, items)
        extra = self.model.score(user_vectors, vectors.unsqueeze(1)).float()
        valid = torch.ones_like(negative, dtype=torch.bool) if drawn.valid is None else drawn.valid
        log_q = drawn.log_q
        if log_q is not None:
            log_q = log_q.repeat_interleave(len(negative) // len(log_q), 0).expand_as(negative)
            log_q = torch.cat([log_q, torch.zeros_like(extra)], 1)
        return torch.cat([negative, extra], 1), Negatives(drawn.items, torch.cat([valid, there.unsqueeze(1)], 1), log_q)

    def _heads(self, rows: Tensor, user_vectors: Tensor, item_vectors: Tensor) -> Tensor | float:
        """The weighted losses of the heads, each a mean over the rows that have its target."""
        if not self.model.heads:
            return 0.0
        total: Tensor | float = 0.0
        pair = self.model.interaction.pair(user_vectors, item_vectors)
        for name, head in self.model.heads.items():
            values, present = self.data.samples.targets[name]
            here = present[rows]
            losses = head.loss(head(pair.float()), values[rows])  # type: ignore[operator,index]
            total = total + head.params.weight * torch.where(here, losses, 0.0).sum() / here.sum().clamp(min=1)  # type: ignore[union-attr]
        return total


def make_stepper(model: Model, data: TrainingData, config: Config, registry: Registry, generator: Any) -> Stepper:
    """The stepper that the config's negatives need."""
    from anyrec.training.labelled import LabelledStepper

    labelled = getattr(registry.get("sampler", config.negatives.type), "labelled", False)
    return (LabelledStepper if labelled else Stepper)(model, data, config, registry, generator)


class Explicit:
    """The explicit negatives of every user, drawn one a positive."""

    def __init__(self, samples: Samples, num_users: int):
        users, items = samples.negatives
        order = torch.argsort(users, stable=True)
        self.items = items[order]
        self.counts = torch.bincount(users, minlength=num_users)
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, users: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(batch,) an item each, and (batch,) which users have one."""
        counts = self.counts[users]
        draws = (torch.rand(len(users), generator=generator, device=users.device) * counts).long()
        place = (self.starts[users] + torch.minimum(draws, (counts - 1).clamp(min=0))).clamp(max=len(self.items) - 1)
        return self.items[place], counts > 0


def encode(model: Model, side: Any, columns: Columns, rows: Tensor) -> Tensor:
    """Representations of `rows: (batch,)`; where features are costly, each distinct row is encoded once."""
    tower = model.tower(side)
    if _only_ids(tower):
        return model.represent(side, columns, rows)
    distinct, place = torch.unique(rows, return_inverse=True)
    return model.represent(side, columns, distinct).index_select(0, place)


def score_groups(model: Model, users: Tensor, items: Tensor) -> Tensor:
    """users: (batch, ...); items: (groups, negatives, ...) -> (batch, negatives)."""
    groups = items.shape[0]
    if groups == 1:
        return model.score(users, items[0])
    if groups == len(users):
        return model.score(users, items)
    if model.interaction.factorised:
        left = model.interaction.user_vectors(users)
        right = model.interaction.item_vectors(items)
        return torch.bmm(left.view(groups, -1, left.shape[-1]), right.transpose(1, 2)).flatten(0, 1)
    return torch.cat([model.score(part, own) for part, own in zip(users.chunk(groups), items, strict=True)])


def _only_ids(tower: Tower) -> bool:
    return tower.features == [IDENTITY]


def _hardest(negative: Tensor, drawn: Negatives, ratio: int) -> tuple[Tensor, Negatives]:
    """The `ratio` valid negatives with the highest scores."""
    assert drawn.valid is not None
    ranked = negative.detach().masked_fill(~drawn.valid, -math.inf)
    place = ranked.topk(min(ratio, negative.shape[1]), dim=1).indices
    return negative.gather(1, place), Negatives(drawn.items, drawn.valid.gather(1, place), None)


def _autocast(config: Config, device: torch.device) -> Any:
    """bf16 where it is asked for, or, under auto, where the processor multiplies it natively."""
    native = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if device.type == "cuda"
        else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    wanted = config.training.precision == "bf16" or (config.training.precision == "auto" and native)
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def _keep_best(
    state: Progress, metrics: dict[str, float], config: Config, model: Model, best: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    name = config.training.metric
    if name not in metrics:
        raise ConfigError(
            Fault("/training/metric", f"validation gives no '{name}'.", f"It gives: {', '.join(metrics)}.")
        )
    if state.best_metric is None or metrics[name] > state.best_metric:
        state.best_metric, state.best_epoch = metrics[name], state.epoch
        return {key: value.detach().clone() for key, value in model.state_dict().items()}
    return best


def _waited_enough(state: Progress, config: Config) -> bool:
    patience = config.training.patience
    return patience is not None and state.best_metric is not None and state.epoch - state.best_epoch >= patience


def _entry(
    state: Progress, total: Tensor, batches: Batches, started: float, rate: float, config: Config, steps: int
) -> dict[str, Any]:
    loss = total.item() / batches.count
    if not math.isfinite(loss):
        raise AnyrecError(
            f"the loss is {loss} after epoch {state.epoch}: lower training.optimizer.learning_rate, or set training.gradient_clip."
        )
    seconds = time.perf_counter() - started
    return {
        "epoch": state.epoch,
        "loss": loss,
        "seconds": seconds,
        "positives_per_second": batches.rows / seconds,
        "learning_rate": learning_rate(state.step - 1, steps, config.training.scheduler, rate),
    }


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in history))


def _fingerprint(config: Config, samples: Samples) -> str:
    """What must be the same for a run to be resumed: the config, but for its length, and the samples."""
    settings = config.model_dump(
        mode="json", exclude={"training": {"epochs", "patience"}, "name": True, "output_dir": True}
    )
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(samples.users.cpu().numpy().tobytes())
    digest.update(samples.items.cpu().numpy().tobytes())
    return digest.hexdigest()

"""Checkpoints of a training run, for exact resuming.

After each epoch, `last.safetensors` has everything that the next one depends on, and `best.safetensors` has the weights
of the best epoch so far. The remaining state is JSON in the header of the files: no pickle. A crash leaves the whole
previous file or the whole new one.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from anyrec.core.config import Config
from anyrec.core.contracts import Encoder
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import atomic_write
from anyrec.core.manifest import digest_of_tensors
from anyrec.core.saved_files import damaged
from anyrec.data.hashing import hash_values
from anyrec.data.ids import Side
from anyrec.model.towers import Columns
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.optimizers import Optimizer
from anyrec.training.samples import TrainingData
from anyrec.training.weight_average import Average

LAST, BEST = "last.safetensors", "best.safetensors"
FOLDER, REFIT = "checkpoints", "refit"
"""Folders within a run: of its checkpoints, and of the second training of `training.refit`."""
AGAIN = "Train without --resume."
SHOWN = 8
"""Differences that an error message names."""
TABLES = {
    "users": "the table of users",
    "items": "the table of items",
    "split": "the split",
    "interactions": "the table of interactions",
}
"""Names of the hashes of `anyrec.data.fingerprint.data_fingerprint` in error messages."""


@dataclass
class Progress:
    """The progress of a training run after an epoch.

    Attributes:
        epoch: Epochs done.
        step: Steps done.
        best_epoch: The epoch with the best validation metric, from 1; 0 if there is none yet.
        best_metric: That metric.
        history: The entries of metrics.jsonl, one for each epoch.
        origin: What the run depends on, by part (`run_origin`). A run with another value of any part cannot resume it.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_metric: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    best: dict[str, torch.Tensor] | None,
    optimizer: Optimizer,
    average: Average | None,
    progress: Progress,
    generator: torch.Generator,
) -> None:
    """Write everything that the next epoch depends on, each file atomically.

    The last state is written first. A crash between the two files therefore leaves a last state whose own weights are
    the best ones, so `load_checkpoint` finds the best weights in any case.

    Args:
        folder: Folder of the checkpoints.
        model: The model, with its present weights.
        best: The weights of the best epoch so far, written if that is the last epoch; None if there is none.
        optimizer: Its state is saved.
        average: The moving average of the weights, if the run has one.
        progress: The progress so far.
        generator: Source of the random numbers of batches and negatives.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    tensors |= {f"average.{name}": value for name, value in (average.values if average else {}).items()}
    tensors |= {"random.draws": generator.get_state(), "random.torch": torch.get_rng_state()}
    if next(model.parameters()).is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    _write(folder / LAST, tensors, asdict(progress))
    if best is not None and progress.best_epoch == progress.epoch:
        _save_best(folder, best, progress)


def _save_best(folder: Path, best: dict[str, torch.Tensor], progress: Progress) -> None:
    _write(folder / BEST, best, {"epoch": progress.best_epoch, "metric": progress.best_metric})


def _write(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state to one file, atomically."""
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps(state)
    with atomic_write(path) as temporary:
        save_file(copies, temporary, metadata={"progress": text, "sha256": digest_of_tensors(copies, text)})


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    average: Average | None,
    generator: torch.Generator,
    config: Config,
    origin: dict[str, Any],
) -> tuple[Progress, dict[str, torch.Tensor] | None]:
    """Restore what `save_checkpoint` wrote.

    Args:
        folder: Folder of the checkpoints.
        model: Receives the weights.
        optimizer: Receives its state.
        average: Receives the moving average, if the run has one.
        generator: Receives its state, as do torch's own generators.
        config: The config of the run that is to continue.
        origin: What that run depends on (`run_origin`).

    Returns:
        The progress, and the weights of the best epoch so far, or None.

    Raises:
        ModelError: If a file is missing or damaged, or if continuing would give another result than an uninterrupted
            run of `config` and `origin`.
    """
    path = folder / LAST
    state, tensors = _read(path)
    with damaged(path, "this is not the progress of a training", AGAIN):
        progress = Progress(**state)
    reason = _differences(progress.origin, origin) or another_course(progress, config)
    if reason:
        hint = "Restore what differs, or train without --resume, which starts again and removes this checkpoint."
        raise ModelError(Fault(str(path), reason, hint, "foreign"))

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    device = next(model.parameters()).device
    with damaged(path, "this checkpoint does not fit the model", AGAIN):
        model.load_state_dict(part("model."))
        optimizer.load_tensors(part("optimizer."))
        if average is not None:
            average.load(part("average."))
        generator.set_state(tensors["random.draws"])
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
    return progress, _best_weights(folder, progress, model, average, device)


def _best_weights(
    folder: Path, progress: Progress, model: nn.Module, average: Average | None, device: torch.device
) -> dict[str, torch.Tensor] | None:
    """Return the weights of the best epoch so far, or None if there is none.

    Args:
        folder: Folder of the checkpoints.
        progress: The progress of the last state.
        model: The model with the weights of the last state.
        average: The moving average of the last state, if the run has one.
        device: Where the weights are returned.

    Raises:
        ModelError: If the file is missing or damaged, or of another epoch.
    """
    weights = model.state_dict()
    if not progress.best_epoch:
        return None
    if progress.best_epoch == progress.epoch:  # the run may have been stopped before it wrote the file
        averaged = {} if average is None else average.values
        best = {name: value.detach().clone() for name, value in {**weights, **averaged}.items()}
        _save_best(folder, best, progress)
        return best
    state, tensors = _read(folder / BEST)
    with damaged(folder / BEST, "these are not the weights of the best epoch", AGAIN):
        if state["epoch"] != progress.best_epoch:
            raise ValueError(f"they are of epoch {state['epoch']}; the best one is {progress.best_epoch}")
        if {name: value.shape for name, value in tensors.items()} != {
            name: value.shape for name, value in weights.items()
        }:
            raise ValueError("they are not those of this model")
    return {name: value.to(device) for name, value in tensors.items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the JSON state and the tensors of a checkpoint. Raises ModelError if the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if digest_of_tensors(tensors, saved["progress"]) != saved["sha256"]:
            raise ValueError("its content is not what was saved")
        return json.loads(saved["progress"]), tensors
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(Fault(str(path), f"this checkpoint cannot be read: {error}.", AGAIN, "damaged")) from None


def clear_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints of an older run in the same folder, and those of its refit."""
    for folder in (run_dir / FOLDER, run_dir / REFIT / FOLDER):
        if folder.is_dir():
            shutil.rmtree(folder)


def run_origin(
    model: TwoTower, data: TrainingData, config: Config, tables: dict[str, str], bf16: bool
) -> dict[str, Any]:
    """Return everything that the result of training depends on, by a name for error messages; large values as hashes.

    Args:
        model: The model, for the state of its encoders.
        data: What it trains on.
        config: The config.
        tables: Hashes of the data's tables and of the split, as of `anyrec.data.fingerprint.data_fingerprint`.
        bf16: Whether matrix products are computed in bfloat16.
    """
    found = {f"config {name}": value for name, value in _settings(config).items()}
    found |= {TABLES.get(name, name): value for name, value in tables.items()}
    sides: dict[Side, Columns] = {"user": data.users, "item": data.items}
    for side, columns in sides.items():
        tower = model.tower(side)
        encoders = (cast(Encoder, encoder) for encoder in tower.encoders)
        states = {name: encoder.state() for name, encoder in zip(tower.features, encoders, strict=True)}
        for name in sorted({*columns, *states}):
            state = hash_values(states.get(name, {}))
            found[f"vocabulary or preprocessing of the {side} feature {name}"] = state
            found[f"values of the {side} feature {name}"] = hash_values(list(columns[name]) if name in columns else [])
    samples = data.samples
    found["training positives"] = hash_values([samples.users, samples.items])
    found["weights of training positives"] = hash_values([] if samples.weights is None else [samples.weights])
    found["explicit negatives"] = hash_values(list(samples.negatives))
    found["targets of heads"] = hash_values({name: list(target) for name, target in samples.targets.items()})
    found["device"] = f"{samples.users.device.type}, {'bf16' if bf16 else 'float32'}"
    return found


def _settings(config: Config) -> dict[str, Any]:
    """Return the keys of the config that the result of training depends on, flat.

    `epochs` is one of them only if the learning rate depends on it; otherwise a run can continue for more epochs.
    """
    options = config.training
    paced = options.scheduler.type != "constant" or options.scheduler.warmup > 0
    ignored: dict[str, Any] = {
        "training": {"patience", "refit", "device", "precision"} | (set() if paced else {"epochs"}),
        "data": {"image_root", "allow_urls", "strict"},
        "evaluation": {"batch_size", "baselines", "report", "category"},
        "blend": True,  # it is chosen after the training
        **dict.fromkeys(("name", "output_dir", "plugins", "index", "pipeline", "cluster", "tracking", "tune"), True),
    }
    return flat_settings(config.model_dump(mode="json", exclude=ignored))


def flat_settings(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys, without nulls."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat_settings(value, f"{before}{name}.")
        elif value is not None:
            found[before + name] = value
    return found


def _differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Return a sentence that names what differs, or "" if nothing does."""
    missing = object()
    names = [name for name in {**then, **now} if then.get(name, missing) != now.get(name, missing)]
    if not names:
        return ""
    shown = []
    for name in names[:SHOWN]:
        values = [parts.get(name, "not set") for parts in (then, now)]
        shown.append(f"{name} ({values[0]}, now {values[1]})" if name.startswith("config ") else name)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"this checkpoint is of another config or other data. What differs: {', '.join(shown)}{more}."


def another_course(progress: Progress, config: Config) -> str:
    """Return why a run of `config` on the same data would not have reached this checkpoint, or "" if it would.

    The number of epochs, the patience and the epochs of validation may differ from those of the checkpoint's run, as
    long as both runs are equal up to the checkpoint.
    """
    options = config.training
    if progress.epoch > options.epochs:
        return f"this checkpoint is at epoch {progress.epoch}, past training.epochs ({options.epochs})."
    best, waited = None, 0
    for entry in progress.history:
        if options.patience is not None and best is not None and waited >= options.patience:
            return (
                f"with training.patience ({options.patience}) the run would have stopped at epoch {entry['epoch'] - 1}."
            )
        if "validation" not in entry:
            continue
        if entry["epoch"] % options.evaluate_every and entry["epoch"] != options.epochs:
            return (
                f"the run was validated at epoch {entry['epoch']}, which was its last. With training.epochs "
                f"{options.epochs} it would not be validated then (training.evaluate_every: {options.evaluate_every})."
            )
        value = entry["validation"].get(options.metric, math.nan)
        better = not math.isnan(value) and (best is None or value > best)
        best, waited = (value, 0) if better else (best, waited + 1)
    return ""

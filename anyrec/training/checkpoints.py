"""Checkpoints that a crash cannot damage, without pickle: one safetensors file with its JSON state in the header."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from anyrec.core.config import Config
from anyrec.core.errors import Fault, ModelError
from anyrec.core.files import atomic_write
from anyrec.core.manifest import digest_of_tensors
from anyrec.core.saved_files import damaged
from anyrec.data.hashing import hash_values
from anyrec.model.towers import Model
from anyrec.training.optimizers import Optimizer
from anyrec.training.samples import TrainingData
from anyrec.training.weight_average import Average

FOLDER, REFIT = "checkpoints", "refit"
"""Folders of a run: of its checkpoints, and of the second training that `training.refit` adds."""
SHOWN = 8
"""Differences that a message names."""
TABLES = {"users": "the table of users", "items": "the table of items", "split": "the split"} | {
    "interactions": "the table of interactions"
}


@dataclass
class Progress:
    """Where training stands after an epoch."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_metric: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)
    """What the run was started with, by part (`run_origin`): a run with another value of any part cannot resume it."""


def save_checkpoint(
    path: Path,
    model: nn.Module,
    best: dict[str, torch.Tensor] | None,
    optimizer: Optimizer,
    average: Average | None,
    progress: Progress,
    generator: torch.Generator,
) -> None:
    """Everything that the next epoch depends on, in one file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.tensors().items()}
    tensors |= {f"best.{name}": value for name, value in (best or {}).items()}
    tensors |= {f"average.{name}": value for name, value in (average.values if average else {}).items()}
    tensors |= {"random.draws": generator.get_state(), "random.torch": torch.get_rng_state()}
    if next(model.parameters()).is_cuda:
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    told = json.dumps(asdict(progress))
    with atomic_write(path) as temporary:
        save_file(copies, temporary, metadata={"progress": told, "sha256": digest_of_tensors(copies, told)})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    average: Average | None,
    generator: torch.Generator,
    config: Config,
    origin: dict[str, Any],
) -> tuple[Progress, dict[str, torch.Tensor] | None]:
    """Put everything back.

    Raises:
        ModelError: The file is damaged, or going on from it would not end as an uninterrupted run of `config` and
            `origin` does.
    """
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest_of_tensors(tensors, saved["progress"]) != saved["sha256"]:
            raise ValueError("its content is not what was saved")
        progress = Progress(**json.loads(saved["progress"]))
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            Fault(str(path), f"this checkpoint cannot be read: {error}.", "Train without --resume.", "damaged")
        ) from None
    reason = _differences(progress.origin, origin) or another_course(progress, config)
    if reason:
        hint = "Restore what differs, or train without --resume (which starts anew and removes this checkpoint)."
        raise ModelError(Fault(str(path), reason, hint, "foreign"))

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    device = next(model.parameters()).device
    with damaged(path, "this checkpoint does not fit the model", "Train without --resume."):
        model.load_state_dict(part("model."))
        optimizer.load_tensors(part("optimizer."))
        if average is not None:
            average.load(part("average."))
        generator.set_state(tensors["random.draws"])
        torch.set_rng_state(tensors["random.torch"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
    best = {name: value.to(device) for name, value in part("best.").items()}
    return progress, best or None


def clear_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints of an older run in the same folder, those of its refit included."""
    for folder in (run_dir / FOLDER, run_dir / REFIT / FOLDER):
        if folder.is_dir():
            shutil.rmtree(folder)


def run_origin(model: Model, data: TrainingData, config: Config, tables: dict[str, str], bf16: bool) -> dict[str, Any]:
    """What the course of training depends on, by a name that a person understands; hashes for what is large.

    Args:
        tables: Hashes of the data's tables and of the split, as `anyrec.data.fingerprint.data_fingerprint` gives them.
        bf16: Whether products are taken in bfloat16.
    """
    found = {f"config {name}": value for name, value in _settings(config).items()}
    found |= {TABLES.get(name, name): value for name, value in tables.items()}
    for side, columns in (("user", data.users), ("item", data.items)):
        tower = model.tower(side)  # type: ignore[arg-type]
        states = {name: one.state() for name, one in zip(tower.features, tower.encoders, strict=True)}  # type: ignore[union-attr,operator]
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
    """The keys of the config that decide the course of training, flat."""
    options = config.training
    paced = options.scheduler.type != "constant" or options.scheduler.warmup > 0
    ignored = {
        "training": {"patience", "refit", "device", "precision"} | (set() if paced else {"epochs"}),
        "data": {"image_root", "allow_urls", "strict"},
        "evaluation": {"batch_size", "baselines", "report", "category"},
        **dict.fromkeys(("name", "output_dir", "plugins", "index", "pipeline"), True),
    }
    return _flat(config.model_dump(mode="json", exclude=ignored))  # type: ignore[arg-type]


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            found[before + name] = value
    return found


def _differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """A sentence that names what differs; empty if nothing does."""
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
    """Why a run of `config` would not have come to this checkpoint, though its data and other settings are the same."""
    options = config.training
    if progress.epoch > options.epochs:
        return f"this checkpoint is at epoch {progress.epoch}, past training.epochs ({options.epochs})."
    best, waited = None, 0
    for entry in progress.history:
        if options.patience is not None and best is not None and waited >= options.patience:
            return f"training.patience ({options.patience}) would have stopped the run at epoch {entry['epoch'] - 1}, and it went on."
        if "validation" not in entry:
            continue
        if entry["epoch"] % options.evaluate_every and entry["epoch"] != options.epochs:
            return (
                f"the run was validated at epoch {entry['epoch']}, its last then, and with training.epochs "
                f"{options.epochs} it would not be (training.evaluate_every is {options.evaluate_every})."
            )
        value = entry["validation"].get(options.metric, math.nan)
        better = not math.isnan(value) and (best is None or value > best)
        best, waited = (value, 0) if better else (best, waited + 1)
    return ""

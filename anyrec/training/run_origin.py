"""What the result of a training depends on, by which a checkpoint is compared with the run that is to continue."""

from __future__ import annotations

import math
from typing import Any, cast

from anyrec.core.config import Config
from anyrec.core.contracts import Encoder
from anyrec.data.hashing import hash_values
from anyrec.data.ids import Side
from anyrec.model.towers import Columns
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.progress import Progress
from anyrec.training.samples import TrainingData

SHOWN = 8
"""Differences that an error message names."""
TABLES = {
    "users": "the table of users",
    "items": "the table of items",
    "split": "the split",
    "interactions": "the table of interactions",
}
"""Names of the hashes of `anyrec.data.fingerprint.data_fingerprint` in error messages."""


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
        **dict.fromkeys(("card", "feast"), True),
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


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
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

"""A sensible config from nothing but the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyrec.config import DataConfig
from anyrec.data.dataset import Dataset
from anyrec.data.interpretation import interpretation

SHORTEST = 5
"""Mean interactions a user from which their order is learned."""
STEPS = 1000
"""Steps in which a sequence model learns a small data set."""
MANY = 500_000
"""Interactions from which four layers learn more than two."""
LEAST_EPOCHS = {2: 10, 4: 14}
"""By the number of layers."""
WINDOWS = (20, 50, 100, 200)
MOST_ITEMS = 20_000
"""The catalogue up to which all items are compared with at each step."""


def suggest_config(dataset: Dataset, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The config as JSON, and why each choice was made. docs/defaults.md has the measurement behind each rule."""
    interactions, users, items = len(dataset.interactions), len(dataset.users), len(dataset.items)
    groups = sorted({name.split(".")[0] for side in ("user", "item") for name in dataset.features(side)})
    reasons = [f"groups found: {', '.join(groups) or 'none, so ids alone'}"]
    config: dict[str, Any] = {"name": "".join(c if c.isalnum() or c in "_.-" else "_" for c in path.stem) or "model"}
    config["dim"] = 32 if interactions < 20_000 else 64 if interactions < 5_000_000 else 128
    lengths = np.bincount(dataset.user_rows, minlength=users)
    lengths = lengths[lengths > 0]
    timed = dataset.column("timestamp") is not None
    if timed and len(lengths) and lengths.mean() >= SHORTEST:
        _sequence(config, reasons, dataset, lengths)
    else:
        _two_tower(config, reasons, lengths, timed)
    reasons.append(f"dim {config['dim']}, batch {config['training']['batch_size']}: {interactions:,} interactions")
    _loss(config, reasons, items)
    if users and interactions / users < SHORTEST:
        config["id_dropout"] = 0.3
        reasons.append("id_dropout 0.3: users have few interactions, so content should speak")
    roles = dict(sorted(dataset.roles.items()))
    if roles:
        config.setdefault("data", {})["roles"] = roles
        reasons.append("temporal roles as inferred: check them")
    for finding in interpretation(dataset, DataConfig()):
        asked = "" if finding.level == "note" else "please check: "
        reasons.append(f"{asked}{finding.text} {finding.advice}".rstrip())
    return config, reasons


def _sequence(config: dict[str, Any], reasons: list[str], dataset: Dataset, lengths: np.ndarray) -> None:
    """What users did before, by a causal transformer and by a fading mean, and no id of the user's own."""
    longest = float(np.quantile(lengths, 0.75))
    window = next((size for size in WINDOWS if size >= min(longest, 100)), 100)
    events = int(lengths.sum())
    history: dict[str, Any] = {"window": window, "layers": 4 if events >= MANY else 2, "hidden": 2}
    types = dataset.column("interaction_type")
    if types is not None and len(types.unique().drop_null()) > 1:
        history["use_kind"] = True
    history["fields"] = {"recent": {"block": "mean"}}
    config["features"] = {"history": history, "identity": {"init_std": 0.02}}
    config["user"] = {"features": {"identity": None}}
    config["fusion"] = {"type": "residual"}
    if dataset.features("user"):
        config["history_dropout"] = 0.1
        reasons.append("history_dropout 0.1: users have features, which should speak for people without a history")
    reasons.append(
        f"history by a transformer of {history['layers']} layers and a fading mean over the last {window} interactions, instead of user ids: users have "
        f"{lengths.mean():.0f} in the mean, with times"
    )
    batch = max(8 * window // 2, min(3200, events // 100))
    epochs = max(LEAST_EPOCHS[history["layers"]], min(40, round(STEPS * batch / events)))
    config["training"] = {
        "epochs": epochs,
        "batch_size": batch,
        "average_epochs": 1,
        "optimizer": {"learning_rate": 0.003, "weight_decay": 0.01},
        "scheduler": {"type": "linear", "warmup": 0.05},
    }
    reasons.append(f"{epochs} epochs at a falling rate; the weights' running average is kept")


def _two_tower(config: dict[str, Any], reasons: list[str], lengths: np.ndarray, timed: bool) -> None:
    """Ids and features without order."""
    interactions = int(lengths.sum())
    batch = 256 if interactions < 20_000 else 1024 if interactions < 500_000 else 4096
    epochs = max(10, min(60, round(2_000_000 / max(1, interactions))))
    config["training"] = {"epochs": epochs, "batch_size": min(batch, max(32, interactions // 20))}
    reasons.append(
        "no order to learn from: " + ("users have few interactions" if timed else "no interaction has a time")
    )
    reasons.append(f"up to {epochs} epochs, stopped when validation no longer improves")


def _loss(config: dict[str, Any], reasons: list[str], items: int) -> None:
    if items <= MOST_ITEMS:
        config["loss"] = {"type": "full_softmax"}
        reasons.append(f"full softmax: {items:,} items are few enough to compare with all of them")
    elif "user" in config:
        config["loss"], config["negatives"] = {"type": "softmax"}, {"type": "shared", "size": 2048, "alpha": 0.5}
        reasons.append(f"softmax over 2,048 negatives a step: {items:,} items are too many to compare with all")
    else:
        config["loss"], config["negatives"] = {"type": "softmax"}, {"type": "in_batch"}
        reasons.append(f"softmax over in-batch negatives: {items:,} items are too many to compare with all")

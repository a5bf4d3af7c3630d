"""A sensible config from nothing but the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anyrec.data.dataset import Dataset

LONG_HISTORY = 20
"""Interactions of the median user from which the latest ones alone tell enough."""


def suggest_config(dataset: Dataset, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The config as JSON, and why each choice was made."""
    interactions, users, items = len(dataset.interactions), len(dataset.users), len(dataset.items)
    groups = sorted({name.split(".")[0] for side in ("user", "item") for name in dataset.features(side)})
    reasons = [f"groups found: {', '.join(groups) or 'none, so ids alone'}"]
    config: dict[str, Any] = {"name": "".join(c if c.isalnum() or c in "_.-" else "_" for c in path.stem) or "model"}
    dim = 32 if interactions < 20_000 else 64 if interactions < 5_000_000 else 128
    batch = 256 if interactions < 20_000 else 1024 if interactions < 500_000 else 4096
    config["dim"] = dim
    reasons.append(f"dim {dim}, batch {batch}: {interactions:,} interactions")
    if items <= 10_000:
        config["loss"] = {"type": "full_softmax"}
        reasons.append(f"full softmax: {items:,} items are few enough to compare with all of them")
    else:
        config["loss"], config["negatives"] = {"type": "softmax"}, {"type": "in_batch"}
        reasons.append(f"softmax over in-batch negatives: {items:,} items are too many to compare with all")
    epochs = max(10, min(60, round(2_000_000 / max(1, interactions))))
    config["training"] = {"epochs": epochs, "batch_size": min(batch, max(32, interactions // 20))}
    reasons.append(f"up to {epochs} epochs, stopped when validation no longer improves")
    if users and interactions / users < 5:
        config["id_dropout"] = 0.3
        reasons.append("id_dropout 0.3: users have few interactions, so content should speak")
    lengths = np.bincount(dataset.user_rows, minlength=users) if users else np.zeros(1)
    if dataset.column("timestamp") is not None and np.median(lengths) >= LONG_HISTORY:
        config["data"] = {"half_life_interactions": 10}
        reasons.append(
            f"older positives fade: users have long histories (median {np.median(lengths):.0f}), and tastes move "
            "(MovieLens: ndcg@10 0.084 to 0.096 and 0.047 to 0.079 on validation, see benchmarks/RESULTS.md)"
        )
    roles = dict(sorted(dataset.roles.items()))
    if roles:
        config.setdefault("data", {})["roles"] = roles
        reasons.append("temporal roles as inferred: check them")
    return config, reasons

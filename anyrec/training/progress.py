"""The progress of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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

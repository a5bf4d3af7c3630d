"""What a model directory holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from anyrec.model.fitted import FittedModel
from anyrec.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class ModelParts:
    """A fitted model with what belongs to it.

    model: The fitted model.
    pipeline: The stages between the model and a list; None if the model ranks the whole catalogue.
    metrics: By part of the split, as measured after training.
    notes: What the user should know of the data and the training.
    """

    model: FittedModel
    pipeline: Pipeline | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

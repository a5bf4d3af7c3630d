"""The contents of a model directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from anyrec.model.fitted import FittedModel
from anyrec.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class ModelParts:
    """A fitted model with its pipeline, metrics and notes.

    Attributes:
        model: The fitted model.
        pipeline: The stages between the model and a list; None if the model ranks the whole catalogue.
        metrics: Ranking metrics by part of the split, as measured after training.
        notes: Notes on the data and the training for the user.
    """

    model: FittedModel
    pipeline: Pipeline | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

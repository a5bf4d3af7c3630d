"""Training on explicit labels alone: positives and explicit negatives, each learned by its own score."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, DataError, Fault
from anyrec.core.registry import Registry
from anyrec.core.windows import Batch
from anyrec.model.towers import Model
from anyrec.training.objective import Stepper, encode
from anyrec.training.samples import TrainingData


class LabelledStepper(Stepper):
    """The loss of one batch of labelled interactions: the positives first, then the explicit negatives.

    Cross entropy and focal loss are even: a negative of score s costs what a positive of score -s does. So the loss is
    that of positives with no negative beside, and its mean runs over all rows of the batch.
    Raises ConfigError for a loss that compares scores, DataError where no interaction is explicitly negative.
    """

    def __init__(
        self, model: Model, data: TrainingData, config: Config, registry: Registry, generator: torch.Generator
    ):
        super().__init__(model, data, config, registry, generator)
        _check(data, config, self.sampler.losses)
        samples = data.samples
        self.explicit = None
        self.positive_rows = len(samples.users)
        self.users = torch.cat([samples.users, samples.negatives[0]])
        self.items = torch.cat([samples.items, samples.negatives[1]])
        self.rows = len(self.users)
        weights = samples.weights
        self.weights = None if weights is None else torch.cat([weights, weights.new_ones(self.rows - len(weights))])

    def loss(self, batch: Batch) -> Tensor:
        """batch.rows: (batch,) of positives and explicit negatives; an explicit negative weighs 1. Heads learn from the positives."""
        data, model, rows = self.data, self.model, batch.rows
        with self.precision:
            users = encode(model, "user", data.users, self.users[rows])
            items = encode(model, "item", data.items, self.items[rows])
            scores = model.score(users, items.unsqueeze(1)).squeeze(1).float()
        positive = rows < self.positive_rows
        weight = None if self.weights is None else self.weights[rows]
        losses = self.objective(torch.where(positive, scores, -scores), scores.new_empty(len(rows), 0), None, weight)
        if weight is not None:
            losses = losses * weight.mean()
        penalty = model.user.fusion.take_penalty() + model.item.fusion.take_penalty()
        return losses + self._heads(rows[positive], users[positive], items[positive]) + penalty


def _check(data: TrainingData, config: Config, losses: tuple[str, ...] | None) -> None:
    if losses is not None and config.loss.type not in losses:
        raise ConfigError(
            Fault(
                "/loss/type",
                f"'{config.loss.type}' compares a positive with its negatives, and negatives.type=labelled gives it none to compare.",
                f"Use {' or '.join(repr(name) for name in losses)}, or let negatives be drawn (negatives.type=uniform).",
            )
        )
    if data.packer is not None:
        raise ConfigError(
            Fault(
                "/features/history",
                "histories are learned from what users did, one after the other, and negatives.type=labelled from single labels.",
                "Leave the history out, or let negatives be drawn (negatives.type=uniform).",
            )
        )
    if not config.explicit_negatives:
        raise ConfigError(
            Fault(
                "/explicit_negatives",
                "without explicit negatives, negatives.type=labelled has only positives to learn from.",
                "Set it to true, or let negatives be drawn (negatives.type=uniform).",
            )
        )
    if not len(data.samples.negatives[0]):
        raise DataError(
            Fault(
                "/interactions",
                "negatives.type=labelled learns from explicit negatives, and no training interaction is one.",
                "Give interactions a label of 0, or ratings with data.min_rating, or let negatives be drawn "
                "(negatives.type=uniform).",
                "no negatives",
            )
        )

"""Training on explicit labels: positives and explicit negatives, each with its own score, without sampled negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.errors import ConfigError, DataError, Fault
from anyrec.core.precision import at_least_float32
from anyrec.core.processes import ALONE, Processes
from anyrec.core.registry import Registry
from anyrec.core.row_masks import part_of
from anyrec.core.windows import Batch
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.objective import TrainingObjective
from anyrec.training.samples import TrainingData


class LabelledObjective(TrainingObjective):
    """Computes the loss of batches of labelled interactions. Rows are the positives, then the explicit negatives.

    For cross entropy and focal loss, a negative of score s has the same loss as a positive of score -s. The loss is
    therefore that of positives without negatives, and its mean is over all rows of the batch.

    Raises:
        ConfigError: The loss compares positives with negatives, or another key does not fit.
        DataError: No interaction is an explicit negative.
    """

    def __init__(
        self,
        model: TwoTower,
        data: TrainingData,
        config: Config,
        registry: Registry,
        generator: torch.Generator,
        processes: Processes = ALONE,
    ):
        super().__init__(model, data, config, registry, generator, processes)
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
        """Compute the loss of a batch. An explicit negative has weight 1. Heads are trained on the positives.

        Args:
            batch: Rows of positives and explicit negatives.

        Returns:
            A scalar.
        """
        count = len(batch.rows)
        own = self.division.own(self.division.hold(batch), count, None)
        rows = own.of(batch.rows)
        with self.precision, self.division.masks():
            users = self.vectors.encode("user", self.users[batch.rows], own.places)
            items = self.vectors.encode("item", self.items[batch.rows], own.places)
            with part_of(own.places, count):
                scores = at_least_float32(self.model.score(users, items.unsqueeze(1)).squeeze(1))  # (own,)
        positive = rows < self.positive_rows
        weight = None if self.weights is None else self.weights[rows]
        losses = self.compare(torch.where(positive, scores, -scores), scores.new_empty(len(rows), 0), None, weight)
        if weight is not None:
            losses = losses * weight.mean()
        learned = batch.rows < self.positive_rows
        heads = own.among(learned)
        with part_of(heads.places, int(learned.sum())), self.division.masks():
            extra = self._heads(batch.rows[learned], users[positive], items[positive], heads)
        return own.part(losses, count) + extra + self.division.penalty()


def _check(data: TrainingData, config: Config, losses: tuple[str, ...] | None) -> None:
    """Check that the config and the data fit. losses: those that the sampler can be combined with; None for all."""
    name = f"negatives.type={config.negatives.type}"
    other = "a sampler that draws negatives"
    if losses is not None and config.loss.type not in losses:
        what = f"'{config.loss.type}' compares a positive with its negatives, and {name} draws none."
        hint = f"Use {' or '.join(repr(one) for one in losses)}, or {other}."
        raise ConfigError(Fault("/loss/type", what, hint))
    if data.packer is not None:
        what = f"histories are learned from sequences of interactions, and {name} learns from single labels."
        raise ConfigError(Fault("/features/history", what, f"Leave the history out, or use {other}."))
    if not config.explicit_negatives:
        what = f"without explicit negatives, {name} has only positives to learn from."
        raise ConfigError(Fault("/explicit_negatives", what, f"Set it to true, or use {other}."))
    if not len(data.samples.negatives[0]):
        what = f"{name} learns from explicit negatives, and no training interaction is one."
        hint = f"Give interactions a label of 0, or ratings with data.min_rating, or use {other}."
        raise DataError(Fault("/interactions", what, hint, "no negatives"))

"""Losses over the scores of a positive and its negatives. Each returns sum(weight * loss) / sum(weight).

In the formulas s is the sigmoid. A mean over negatives counts valid negatives only, and is 0 without any.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from anyrec.classifier.catalogue_softmax import CatalogueSoftmax, SharedCatalogueSoftmax
from anyrec.classifier.sliced_softmax import SlicedCatalogueSoftmax
from anyrec.core.config import Component
from anyrec.core.contracts import MASK_VALUE, PARTS, FillMask, Loss, Params
from anyrec.core.params import tunable
from anyrec.core.precision import at_least_float32
from anyrec.core.processes import Processes
from anyrec.core.registry import Registry
from anyrec.core.types import AutogradContext, Json

FAR = 70.0
"""A score this far below the largest has a softmax share of exp(-70) = 4e-31, which counts as zero."""


class BCE(Loss):
    """Binary cross entropy: -log s(positive), plus the mean over valid negatives of -log(1 - s(negative))."""

    type = "bce"

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        losses = functional.softplus(-positive) + mean_of(functional.softplus(negative), valid)
        return mean_over_rows(losses, weight)


class Focal(Loss):
    """Focal loss: binary cross entropy times (1 - p) ** gamma, p the probability of the correct answer.

    References:
        Lin et al., Focal Loss for Dense Object Detection, 2017. There is no factor alpha for the classes; the mean over
        negatives balances them.
    """

    type = "focal"

    class Params(Params):
        gamma: float = Field(
            2.0,
            ge=0,
            le=100,
            description="Exponent; larger values reduce the weight of easy cases, 0 is binary cross entropy.",
            json_schema_extra=tunable(0.0, 5.0),
        )

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        hit = functional.softplus(-positive) * positive.neg().sigmoid() ** self.params.gamma
        miss = functional.softplus(negative) * negative.sigmoid() ** self.params.gamma
        return mean_over_rows(hit + mean_of(miss, valid), weight)


class GBCE(Loss):
    """Generalised binary cross entropy: the positive's probability is raised to the power beta.

    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha) with alpha = negatives / (items - 1). The terms of the negatives
    are summed.

    References:
        Petrov and Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation, 2023.
    """

    type = "gbce"

    class Params(Params):
        t: float = Field(
            0.75,
            ge=0,
            le=1,
            description="Calibration: 0 is binary cross entropy, 1 corrects fully for the sampling of negatives.",
            json_schema_extra=tunable(0.0, 1.0),
        )

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        alpha = min(1.0, negative.shape[1] / max(1, self.num_items - 1)) or 1.0
        beta = alpha * (self.params.t * (1 - 1 / alpha) + 1 / alpha)
        misses = functional.softplus(negative)
        misses = misses if valid is None else torch.where(valid, misses, 0.0)
        return mean_over_rows(beta * functional.softplus(-positive) + misses.sum(1), weight)


class BPR(Loss):
    """Bayesian personalised ranking: the mean over valid negatives of -log s(positive - negative).

    References:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009.
    """

    type = "bpr"

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        return mean_over_rows(mean_of(functional.softplus(negative - positive.unsqueeze(1)), valid), weight)


class Triplet(Loss):
    """The mean over valid negatives of max(0, margin - positive + negative)."""

    type = "triplet"

    class Params(Params):
        margin: float = Field(
            1.0,
            ge=1e-6,
            le=1e6,
            description="Difference of scores from which a pair adds no loss.",
            json_schema_extra=tunable(0.1, 4.0, log=True),
        )

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        gaps = (self.params.margin - positive.unsqueeze(1) + negative).relu()
        return mean_over_rows(mean_of(gaps, valid), weight)


class Contrastive(Loss):
    """Contrastive loss on scores: positives are pulled above `margin`, negatives pushed below -margin.

    (max(0, margin - positive) ** 2 + the mean over valid negatives of max(0, margin + negative) ** 2) / 2.

    References:
        Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006. The paper uses distances of
        vectors, for which only negatives have a margin.
    """

    type = "contrastive"

    class Params(Params):
        margin: float = Field(
            1.0,
            ge=1e-6,
            le=1e6,
            description="Score beyond which a positive or negative adds no loss.",
            json_schema_extra=tunable(0.1, 4.0, log=True),
        )

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        pull = (self.params.margin - positive).relu().square()
        push = mean_of((self.params.margin + negative).relu().square(), valid)
        return mean_over_rows((pull + push) / 2, weight)


class Softmax(Loss):
    """Sampled softmax: -log of the positive's softmax share among itself and its valid negatives.

    log q, the log of the expected number of draws, is subtracted from the score of each negative. The loss then tends
    to the full softmax as the number of negatives grows. With in-batch negatives this is InfoNCE.

    References:
        Bengio and Senecal, Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
        Model, 2008.
    """

    type = "softmax"
    corrected = True

    class Params(Params):
        temperature: float = Field(
            1.0,
            ge=1e-4,
            le=1e4,
            description="Divides the scores, before the correction; smaller values put more weight on hard negatives.",
            json_schema_extra=tunable(0.1, 4.0, log=True),
        )

    def __init__(self, params: Softmax.Params | None = None):
        super().__init__(params)
        self.temperature = self.params.temperature

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        return mean_over_rows(ClosedSoftmax.apply(positive, negative, valid), weight)


class ClosedSoftmax(torch.autograd.Function):
    """-log softmax of the positive, with its gradient, the softmax itself, computed directly.

    Each pass over the (batch, negatives) block takes as long as the matrix product that made it. This takes half as
    many passes as autograd.
    """

    @staticmethod
    def forward(ctx: AutogradContext, positive: Tensor, negative: Tensor, valid: Tensor | None) -> Tensor:
        """Compute the loss of each row.

        Args:
            positive: (batch,) scores.
            negative: (batch, negatives) scores.
            valid: (batch, negatives) bool, False for a negative that must not count. None: all count.

        Returns:
            (batch,).
        """
        if valid is None:
            shares = negative.clone()
        else:
            shares = negative.sub((~valid).to(negative.dtype), alpha=MASK_VALUE)
        highest = torch.maximum(shares.amax(1), positive) if shares.shape[1] else positive
        # exp is slow for numbers whose result is not a normal float. Such shares are negligible: the largest is 1.
        shares.sub_(highest.unsqueeze(1)).clamp_(min=-FAR).exp_()
        functional.threshold_(shares, 2 * math.exp(-FAR), 0.0)
        total = shares.sum(1) + (positive - highest).exp()
        ctx.save_for_backward(shares, total)
        return total.log() + highest - positive

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of the scores: those of the negatives are their shares."""
        (gradient,) = gradients
        shares, total = ctx.saved_tensors
        to_negative = shares * (gradient / total).unsqueeze(1)
        return -to_negative.sum(1), to_negative, None


class InfoNCE(Softmax):
    """InfoNCE: another name of the sampled softmax, with the same logQ correction.

    References:
        van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018.
    """

    type = "infonce"


class FullSoftmax(Softmax):
    """Softmax over all items. The user's other positives do not count as negatives.

    If one user vector predicts several positives (histories without order), these share one softmax: they compete with
    each other, as in a multinomial likelihood, and the user's other positives do not count.

    References:
        Liang et al., Variational Autoencoders for Collaborative Filtering, 2018, for the multinomial likelihood. Unlike
        there, only hidden items are predicted.
    """

    type = "full_softmax"
    corrected = False
    all_items = True
    blockwise = True
    shares_users = True
    slices_items = True

    def over_catalogue(
        self,
        users: Tensor,
        items: Tensor,
        target: Tensor,
        fill_mask: FillMask,
        weight: Tensor | None,
        owners: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss for scores that are dot products, without storing the (batch, items) scores."""
        # Gradients are summed in float32, while matrix products are computed in bfloat16 under autocast.
        scaled, items = at_least_float32(users) / self.temperature, at_least_float32(items)
        share = scaled.new_ones(len(target)) if weight is None else weight.to(scaled.dtype)
        share = share / share.sum().clamp(min=1e-12)
        if owners is not None:
            return SharedCatalogueSoftmax.apply(scaled, items, target, owners, fill_mask, share)
        return CatalogueSoftmax.apply(scaled, items, target, fill_mask, share)

    def over_slice(
        self,
        users: Tensor,
        items: Tensor,
        first: int,
        target: Tensor,
        owners: Tensor,
        fill_mask: FillMask,
        weight: Tensor | None,
        processes: Processes,
    ) -> Tensor:
        """Compute the loss of this process's positives, with the slices of all processes."""
        scaled, items = at_least_float32(users) / self.temperature, at_least_float32(items)
        share = scaled.new_ones(len(target)) if weight is None else weight.to(scaled.dtype)
        share = share / processes.sum(share.sum()).clamp(min=1e-12)
        return SlicedCatalogueSoftmax.apply(scaled, items, first, target, owners, fill_mask, share, processes)


class Part(Component):
    """One loss of a sum; the other keys are the loss's own options."""

    weight: float = Field(default=1.0, ge=0, le=1e6, description="Weight of the loss.")


class Combined(Loss):
    """A weighted sum of losses, each with its own options. No scores have the logQ correction.

    If a part compares with all items, all parts do.
    """

    type = "combined"

    class Params(Params):
        parts: list[Part] = Field(
            default_factory=lambda: [Part(type="bce"), Part(type="contrastive", weight=0.5)],
            min_length=1,
            max_length=100,
            description="Losses by `type`, each with `weight` and its own options; or an object of weights by name.",
            json_schema_extra={PARTS: "loss"},
        )

        @field_validator("parts", mode="before")
        @classmethod
        def _by_name(cls, parts: Json) -> Json:
            if not isinstance(parts, dict):
                return parts
            options = {name: one if isinstance(one, dict) else {"weight": one} for name, one in parts.items()}
            return [{"type": name, **one} for name, one in options.items()]

    def build(self, registry: Registry) -> None:
        made: list[Loss] = []
        for choice in self._choices:
            params = registry.params("loss", choice.type, choice.options())
            made.append(registry.get("loss", choice.type)(params))
            made[-1].build(registry)
        self.parts = nn.ModuleList(made)
        self.all_items = any(part.all_items for part in made)

    @property
    def _choices(self) -> list[Part]:
        return self.params.parts

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        losses = []
        for choice, part in zip(self._choices, self.parts, strict=True):
            assert isinstance(part, Loss)
            part.num_items = self.num_items
            scores = positive / part.temperature, negative / part.temperature
            losses.append(choice.weight * part(*scores, valid, weight))
        return torch.stack(losses).sum()


def mean_of(losses: Tensor, valid: Tensor | None) -> Tensor:
    """Return (batch,), the mean of `losses: (batch, negatives)` over the valid ones; 0 for a row without any."""
    if valid is None:
        return losses.mean(1) if losses.shape[1] else losses.sum(1)
    return torch.where(valid, losses, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def mean_over_rows(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighted mean of `losses: (batch,)`."""
    if weight is None:
        return losses.mean()
    return (losses * weight).sum() / weight.sum().clamp(min=1e-12)

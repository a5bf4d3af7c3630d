"""Losses over the scores of a positive and its negatives. Each returns sum(weight * loss) / sum(weight)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import MASK_VALUE, FillMask, Loss, Params
from anyrec.core.parallel import on_threads, shares_of

FAR = 70.0
"""So far below the largest score, a softmax share counts as zero: 4e-31."""

SMALLEST = 1e-37
"""Shares of a softmax are taken for no smaller when their log is."""


class BCE(Loss):
    """Binary cross entropy: the positive's -log s(x), plus the mean over its valid negatives of -log(1 - s(x))."""

    type = "bce"

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        losses = functional.softplus(-positive) + mean_of(functional.softplus(negative), valid)
        return mean_over_rows(losses, weight)


class Focal(Loss):
    """Focal loss (Lin et al., 2017): cross entropy times (1 - p)^gamma, p the probability of the right answer."""

    type = "focal"

    class Params(Params):
        gamma: float = Field(2.0, ge=0, le=100, description="How much the easy cases count less.")

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        hit = functional.softplus(-positive) * positive.neg().sigmoid() ** self.params.gamma
        miss = functional.softplus(negative) * negative.sigmoid() ** self.params.gamma
        return mean_over_rows(hit + mean_of(miss, valid), weight)


class GBCE(Loss):
    """Generalised cross entropy (Petrov and Macdonald, gSASRec, 2023): the positive's probability to the power beta.

    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha), alpha = negatives / (items - 1); t = 0 is plain cross entropy.
    The negatives' terms are summed, as in the paper.
    """

    type = "gbce"

    class Params(Params):
        t: float = Field(0.75, ge=0, le=1, description="Calibration.")

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        alpha = min(1.0, negative.shape[1] / max(1, self.num_items - 1)) or 1.0
        beta = alpha * (self.params.t * (1 - 1 / alpha) + 1 / alpha)
        misses = functional.softplus(negative)
        misses = misses if valid is None else torch.where(valid, misses, 0.0)
        return mean_over_rows(beta * functional.softplus(-positive) + misses.sum(1), weight)


class BPR(Loss):
    """Bayesian personalised ranking (Rendle et al., 2009): the mean over valid negatives of -log s(positive - negative)."""

    type = "bpr"

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        return mean_over_rows(mean_of(functional.softplus(negative - positive.unsqueeze(1)), valid), weight)


class Triplet(Loss):
    """The mean over valid negatives of max(0, margin - positive + negative)."""

    type = "triplet"

    class Params(Params):
        margin: float = Field(1.0, ge=1e-6, le=1e6)

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        gaps = (self.params.margin - positive.unsqueeze(1) + negative).relu()
        return mean_over_rows(mean_of(gaps, valid), weight)


class Contrastive(Loss):
    """Contrastive loss (Hadsell et al., 2006) on scores: positives are pulled above `margin`, negatives pushed below -margin.

    max(0, margin - positive)^2 plus the mean over valid negatives of max(0, margin + negative)^2, halved.
    """

    type = "contrastive"

    class Params(Params):
        margin: float = Field(1.0, ge=1e-6, le=1e6)

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        pull = (self.params.margin - positive).relu().square()
        push = mean_of((self.params.margin + negative).relu().square(), valid)
        return mean_over_rows((pull + push) / 2, weight)


class Softmax(Loss):
    """Sampled softmax: -log of the positive's share among itself and its valid negatives.

    With the negatives' scores less log q (Bengio and Senecal, 2008) it tends to the full softmax as negatives grow. With in-batch negatives this is InfoNCE.
    """

    type = "softmax"
    corrected = True

    class Params(Params):
        temperature: float = Field(1.0, ge=1e-4, le=1e4, description="Scores are divided by it before the correction.")

    def __init__(self, params: Softmax.Params | None = None):
        super().__init__(params)
        self.temperature = self.params.temperature

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        return mean_over_rows(ClosedSoftmax.apply(positive, negative, valid), weight)


class ClosedSoftmax(torch.autograd.Function):
    """-log softmax of the positive, with its gradient (the softmax itself) written down instead of traced: each pass
    over the block costs as much as the products that made it, and this takes half as many."""

    @staticmethod
    def forward(ctx: Any, positive: Tensor, negative: Tensor, valid: Tensor | None) -> Tensor:
        """positive: (batch,); negative, valid: (batch, negatives) -> (batch,)."""
        if valid is None:
            shares = negative.clone()
        else:
            shares = negative.sub((~valid).to(negative.dtype), alpha=MASK_VALUE)
        highest = torch.maximum(shares.amax(1), positive) if shares.shape[1] else positive
        # Exponentials of huge negative numbers take a slow path; these are too small to count beside the largest, 1.
        shares.sub_(highest.unsqueeze(1)).clamp_(min=-FAR).exp_()
        functional.threshold_(shares, 2 * math.exp(-FAR), 0.0)
        total = shares.sum(1) + (positive - highest).exp()
        ctx.save_for_backward(shares, total)
        return total.log() + highest - positive

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        shares, total = ctx.saved_tensors
        to_negative = shares * (gradient / total).unsqueeze(1)
        return -to_negative.sum(1), to_negative, None


class InfoNCE(Softmax):
    """InfoNCE (van den Oord et al., 2018): the sampled softmax under its other name, with the same correction."""

    type = "infonce"


class FullSoftmax(Softmax):
    """Softmax over the whole catalogue. The user's other positives do not count as negatives."""

    type = "full_softmax"
    corrected = False
    all_items = True
    blockwise = True

    def over_catalogue(
        self, users: Tensor, items: Tensor, target: Tensor, fill_mask: FillMask, weight: Tensor | None
    ) -> Tensor:
        """The same loss where scores are dot products, block by block: (batch, items) scores are never kept.

        users: (batch, dim); items: (items, dim); target: (batch,) rows of `items`; weight: (batch,).
        fill_mask: Masks the items that are no negatives; it may mask the target, which counts all the same.
        """
        share = torch.full_like(target, 1.0, dtype=torch.float32) if weight is None else weight
        share = share / share.sum().clamp(min=1e-12)
        # Gradients are summed in float32; products are still taken in bfloat16 under autocast.
        return CatalogueSoftmax.apply(users.float() / self.temperature, items.float(), target, fill_mask, share)


CELLS_AT_A_TIME = {"cpu": 600_000, "cuda": 1 << 27}
"""Scores made at once: 2.4 MB on a processor, so that they stay in its cache (a tenth faster than 4 MB, a third than 16 MB)."""


class CatalogueSoftmax(torch.autograd.Function):
    """sum(share * -log softmax of the target) of dot products, its gradients made with it: three matrix products a block and one
    pass over its scores, which are then still in the cache. benchmarks/sequence.py --parts compares it with autograd's."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, target: Tensor, fill_mask: FillMask, share: Tensor) -> Tensor:
        wanted, weighed = items[target], users * share[:, None]
        positive, own = (users * wanted).sum(1, keepdim=True), share.new_empty(len(users), 1)
        to_users, place = torch.empty_like(users), target[:, None]
        parts, rows = shares_of(len(users), users.device), max(16, CELLS_AT_A_TIME[users.device.type] // len(items))
        to_items = items.new_zeros(len(parts), *items.shape)
        # One block of scores a thread for all its rows, so that it stays in the cache.
        kept = share.new_empty(len(parts), min(rows, len(users)), len(items))

        def gradients(part: int) -> None:
            """Fills in what the rows of one share are to have."""
            for low in range(parts[part].start, parts[part].stop, rows):
                here = slice(low, min(low + rows, parts[part].stop))
                block, column = users[here], place[here]
                scores = kept[part, : len(block)]
                fill_mask(here.start, here.stop, scores)
                add_products(scores, block, items).scatter_(1, column, positive[here])
                torch.softmax(scores, 1, out=scores)
                torch.gather(scores, 1, column, out=own[here])
                shares = scores.to(product_type(block))
                to_users[here] = shares @ items
                add_products(to_items[part], shares.T, weighed[here].T)

        on_threads(gradients, range(len(parts)))
        to_items = to_items.sum(0)
        total = -(share * own[:, 0].clamp(min=SMALLEST).log()).sum()
        to_users.sub_(wanted).mul_(share[:, None])
        to_items.index_add_(0, target, weighed, alpha=-1)
        ctx.save_for_backward(to_users, to_items)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        to_users, to_items = ctx.saved_tensors
        return to_users * gradient, to_items * gradient, None, None, None


def add_products(scores: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """scores: (batch, items) float32, to which the dot products are added in place."""
    if product_type(users) == torch.float32:
        return scores.addmm_(users, items.T)
    return scores.add_(users @ items.T)


def product_type(values: Tensor) -> torch.dtype:
    """In what matrix products are taken: bfloat16 under autocast."""
    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else values.dtype


class Combined(Loss):
    """A weighted sum of several losses by name; a part that wants corrected scores is given them as they are."""

    type = "combined"

    class Params(Params):
        parts: dict[
            Literal["bce", "focal", "gbce", "bpr", "triplet", "contrastive", "softmax", "infonce"],
            Annotated[float, Field(ge=0, le=1e6)],
        ] = Field(
            default_factory=lambda: {"bce": 1.0, "contrastive": 0.5},
            min_length=1,
            description="Losses of this file, each with its weight.",
        )

    def __init__(self, params: Combined.Params | None = None):
        super().__init__(params)
        known = {cls.type: cls for cls in (BCE, Focal, GBCE, BPR, Triplet, Contrastive, Softmax, InfoNCE)}
        self.parts = nn.ModuleDict({name: known[name]() for name in self.params.parts})

    def forward(self, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
        losses = []
        for name, part in self.parts.items():
            assert isinstance(part, Loss)
            part.num_items = self.num_items
            losses.append(self.params.parts[name] * part(positive, negative, valid, weight))
        return torch.stack(losses).sum()


def mean_of(losses: Tensor, valid: Tensor | None) -> Tensor:
    """losses: (batch, negatives) -> (batch,) mean over the valid ones; 0 where there is none."""
    if valid is None:
        return losses.mean(1) if losses.shape[1] else losses.sum(1)
    return torch.where(valid, losses, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def mean_over_rows(losses: Tensor, weight: Tensor | None) -> Tensor:
    """losses: (batch,) -> their weighted mean."""
    if weight is None:
        return losses.mean()
    return (losses * weight).sum() / weight.sum().clamp(min=1e-12)

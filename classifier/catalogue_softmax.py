"""The softmax over the whole catalogue, its loss and gradients computed together, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from anyrec.core.contracts import FillMask
from anyrec.core.parallel import on_threads, shares_of
from anyrec.core.types import AutogradContext

CELLS_AT_A_TIME = {"cpu": 600_000, "cuda": 1 << 27}
"""Scores of a block. On a CPU they take 2.4 MB and stay in its cache: 10 % faster than 4 MB, 33 % than 16 MB."""
LEAST_ROWS = 16
"""Rows of a block, at least, however large the catalogue is: a matrix product of fewer is slow."""
SMALLEST = 1e-37
"""Lower bound of a probability in a log: about the smallest normal float32."""


class CatalogueSoftmax(torch.autograd.Function):
    """sum(share * -log softmax of the target) over dot products, without storing the (batch, items) scores.

    With p the softmax of a user's scores, the gradients of one row are share * (p @ items - items[target]) for the
    user, share * p[i] * user for item i, and - share * user for the target. They need p, so they are computed in the
    forward pass: three matrix products for each block and one pass over its scores, while these are in the cache.
    Autograd would read and write all scores several times. `benchmarks/sequence.py --parts` compares both.
    """

    @staticmethod
    def forward(
        ctx: AutogradContext, users: Tensor, items: Tensor, target: Tensor, fill_mask: FillMask, share: Tensor
    ) -> Tensor:
        """Compute the loss, and keep its gradients for `backward`.

        Args:
            users: (batch, dim) float32.
            items: (items, dim) float32.
            target: (batch,) rows of the positives in `items`.
            fill_mask: Masks the items that are no negatives. It may mask the target, which counts all the same.
            share: (batch,) weight of each row; the weights sum to 1.

        Returns:
            A scalar.
        """
        wanted, weighted = items[target], users * share[:, None]  # both (batch, dim)
        positive, probability = (users * wanted).sum(1, keepdim=True), share.new_empty(len(users), 1)
        to_users, column = torch.empty_like(users), target[:, None]
        # Each thread has a part of the rows, a buffer for the scores of one block, and a gradient of the items.
        parts = shares_of(len(users), users.device)
        rows = max(LEAST_ROWS, CELLS_AT_A_TIME[users.device.type] // len(items))
        to_items = items.new_zeros(len(parts), *items.shape)
        buffers = share.new_empty(len(parts), min(rows, len(users)), len(items))

        def gradients(part: int) -> None:
            """Write the gradients and the target's probabilities of one part of the rows."""
            for low in range(parts[part].start, parts[part].stop, rows):
                here = slice(low, min(low + rows, parts[part].stop))
                block, places = users[here], column[here]
                scores = buffers[part, : len(block)]  # (rows, items)
                fill_mask(here.start, here.stop, scores)
                add_products(scores, block, items).scatter_(1, places, positive[here])  # the target is never masked
                torch.softmax(scores, 1, out=scores)
                torch.gather(scores, 1, places, out=probability[here])
                p = scores.to(product_type(block))
                to_users[here] = p @ items
                add_products(to_items[part], p.T, weighted[here].T)

        on_threads(gradients, range(len(parts)))
        total = -(share * probability[:, 0].clamp(min=SMALLEST).log()).sum()
        to_users.sub_(wanted).mul_(share[:, None])
        summed = to_items.sum(0)  # in the order of the parts, so the same on every run
        summed.index_add_(0, target, weighted, alpha=-1)
        ctx.save_for_backward(to_users, summed)
        return total

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of `forward` by that of the loss."""
        (gradient,) = gradients
        to_users, to_items = ctx.saved_tensors
        return to_users * gradient, to_items * gradient, None, None, None


class SharedCatalogueSoftmax(torch.autograd.Function):
    """As `CatalogueSoftmax`, for users with several targets each, which share the scores of their user.

    With p the softmax of a user's scores and w the sum of the shares of the user's targets, the gradients are
    w * p @ items - sum(share * items[target]) for the user, and w * p[i] * user for item i, less share * user for each
    target.
    """

    @staticmethod
    def forward(
        ctx: AutogradContext,
        users: Tensor,
        items: Tensor,
        target: Tensor,
        owners: Tensor,
        fill_mask: FillMask,
        share: Tensor,
    ) -> Tensor:
        """Compute the loss, and keep its gradients for `backward`.

        Args:
            users: (users, dim) float32.
            items: (items, dim) float32.
            target: (positives,) rows of the positives in `items`.
            owners: (positives,) int64, ascending, the row of `users` that predicts each positive.
            fill_mask: Masks the items that are no negatives, for rows of `users`. It may mask targets.
            share: (positives,) weight of each positive; the weights sum to 1.

        Returns:
            A scalar.
        """
        count = len(items)
        weighted = users * share.new_zeros(len(users)).index_add_(0, owners, share)[:, None]  # (users, dim)
        to_users, probability = torch.empty_like(users), torch.empty_like(share)
        parts = shares_of(len(users), users.device)
        rows = max(LEAST_ROWS, CELLS_AT_A_TIME[users.device.type] // count)
        to_items = items.new_zeros(len(parts), *items.shape)
        buffers = share.new_empty(len(parts), min(rows, len(users)), count)
        begins = torch.searchsorted(owners, torch.arange(len(users) + 1, device=owners.device)).tolist()
        cells = owners * count + target

        def gradients(part: int) -> None:
            """Write the gradients and the targets' probabilities of one part of the users."""
            for low in range(parts[part].start, parts[part].stop, rows):
                here = slice(low, min(low + rows, parts[part].stop))
                own = slice(begins[here.start], begins[here.stop])
                block, places = users[here], cells[own] - low * count
                scores = buffers[part, : len(block)]  # (rows, items)
                fill_mask(here.start, here.stop, scores)
                scores.view(-1).index_fill_(0, places, 0.0)  # a target is never masked
                torch.softmax(add_products(scores, block, items), 1, out=scores)
                torch.index_select(scores.view(-1), 0, places, out=probability[own])
                p = scores.to(product_type(block))
                to_users[here] = p @ items
                add_products(to_items[part], p.T, weighted[here].T)

        on_threads(gradients, range(len(parts)))
        total = -(share * probability.clamp(min=SMALLEST).log()).sum()
        to_users.mul_(share.new_zeros(len(users)).index_add_(0, owners, share)[:, None])
        to_users.index_add_(0, owners, items[target] * share[:, None], alpha=-1)
        summed = to_items.sum(0)  # in the order of the parts, so the same on every run
        summed.index_add_(0, target, users[owners] * share[:, None], alpha=-1)
        ctx.save_for_backward(to_users, summed)
        return total

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of `forward` by that of the loss."""
        (gradient,) = gradients
        to_users, to_items = ctx.saved_tensors
        return to_users * gradient, to_items * gradient, None, None, None, None


def add_products(scores: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add left @ right.T to `scores`, in place.

    Args:
        scores: (rows, columns) float32.
        left: (rows, dim), which may have the product's type.
        right: (columns, dim).
    """
    if product_type(left) == torch.float32:
        return scores.addmm_(left, right.T)
    return scores.add_(left @ right.T)


def product_type(values: Tensor) -> torch.dtype:
    """Return the type in which matrix products are computed: bfloat16 under autocast, else that of `values`."""
    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else values.dtype

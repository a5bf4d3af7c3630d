"""The softmax over a catalogue whose items are divided over processes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from anyrec.classifier.catalogue_softmax import CELLS_AT_A_TIME, LEAST_ROWS, SMALLEST, add_products, product_type
from anyrec.core.contracts import FillMask
from anyrec.core.parallel import on_threads, shares_of
from anyrec.core.processes import Processes
from anyrec.core.types import AutogradContext


class SlicedCatalogueSoftmax(torch.autograd.Function):
    """As `SharedCatalogueSoftmax`, for processes that each have some of the users and a slice of the items.

    Each process computes the scores of all users with its own slice. For each user, the processes exchange the largest
    score and the sum of the exponentials, from which each knows the softmax p of its slice. With w the sum of the
    shares of a user's targets, w * p @ items, summed over the slices, is the gradient of the user, and w * p[i] * user
    that of item i, which only the process of the item needs. Both are without the targets' own terms. Traffic grows
    with users x dim, not with items x dim.

    References:
        Shoeybi et al., Megatron-LM, 2019, section 3 (cross entropy parallel over the vocabulary). There the scores of
        the whole batch are stored; here those of one block.
    """

    @staticmethod
    def forward(
        ctx: AutogradContext,
        users: Tensor,
        items: Tensor,
        first: int,
        target: Tensor,
        owners: Tensor,
        fill_mask: FillMask,
        share: Tensor,
        processes: Processes,
    ) -> Tensor:
        """Compute the loss of this process's positives, and keep the gradients for `backward`.

        Args:
            users: (users, dim) of this process.
            items: (slice, dim) of this process; the slices of all processes are the catalogue.
            first: Row of the first of `items` in the catalogue.
            target: (positives,) rows of this process's positives in the catalogue.
            owners: (positives,) int64, ascending, the row of `users` that predicts each positive.
            fill_mask: Masks the items of the slice that are no negatives, for rows of the users of all processes, in
                the order of the processes. It may mask targets.
            share: (positives,) weight of each positive; those of all processes sum to 1.
            processes: The processes, which call this together.

        Returns:
            A scalar. Its sum over the processes is the loss, and `backward` returns the gradients of that sum.
        """
        own_counts = torch.tensor([[len(users), len(target)]], device=users.device)
        counts = processes.gather(own_counts, [1] * processes.size)  # (processes, 2)
        (user_counts, counts_of_targets), starts = counts.T.tolist(), counts.cumsum(0) - counts
        every = processes.gather(users, user_counts)  # (all users, dim)
        target, share = (processes.gather(part, counts_of_targets) for part in (target, share))
        owners = processes.gather(owners + starts[processes.rank, 0], counts_of_targets)
        weights = share.new_zeros(len(every)).index_add_(0, owners, share)
        here = ((target >= first) & (target < first + len(items))).nonzero().squeeze(1)
        targets = Targets(target[here] - first, owners[here], share[here])

        part = _Slice(every, items, targets, weights)
        to_users, to_items = part.gradients(fill_mask, processes)
        scores = processes.sum(torch.zeros_like(share).index_copy_(0, here, part.positive))
        losses = share * (part.log_total[owners] - scores).clamp(max=-math.log(SMALLEST))

        low, begin = starts[processes.rank].tolist()
        ctx.save_for_backward(processes.sum(to_users)[low : low + len(users)].clone(), to_items)
        return losses[begin : begin + counts_of_targets[processes.rank]].sum()

    @staticmethod
    def backward(ctx: AutogradContext, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients of `forward` by that of the loss, which must be the same in all processes."""
        (gradient,) = gradients
        to_users, to_items = ctx.saved_tensors
        # In place, since a copy can take as much memory as the slice: a second backward pass is an error.
        return to_users * gradient, to_items.mul_(gradient), None, None, None, None, None, None


class Targets(NamedTuple):
    """The positives whose items are in a slice.

    Attributes:
        items: (positives,) rows in the slice.
        owners: (positives,) int64, ascending, the row of the user that predicts each.
        share: (positives,) their weights.
    """

    items: Tensor
    owners: Tensor
    share: Tensor


class _Slice:
    """One slice's part in the softmax over all slices.

    Args:
        users: (users, dim) of all processes.
        items: (slice, dim).
        targets: The positives in the slice.
        weights: (users,) the sum of the shares of each user's targets.

    Attributes:
        positive: (positives,) the scores of the targets.
        log_total: (users,) the log of the sum of each user's exponentials, over all slices.
    """

    def __init__(self, users: Tensor, items: Tensor, targets: Targets, weights: Tensor):
        self.users, self.items, self.targets, self.weights = users, items, targets, weights
        self.weighted = users * weights[:, None]
        self.positive = torch.empty_like(targets.share)
        self.log_total, self.largest, self.sums = weights.new_empty(
            3, len(users)
        ).unbind()  # the last two: of the slice
        self.to_users = torch.zeros_like(users)
        # Each thread computes a block at a time, with a buffer for its scores and a gradient of the items.
        count, threads = len(items), len(shares_of(len(users), users.device))
        rows = max(LEAST_ROWS, CELLS_AT_A_TIME[users.device.type] // max(1, count))
        self.rows = max(1, min(rows, math.ceil(len(users) / threads)))
        self.to_items = items.new_zeros(threads, *items.shape)
        self.buffers = weights.new_empty(threads, self.rows, count)
        self.cells = targets.owners * count + targets.items
        ends = torch.arange(len(users) + 1, device=users.device)
        self.begins = torch.searchsorted(targets.owners, ends).tolist()

    def gradients(self, fill_mask: FillMask, processes: Processes) -> tuple[Tensor, Tensor]:
        """Compute the slice's part in the gradients of the users, and the gradients of its items.

        Args:
            fill_mask: Masks the items of the slice that are no negatives.
            processes: The processes, of which each has a slice.

        Returns:
            (users, dim) and (slice, dim).
        """
        threads, count = self.to_items.shape[:2]
        # Slices of other lengths have blocks of other sizes, and all processes have to exchange the same users.
        own_step = torch.tensor([threads * self.rows], device=self.users.device)
        step = int(processes.gather(own_step, [1] * processes.size).min())
        for low in range(0, len(self.users), step):
            high = min(low + step, len(self.users))
            starts = range(low, high, self.rows)
            blocks = [(thread, slice(at, min(at + self.rows, high))) for thread, at in enumerate(starts)]
            if count:
                on_threads(lambda block: self._exponentials(*block, fill_mask), blocks)
            else:
                self.largest[low:high], self.sums[low:high] = -math.inf, 0.0
            local = torch.stack([self.largest[low:high], self.sums[low:high]])[None]
            largest, sums = processes.gather(local, [1] * processes.size).unbind(1)  # (processes, block) each
            highest = largest.amax(0)
            self.log_total[low:high] = highest + (sums * (largest - highest).exp()).sum(0).log()
            if count:
                on_threads(lambda block: self._gradients(*block), blocks)
        items, owners, share = self.targets
        summed = self.to_items[0]
        for more in self.to_items[1:]:  # in the order of the threads, so the same on every run
            summed += more
        summed.index_add_(0, items, self.users[owners] * share[:, None], alpha=-1)
        self.to_users.index_add_(0, owners, self.items[items] * share[:, None], alpha=-1)
        return self.to_users, summed

    def _exponentials(self, thread: int, here: slice, fill_mask: FillMask) -> None:
        """Write exp(score - largest) of a block into the buffer of a thread, and the scores of its targets."""
        own = slice(self.begins[here.start], self.begins[here.stop])
        scores, places = self.buffers[thread, : here.stop - here.start], self.cells[own] - here.start * len(self.items)
        fill_mask(here.start, here.stop, scores)
        scores.view(-1).index_fill_(0, places, 0.0)  # a target is never masked
        add_products(scores, self.users[here], self.items)
        torch.index_select(scores.view(-1), 0, places, out=self.positive[own])
        largest = torch.amax(scores, 1, out=self.largest[here])
        torch.sum(scores.sub_(largest[:, None]).exp_(), 1, out=self.sums[here])

    def _gradients(self, thread: int, here: slice) -> None:
        """Add the gradients of a block, from the exponentials in the buffer of a thread."""
        scale = (self.largest[here] - self.log_total[here]).exp()[:, None]  # softmax = scale * exponentials
        exponentials = self.buffers[thread, : here.stop - here.start].to(product_type(self.users))
        self.to_users[here] = exponentials @ self.items * (scale * self.weights[here, None])
        add_products(self.to_items[thread], exponentials.T, (self.weighted[here] * scale).T)

"""The loss of one batch: encode, sample, score, compare."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import MASK_VALUE, Loss, Negatives, Sampler
from anyrec.core.hardware import multiplies_bf16
from anyrec.core.registry import Registry
from anyrec.core.windows import Batch, PackedSequences
from anyrec.data.positives import Positives
from anyrec.model.towers import IDENTITY, Columns, Given, Model, Tower
from anyrec.training.samples import Samples, TrainingData

TABLE_CELLS = 1 << 22
"""If the users of a step times the items are no more than this (16 MB), the mask is made once for each user and copied
to the rows of their positives: the positives of a history come user by user."""


class Stepper:
    """The loss of one batch of positives."""

    def __init__(
        self, model: Model, data: TrainingData, config: Config, registry: Registry, generator: torch.Generator
    ):
        self.model, self.data, self.generator = model, data, generator
        self.ratio = config.negative_ratio
        params = registry.params("loss", config.loss.type, config.loss.options(), "/loss")
        self.objective: Loss = registry.get("loss", config.loss.type)(params)
        self.objective.num_items = data.num_items
        samples = data.samples
        self.rows = len(samples.users)
        self.positives = Positives(samples.users, samples.items, data.num_users, data.num_items)
        params = registry.params("sampler", config.negatives.type, config.negatives.options(), "/negatives")
        self.sampler: Sampler = registry.get("sampler", config.negatives.type)(self.positives, params)
        self.explicit = (
            Explicit(samples, data.num_users) if config.explicit_negatives and len(samples.negatives[0]) else None
        )
        self.precision = _autocast(config, samples.users.device)
        if self.objective.all_items:
            self.sampler.group_size = 1

    def loss(self, batch: Batch) -> Tensor:
        """The mean over the batch of weight * loss, the losses of heads and fusions added.

        Weights have mean 1 over the whole training set. Losses divide by the batch's sum of weights, so the result is
        multiplied by the batch's mean weight: a batch of light positives then moves the model less, and with one
        positive a step weights count as they do with many.
        """
        batch = self._in_groups(batch)
        samples, model, rows = self.data.samples, self.model, batch.rows
        users, items = samples.users[rows], samples.items[rows]
        weight = None if samples.weights is None else samples.weights[rows]
        blocked = self._by_blocks()
        drawn = None if blocked else self._negatives(users, items)
        with self.precision:
            item_vectors, negative_vectors, given = self._items(items, drawn, batch)
            user_vectors = self._users(users, given)
            if drawn is None:
                main = self._over_catalogue(user_vectors, negative_vectors[0], users, items, weight)
            else:
                main = self._over_sample(user_vectors, item_vectors, negative_vectors, drawn, users, weight)
        if weight is not None:
            main = main * weight.mean()
        penalty = model.user.fusion.take_penalty() + model.item.fusion.take_penalty()
        return main + self._heads(rows, user_vectors, item_vectors) + penalty

    def _in_groups(self, batch: Batch) -> Batch:
        """For negatives that the batch shares, positives of a stream are shuffled, so that they are not all of one
        user, and filled up to whole groups."""
        group, count = self.sampler.group_size, len(batch.rows)
        if batch.read is None or batch.events is None or group == 1:
            return batch
        group = min(group, count)
        order = torch.randperm(count, generator=self.generator, device=batch.rows.device)
        order = torch.cat([order, order[: -count % group]])
        return Batch(batch.rows[order], batch.windows, batch.read[order], batch.events[order])

    def _by_blocks(self) -> bool:
        """Whether the loss takes the catalogue block by block, and no score is kept."""
        return (
            self.objective.all_items
            and self.model.interaction.factorised
            and self.explicit is None
            and self.objective.blockwise
        )

    @property
    def shares_all(self) -> bool:
        """Whether all but a little of a step is shared out to threads: ids of items, histories of users and the loss are all there is."""
        model, histories = self.model, self.model.user.histories
        return (
            self._by_blocks()
            and not model.heads
            and _only_ids(model.item)
            and model.user.features == list(histories)
            and all(one.by_shares for one in histories.values())
        )

    def _over_catalogue(
        self, users: Tensor, items: Tensor, user_rows: Tensor, targets: Tensor, weight: Tensor | None
    ) -> Tensor:
        """users: (batch, dim); items: (items, dim)."""
        distinct, place = torch.unique(user_rows, return_inverse=True)
        table = None
        if len(distinct) * self.data.num_items <= TABLE_CELLS:
            table = self.positives.fill(
                distinct, users.new_empty(len(distinct), self.data.num_items, dtype=torch.float32), -MASK_VALUE, 0.0
            )

        def fill_mask(low: int, high: int, scores: Tensor) -> Tensor:
            if table is not None:
                return torch.index_select(table, 0, place[low:high], out=scores)
            return self.positives.fill(user_rows[low:high], scores, -MASK_VALUE, 0.0)

        left, right = self.model.interaction.user_vectors(users), self.model.interaction.item_vectors(items)
        return self.objective.over_catalogue(left, right, targets, fill_mask, weight)

    def _over_sample(
        self,
        users: Tensor,
        items: Tensor,
        negatives: Tensor,
        drawn: Negatives,
        user_rows: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        """users, items: (batch, ...); negatives: (groups, negatives, ...)."""
        positive = self.model.score(users, items.unsqueeze(1)).squeeze(1).float()
        negative = score_groups(self.model, users, negatives).float()
        if self.explicit is not None:
            negative, drawn = self._with_explicit(negative, drawn, user_rows, users)
        if drawn.valid is not None and self.sampler.keep_hardest:
            negative, drawn = _hardest(negative, drawn, self.ratio)
        if self.objective.temperature != 1.0:
            positive, negative = positive / self.objective.temperature, negative / self.objective.temperature
        if self.objective.corrected and drawn.log_q is not None:
            groups = len(drawn.log_q)
            negative = (negative.view(groups, -1, negative.shape[1]) - drawn.log_q.unsqueeze(1)).view_as(negative)
        return self.objective(positive, negative, drawn.valid, weight)

    def _negatives(self, users: Tensor, items: Tensor) -> Negatives:
        if not self.objective.all_items:
            return self.sampler.sample(users, items, self.ratio, self.generator)
        every = torch.arange(self.data.num_items, device=users.device).unsqueeze(0)
        valid = torch.empty(len(users), self.data.num_items, dtype=torch.bool, device=users.device)
        return Negatives(every, self.positives.fill(users, valid, False, True), None)

    def _users(self, users: Tensor, given: Given) -> Tensor:
        if given:
            return self.model.represent("user", self.data.users, users, given=given)
        return encode(self.model, "user", self.data.users, users)

    def _items(self, items: Tensor, drawn: Negatives | None, batch: Batch) -> tuple[Tensor, Tensor, Given]:
        """Representations of the positives (batch, ...) and of the negatives (groups, negatives, ...), and the users'
        features that are made of item vectors. drawn: None for the whole catalogue."""
        columns, model, windows = self.data.items, self.model, batch.windows
        if drawn is None or self.objective.all_items:
            every = torch.arange(self.data.num_items, device=items.device)
            vectors = model.represent("item", columns, every)
            return vectors.index_select(0, items), vectors.unsqueeze(0), self._histories(batch, windows, vectors, every)
        if windows is None and drawn.items.numel() == items.numel() and drawn.items.data_ptr() == items.data_ptr():
            vectors = encode(model, "item", columns, items)  # in-batch: the same rows
            return vectors, vectors.view(*drawn.items.shape, *vectors.shape[1:]), {}
        wanted = [items, drawn.items.flatten()]
        if windows is None:
            vectors = encode(model, "item", columns, torch.cat(wanted))
            positive, negative = vectors[: len(items)], vectors[len(items) :]
            return positive, negative.view(*drawn.items.shape, *vectors.shape[1:]), {}
        distinct, place = torch.unique(torch.cat([*wanted, windows.items.flatten().clamp(min=0)]), return_inverse=True)
        vectors = model.represent("item", columns, distinct)
        positive, negative, seen = place.split([len(items), drawn.items.numel(), windows.items.numel()])
        windows = windows._replace(items=torch.where(windows.items >= 0, seen.view_as(windows.items), -1))
        negatives = vectors[negative].view(*drawn.items.shape, *vectors.shape[1:])
        return vectors[positive], negatives, self._histories(batch, windows, vectors, distinct)

    def _histories(self, batch: Batch, windows: PackedSequences | None, vectors: Tensor, rows: Tensor) -> Given:
        """windows: its items are places in `rows`, the rows of `vectors`."""
        if windows is None:
            return {}
        model, batch = self.model, batch._replace(windows=windows)
        if model.interaction.reads == "tokens":
            vectors = model.item(self.data.items, rows)
        columns = self.data.users
        return {name: one.before(batch, columns[name].values, vectors) for name, one in model.user.histories.items()}

    def _with_explicit(
        self, negative: Tensor, drawn: Negatives, users: Tensor, user_vectors: Tensor
    ) -> tuple[Tensor, Negatives]:
        """One more column: an item that the user was seen to dislike, where there is one."""
        assert self.explicit is not None
        items, there = self.explicit.draw(users, self.generator)
        vectors = encode(self.model, "item", self.data.items, items)
        extra = self.model.score(user_vectors, vectors.unsqueeze(1)).float()
        valid = torch.ones_like(negative, dtype=torch.bool) if drawn.valid is None else drawn.valid
        log_q = drawn.log_q
        if log_q is not None:
            log_q = log_q.repeat_interleave(len(negative) // len(log_q), 0).expand_as(negative)
            log_q = torch.cat([log_q, torch.zeros_like(extra)], 1)
        return torch.cat([negative, extra], 1), Negatives(drawn.items, torch.cat([valid, there.unsqueeze(1)], 1), log_q)

    def _heads(self, rows: Tensor, user_vectors: Tensor, item_vectors: Tensor) -> Tensor | float:
        """The weighted losses of the heads, each a mean over the rows that have its target."""
        if not self.model.heads:
            return 0.0
        total: Tensor | float = 0.0
        pair = self.model.interaction.pair(user_vectors, item_vectors)
        for name, head in self.model.heads.items():
            values, present = self.data.samples.targets[name]
            here = present[rows]
            losses = head.loss(head(pair.float()), values[rows])  # type: ignore[operator,index]
            total = total + head.params.weight * torch.where(here, losses, 0.0).sum() / here.sum().clamp(min=1)  # type: ignore[union-attr]
        return total


def make_stepper(model: Model, data: TrainingData, config: Config, registry: Registry, generator: Any) -> Stepper:
    """The stepper that the config's negatives need."""
    from anyrec.training.labelled_objective import LabelledStepper

    labelled = registry.get("sampler", config.negatives.type).labelled
    return (LabelledStepper if labelled else Stepper)(model, data, config, registry, generator)


class Explicit:
    """The explicit negatives of every user, drawn one a positive."""

    def __init__(self, samples: Samples, num_users: int):
        users, items = samples.negatives
        order = torch.argsort(users, stable=True)
        self.items = items[order]
        self.counts = torch.bincount(users, minlength=num_users)
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, users: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(batch,) an item each, and (batch,) which users have one."""
        counts = self.counts[users]
        draws = (torch.rand(len(users), generator=generator, device=users.device) * counts).long()
        place = (self.starts[users] + torch.minimum(draws, (counts - 1).clamp(min=0))).clamp(max=len(self.items) - 1)
        return self.items[place], counts > 0


def encode(model: Model, side: Any, columns: Columns, rows: Tensor) -> Tensor:
    """Representations of `rows: (batch,)`; where features are costly, each distinct row is encoded once."""
    tower = model.tower(side)
    if _only_ids(tower):
        return model.represent(side, columns, rows)
    distinct, place = torch.unique(rows, return_inverse=True)
    return model.represent(side, columns, distinct).index_select(0, place)


def score_groups(model: Model, users: Tensor, items: Tensor) -> Tensor:
    """users: (batch, ...); items: (groups, negatives, ...) -> (batch, negatives)."""
    groups = items.shape[0]
    if groups == 1:
        return model.score(users, items[0])
    if groups == len(users):
        return model.score(users, items)
    if model.interaction.factorised:
        left = model.interaction.user_vectors(users)
        right = model.interaction.item_vectors(items)
        return torch.bmm(left.view(groups, -1, left.shape[-1]), right.transpose(1, 2)).flatten(0, 1)
    return torch.cat([model.score(part, own) for part, own in zip(users.chunk(groups), items, strict=True)])


def _only_ids(tower: Tower) -> bool:
    return tower.features == [IDENTITY]


def _hardest(negative: Tensor, drawn: Negatives, ratio: int) -> tuple[Tensor, Negatives]:
    """The `ratio` valid negatives with the highest scores."""
    assert drawn.valid is not None
    ranked = negative.detach().masked_fill(~drawn.valid, -math.inf)
    place = ranked.topk(min(ratio, negative.shape[1]), dim=1).indices
    return negative.gather(1, place), Negatives(drawn.items, drawn.valid.gather(1, place), None)


def _autocast(config: Config, device: torch.device) -> Any:
    """bf16 where it is asked for, or, under auto, where the processor multiplies it natively."""
    wanted = config.training.precision == "bf16" or (config.training.precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()

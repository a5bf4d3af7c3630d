"""The loss of one batch: encode, sample negatives, score, compare."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import MASK_VALUE, Head, Loss, Negatives, Sampler
from anyrec.core.hardware import multiplies_bf16
from anyrec.core.registry import Registry
from anyrec.core.windows import Batch, PackedSequences
from anyrec.data.ids import Side
from anyrec.data.positives import Positives
from anyrec.model.towers import IDENTITY, Columns, EntityTower, PrecomputedVectors
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.explicit_negatives import ExplicitNegatives, not_negative
from anyrec.training.samples import TrainingData
from anyrec.training.top_items import TopItems

TABLE_CELLS = 1 << 22
"""If the distinct users of a step times the items are at most this (16 MB), the mask is computed once for each user and
copied to the rows of their positives. With histories, the positives of a batch come user by user."""


class TrainingObjective:
    """Computes the loss of batches of positives.

    Args:
        model: The model that is trained.
        data: The training data on the device.
        config: The config.
        registry: The components.
        generator: Source of all random numbers of sampling, on the device.

    Attributes:
        rows: Number of training samples.
        sampler: The sampler of negatives.
        precision: Autocast context of the forward pass.
    """

    def __init__(
        self, model: TwoTower, data: TrainingData, config: Config, registry: Registry, generator: torch.Generator
    ):
        self.model, self.data, self.generator = model, data, generator
        self.ratio = config.negative_ratio
        params = registry.params("loss", config.loss.type, config.loss.options(), "/loss")
        self.compare: Loss = registry.get("loss", config.loss.type)(params)
        self.compare.build(registry)
        self.compare.num_items = data.num_items
        samples = data.samples
        self.rows = len(samples.users)
        others = not_negative(samples, config, self.compare.all_items)
        self.positives = Positives(samples.users, samples.items, data.num_users, data.num_items, others, data.scratch)
        params = registry.params("sampler", config.negatives.type, config.negatives.options(), "/negatives")
        self.sampler: Sampler = registry.get("sampler", config.negatives.type)(self.positives, params)
        # A full softmax has explicit negatives among all items.
        has_explicit = config.explicit_negatives and len(samples.negatives[0]) and not self.compare.all_items
        self.explicit = ExplicitNegatives(samples, data.num_users) if has_explicit else None
        self.precision = _autocast(config, samples.users.device)
        self.top = None
        if self.compare.all_items:
            self.sampler.group_size = 1
        elif self.sampler.top:
            k = min(self.sampler.top, data.num_items)
            self.top = TopItems(model, data, self.positives, k, self.sampler.refresh)

    def start_epoch(self) -> None:
        """Switch the model to training mode, and forget what the last epoch kept between its steps."""
        self.model.train()
        if self.top is not None:
            self.top.restart()

    def loss(self, batch: Batch) -> Tensor:
        """Compute the mean of weight * loss over a batch, plus the losses of heads and the penalties of fusions.

        Weights have mean 1 over the whole training set. A `Loss` divides by the batch's sum of weights, so the result
        is multiplied by the batch's mean weight. A batch of light positives then changes the model less, and with one
        positive in each step weights have the same effect as with many.

        Args:
            batch: The positives of the step.

        Returns:
            A scalar.
        """
        batch = self._in_groups(batch)
        samples, model, rows = self.data.samples, self.model, batch.rows
        users, items = samples.users[rows], samples.items[rows]
        weight = None if samples.weights is None else samples.weights[rows]
        drawn = None if self._is_blockwise() else self._negatives(users, items, batch)
        one = batch.one_of_each()
        shared = batch.owners if drawn is None and self.compare.shares_users and not model.heads else None
        with self.precision:
            item_vectors, negative_vectors, histories = self._items(items, drawn, one)
            user_vectors = self._users(samples.users[one.rows], histories)
            if batch.owners is not None and shared is None:
                user_vectors = user_vectors.index_select(0, batch.owners)
            if drawn is None:
                owners = users if shared is None else samples.users[one.rows]
                main = self._over_catalogue(user_vectors, negative_vectors[0], owners, items, weight, shared)
            else:
                main = self._over_sample(user_vectors, item_vectors, negative_vectors, drawn, users, weight)
        if weight is not None:
            main = main * weight.mean()
        penalty = model.user.fusion.take_penalty() + model.item.fusion.take_penalty()
        return main + self._heads(rows, user_vectors, item_vectors) + penalty

    @property
    def uses_own_threads(self) -> bool:
        """True if nearly all of a step runs in our own threads: histories of users, ids of items, a blockwise loss."""
        model, histories = self.model, self.model.user.histories
        return (
            self._is_blockwise()
            and not model.heads
            and _only_ids(model.item)
            and model.user.features == list(histories)
            and all(one.uses_own_threads for one in histories.values())
        )

    def _in_groups(self, batch: Batch) -> Batch:
        """Shuffle the positives of packed sequences and fill them up to whole groups, if groups share their negatives.

        Without shuffling, the positives of a group would belong to few users.
        """
        group, count = self.sampler.group_size, len(batch.rows)
        if batch.read is None or batch.events is None or group == 1:
            return batch
        group = min(group, count)
        order = torch.randperm(count, generator=self.generator, device=batch.rows.device)
        order = torch.cat([order, order[: -count % group]])
        return Batch(batch.rows[order], batch.windows, batch.read[order], batch.events[order])

    def _is_blockwise(self) -> bool:
        """Whether the loss is computed over the catalogue in blocks, without storing the scores."""
        loss = self.compare
        return loss.all_items and loss.blockwise and self.model.interaction.factorised and self.explicit is None

    def _over_catalogue(
        self,
        users: Tensor,
        items: Tensor,
        user_rows: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        shared: Tensor | None,
    ) -> Tensor:
        """Compute the loss over all items in blocks.

        Args:
            users: (batch, dim).
            items: (items, dim), all items.
            user_rows: (batch,) rows of the users.
            targets: (positives,) item rows of the positives.
            weight: (positives,) weights of the positives, or None.
            shared: (positives,) the row of `users` that predicts each positive; None if each has its own.
        """
        distinct, place = torch.unique(user_rows, return_inverse=True)
        table = None
        if len(distinct) * self.data.num_items <= TABLE_CELLS:
            cells = users.new_empty(len(distinct), self.data.num_items, dtype=torch.float32)
            table = self.positives.fill(distinct, cells, -MASK_VALUE, 0.0)

        def fill_mask(low: int, high: int, scores: Tensor) -> Tensor:
            if table is not None:
                return torch.index_select(table, 0, place[low:high], out=scores)
            return self.positives.fill(user_rows[low:high], scores, -MASK_VALUE, 0.0)

        left, right = self.model.interaction.user_vectors(users), self.model.interaction.item_vectors(items)
        if shared is None:
            return self.compare.over_catalogue(left, right, targets, fill_mask, weight)
        return self.compare.over_catalogue(left, right, targets, fill_mask, weight, shared)

    def _over_sample(
        self,
        users: Tensor,
        items: Tensor,
        negatives: Tensor,
        drawn: Negatives,
        user_rows: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        """Compute the loss over sampled negatives.

        Args:
            users: (batch, ...) what the interaction reads.
            items: (batch, ...) the positives.
            negatives: (groups, negatives, ...).
            drawn: The rows of the negatives.
            user_rows: (batch,) rows of the users.
            weight: (batch,) weights of the positives, or None.
        """
        positive = self.model.score(users, items.unsqueeze(1)).squeeze(1).float()  # (batch,)
        negative = score_groups(self.model, users, negatives).float()  # (batch, negatives)
        if self.explicit is not None:
            negative, drawn = self._with_explicit(negative, drawn, user_rows, users)
        if self.compare.temperature != 1.0:
            positive, negative = positive / self.compare.temperature, negative / self.compare.temperature
        if self.compare.corrected and drawn.log_q is not None:
            groups = len(drawn.log_q)
            negative = (negative.view(groups, -1, negative.shape[1]) - drawn.log_q.unsqueeze(1)).view_as(negative)
        return self.compare(positive, negative, drawn.valid, weight)

    def _negatives(self, users: Tensor, items: Tensor, batch: Batch) -> Negatives:
        """Draw the negatives of a batch; for a full softmax, take all items. users, items: (batch,) rows."""
        if self.top is not None:
            return self.sampler.sample_top(*self.top.of(batch), self.ratio, self.generator)
        if not self.compare.all_items:
            return self.sampler.sample(users, items, self.ratio, self.generator)
        every = torch.arange(self.data.num_items, device=users.device).unsqueeze(0)
        valid = torch.empty(len(users), self.data.num_items, dtype=torch.bool, device=users.device)
        return Negatives(every, self.positives.fill(users, valid, False, True), None)

    def _users(self, users: Tensor, histories: PrecomputedVectors) -> Tensor:
        """Represent users, (batch,) rows. histories: their features that are made of item vectors."""
        if histories:
            return self.model.represent("user", self.data.users, users, precomputed=histories)
        return encode(self.model, "user", self.data.users, users)

    def _items(self, items: Tensor, drawn: Negatives | None, batch: Batch) -> tuple[Tensor, Tensor, PrecomputedVectors]:
        """Represent the items of a step, each distinct one once.

        Args:
            items: (batch,) rows of the positives.
            drawn: The negatives; None for the whole catalogue.
            batch: The batch, of which the histories are read.

        Returns:
            The positives (batch, ...), the negatives (groups, negatives, ...), and the users' features that are made of
            item vectors.
        """
        columns, model, windows = self.data.items, self.model, batch.windows
        if drawn is None or self.compare.all_items:
            every = torch.arange(self.data.num_items, device=items.device)
            vectors = model.represent("item", columns, every)
            return vectors.index_select(0, items), vectors.unsqueeze(0), self._histories(batch, windows, vectors, every)
        if windows is None and drawn.items.numel() == items.numel() and drawn.items.data_ptr() == items.data_ptr():
            vectors = encode(model, "item", columns, items)  # in-batch negatives: the same rows
            return vectors, vectors.view(*drawn.items.shape, *vectors.shape[1:]), {}
        wanted = [items, drawn.items.flatten()]
        if windows is None:
            vectors = encode(model, "item", columns, torch.cat(wanted))
            positive, negative = vectors[: len(items)], vectors[len(items) :]
            return positive, negative.view(*drawn.items.shape, *vectors.shape[1:]), {}
        # The items of the histories are encoded together with the others, and the windows then index the distinct rows.
        distinct, place = torch.unique(torch.cat([*wanted, windows.items.flatten().clamp(min=0)]), return_inverse=True)
        vectors = model.represent("item", columns, distinct)
        positive, negative, seen = place.split([len(items), drawn.items.numel(), windows.items.numel()])
        windows = windows.with_items(torch.where(windows.items >= 0, seen.view_as(windows.items), -1))
        negatives = vectors[negative].view(*drawn.items.shape, *vectors.shape[1:])
        return vectors[positive], negatives, self._histories(batch, windows, vectors, distinct)

    def _histories(
        self, batch: Batch, windows: PackedSequences | None, vectors: Tensor, rows: Tensor
    ) -> PrecomputedVectors:
        """Compute the users' features that are made of item vectors, before each positive.

        Args:
            batch: The batch.
            windows: The tokens; their items index `rows`.
            vectors: (items, ...) representations of the items `rows`.
            rows: (items,) item rows.
        """
        if windows is None:
            return {}
        model, batch = self.model, batch.with_windows(windows)
        if model.interaction.reads == "tokens":  # histories read vectors after the fusion
            vectors = model.item.encode(self.data.items, rows)
        columns = self.data.users
        return {name: one.before(batch, columns[name].values, vectors) for name, one in model.user.histories.items()}

    def _with_explicit(
        self, negative: Tensor, drawn: Negatives, users: Tensor, user_vectors: Tensor
    ) -> tuple[Tensor, Negatives]:
        """Add one column to the negatives: an explicit negative of each user who has one.

        Args:
            negative: (batch, negatives) scores.
            drawn: The sampled negatives.
            users: (batch,) rows of the users.
            user_vectors: (batch, ...).

        Returns:
            (batch, negatives + 1) scores, and their masks.
        """
        assert self.explicit is not None
        items, there = self.explicit.draw(users, self.generator)
        vectors = encode(self.model, "item", self.data.items, items)
        extra = self.model.score(user_vectors, vectors.unsqueeze(1)).float()
        valid = torch.ones_like(negative, dtype=torch.bool) if drawn.valid is None else drawn.valid
        log_q = drawn.log_q
        if log_q is not None:  # an explicit negative is not sampled, so its correction is 0
            log_q = log_q.repeat_interleave(len(negative) // len(log_q), 0).expand_as(negative)
            log_q = torch.cat([log_q, torch.zeros_like(extra)], 1)
        return torch.cat([negative, extra], 1), Negatives(drawn.items, torch.cat([valid, there.unsqueeze(1)], 1), log_q)

    def _heads(self, rows: Tensor, user_vectors: Tensor, item_vectors: Tensor) -> Tensor | float:
        """Compute the weighted sum of the heads' losses, each the mean over the rows that have its target.

        Args:
            rows: (batch,) rows of the positive samples.
            user_vectors: (batch, dim).
            item_vectors: (batch, dim).
        """
        if not self.model.heads:
            return 0.0
        total: Tensor | float = 0.0
        pair = self.model.interaction.pair(user_vectors, item_vectors)
        for name, head in self.model.heads.items():
            values, present = self.data.samples.targets[name]
            assert isinstance(head, Head) and isinstance(values, Tensor)
            here = present[rows]
            losses = head.loss(head(pair.float()), values[rows])
            mean = torch.where(here, losses, 0.0).sum() / here.sum().clamp(min=1)
            total = total + head.params.weight * mean
        return total


def encode(model: TwoTower, side: Side, columns: Columns, rows: Tensor) -> Tensor:
    """Represent some rows of one side.

    If the side has features other than the id, each distinct row is encoded once.

    Args:
        model: The model.
        side: "user" or "item".
        columns: The side's prepared features.
        rows: (batch,) row numbers.

    Returns:
        (batch, ...) what the interaction reads.
    """
    if _only_ids(model.tower(side)):
        return model.represent(side, columns, rows)
    distinct, place = torch.unique(rows, return_inverse=True)
    return model.represent(side, columns, distinct).index_select(0, place)


def score_groups(model: TwoTower, users: Tensor, items: Tensor) -> Tensor:
    """Score users against the negatives of their groups.

    Args:
        model: The model.
        users: (batch, ...).
        items: (groups, negatives, ...); each group is for an equal run of the users.

    Returns:
        (batch, negatives).
    """
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


def _only_ids(tower: EntityTower) -> bool:
    return tower.features == [IDENTITY]


def _autocast(config: Config, device: torch.device) -> AbstractContextManager[object]:
    """bf16 if the config sets it, or, with `auto`, if the processor multiplies it natively."""
    wanted = config.training.precision == "bf16" or (config.training.precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()

"""The loss of one batch: encode, sample negatives, score, compare."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from anyrec.core.config import Config
from anyrec.core.contracts import Head, Loss, Negatives, Sampler
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.hardware import multiplies_bf16
from anyrec.core.precision import at_least_float32
from anyrec.core.processes import ALONE, Processes
from anyrec.core.registry import Registry
from anyrec.core.row_masks import part_of
from anyrec.core.windows import Batch
from anyrec.data.positives import Positives
from anyrec.model.two_tower_network import TwoTower
from anyrec.training.catalogue_slices import CatalogueSlices, catalogue_mask
from anyrec.training.division import Division, Held, Own, only_ids
from anyrec.training.explicit_negatives import ExplicitNegatives, not_negative
from anyrec.training.samples import TrainingData
from anyrec.training.step_vectors import StepVectors, score_groups
from anyrec.training.top_items import TopItems


class TrainingObjective:
    """Computes the loss of batches of positives.

    Args:
        model: The model that is trained.
        data: The training data on the device.
        config: The config.
        registry: The components.
        generator: Source of all random numbers of sampling, on the device.
        processes: The processes that share each step. All of them call the same methods with the same batches.

    Attributes:
        rows: Number of training samples.
        sampler: The sampler of negatives.
        precision: Autocast context of the forward pass.
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
        self.model, self.data, self.generator = model, data, generator
        self.division = Division(processes, model)
        self.ratio, self._checked = config.negative_ratio, False
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
        self.slices = None
        if not processes.alone and self._is_blockwise() and self.compare.slices_items:
            slices = CatalogueSlices(model, data, processes)
            # Slices exchange vectors of the step's users; without them, processes exchange those of all items.
            self.slices = slices if slices.divided or data.num_items > config.training.batch_size else None
        self.vectors = StepVectors(model, data, self.division, self.slices)
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

        With several processes, this is the part of this process; their sum is the loss of the step.

        Weights have mean 1 over the whole training set. A `Loss` divides by the batch's sum of weights, so the result
        is multiplied by the batch's mean weight. A batch of light positives then changes the model less, and with one
        positive in each step weights have the same effect as with many.

        Args:
            batch: The positives of the step.

        Returns:
            A scalar.
        """
        batch = self._in_groups(batch)
        samples, model, division, count = self.data.samples, self.model, self.division, len(batch.rows)
        users, items = samples.users[batch.rows], samples.items[batch.rows]
        held = division.hold(batch)
        sampled, drawn, own = self._negatives(users, items, held)
        rows, wanted = own.of(batch.rows), own.of(items)
        weight = None if samples.weights is None else samples.weights[rows]
        blockwise = self._is_blockwise()
        shared = held.batch.owners if blockwise and self.compare.shares_users and not model.heads else None
        with self.precision, division.masks():
            item_vectors, negative_vectors, histories = self.vectors.items(
                items, sampled, batch, held, own, self.sampler.from_batch
            )
            user_vectors = self.vectors.users(users, batch, held, own, histories, shared is not None)
            with part_of(own.places, count):
                if blockwise:
                    one = samples.users[rows if shared is None else held.batch.one_of_each().rows]
                    counts = own.counts or self.slices is None
                    counted = weight if counts else torch.zeros(len(wanted), device=wanted.device)
                    main = self._over_catalogue(user_vectors, negative_vectors[0], one, wanted, counted, shared)
                else:
                    drawn = self._every(own.of(users)) if drawn is None else drawn
                    main = self._over_sample(user_vectors, item_vectors, negative_vectors, drawn, users, weight, own)
        if samples.weights is not None:
            main = main * samples.weights[rows if self.slices is None else batch.rows].mean()
        with part_of(own.places, count), division.masks():
            heads = self._heads(batch.rows, user_vectors, item_vectors, own)
        main = own.part(main, count) if self.slices is None else main  # slices return the part of this process
        return main + heads + division.penalty()

    @property
    def uses_own_threads(self) -> bool:
        """True if nearly all of a step runs in our own threads: histories of users, ids of items, a blockwise loss."""
        model, histories = self.model, self.model.user.histories
        return (
            self._is_blockwise()
            and not model.heads
            and only_ids(model.item)
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
        """Compute the loss over all items in blocks; with slices, this process's part of the loss of all processes.

        Args:
            users: (batch, dim).
            items: (items, dim), all items, or those of the own slice.
            user_rows: (batch,) rows of the users.
            targets: (positives,) item rows of the positives.
            weight: (positives,) weights of the positives, or None.
            shared: (positives,) the row of `users` that predicts each positive; None if each has its own.
        """
        if self.slices is not None:
            return self.slices.loss(self.compare, self.positives, users, items, user_rows, targets, shared, weight)
        left, right = self.model.interaction.user_vectors(users), self.model.interaction.item_vectors(items)
        fill_mask = catalogue_mask(self.positives, user_rows, at_least_float32(users), 0, self.data.num_items)
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
        own: Own,
    ) -> Tensor:
        """Compute the loss over sampled negatives.

        Args:
            users: (own, ...) what the interaction reads.
            items: (own, ...) the positives.
            negatives: (groups, negatives, ...).
            drawn: The rows of the negatives.
            user_rows: (batch,) rows of the users of the step.
            weight: (own,) weights of the positives, or None.
            own: The positives whose loss this process computes.
        """
        positive = at_least_float32(self.model.score(users, items.unsqueeze(1)).squeeze(1))  # (own,)
        negative = at_least_float32(score_groups(self.model, users, negatives, own))  # (own, negatives)
        if self.explicit is not None:
            negative, drawn = self._with_explicit(negative, drawn, user_rows, users, own)
        if self.compare.temperature != 1.0:
            positive, negative = positive / self.compare.temperature, negative / self.compare.temperature
        if self.compare.corrected and drawn.log_q is not None:
            groups = len(drawn.log_q)
            negative = (negative.view(groups, -1, negative.shape[1]) - drawn.log_q.unsqueeze(1)).view_as(negative)
        if not self.division.alone and not self._checked:
            check_rowwise(self.compare, positive, negative, drawn.valid, weight)
            self._checked = True
        return self.compare(positive, negative, drawn.valid, weight)

    def _negatives(self, users: Tensor, items: Tensor, held: Held) -> tuple[Negatives | None, Negatives | None, Own]:
        """Draw the negatives of a step.

        Args:
            users: (batch,) rows.
            items: (batch,) rows.
            held: The positives that this process encodes.

        Returns:
            The negatives of all positives, or of the own ones if their items are known to all (`Sampler.from_batch`);
            those of the own positives; and which positives are own. No negatives if the loss has the whole catalogue.
        """
        count = len(users)
        if self.compare.all_items:
            return None, None, self.division.own(held, count, None)
        if self.sampler.from_batch:
            own = self.division.own(held, count, count // min(self.sampler.group_size, count))
            if own.whole is not None:
                drawn = self.sampler.sample(own.of(users), own.of(items), self.ratio, self.generator)
                return drawn, drawn, own
        if self.top is not None:
            best, there = (self.division.gathered(held, part) for part in self.top.of(held.batch))
            drawn = self.sampler.sample_top(best, there, self.ratio, self.generator)
        else:
            drawn = self.sampler.sample(users, items, self.ratio, self.generator)
        own = self.division.own(held, count, len(drawn.items))
        return drawn, own.negatives(drawn, count), own

    def _every(self, users: Tensor) -> Negatives:
        """Return all items as the negatives of a full softmax. users: (batch,) rows."""
        every = torch.arange(self.data.num_items, device=users.device).unsqueeze(0)
        valid = torch.empty(len(users), self.data.num_items, dtype=torch.bool, device=users.device)
        return Negatives(every, self.positives.fill(users, valid, False, True), None)

    def _with_explicit(
        self, negative: Tensor, drawn: Negatives, users: Tensor, user_vectors: Tensor, own: Own
    ) -> tuple[Tensor, Negatives]:
        """Add one column to the negatives: an explicit negative of each user who has one.

        Args:
            negative: (own, negatives) scores.
            drawn: The sampled negatives.
            users: (batch,) rows of the users of the step.
            user_vectors: (own, ...).
            own: The positives whose loss this process computes.

        Returns:
            (own, negatives + 1) scores, and their masks.
        """
        assert self.explicit is not None
        items, there = self.explicit.draw(users, self.generator)
        vectors, there = self.vectors.encode("item", items, own.places), own.of(there)
        extra = at_least_float32(self.model.score(user_vectors, vectors.unsqueeze(1)))
        valid = torch.ones_like(negative, dtype=torch.bool) if drawn.valid is None else drawn.valid
        log_q = drawn.log_q
        if log_q is not None:  # an explicit negative is not sampled, so its correction is 0
            log_q = log_q.repeat_interleave(len(negative) // len(log_q), 0).expand_as(negative)
            log_q = torch.cat([log_q, torch.zeros_like(extra)], 1)
        return torch.cat([negative, extra], 1), Negatives(drawn.items, torch.cat([valid, there.unsqueeze(1)], 1), log_q)

    def _heads(self, rows: Tensor, user_vectors: Tensor, item_vectors: Tensor, own: Own) -> Tensor | float:
        """Compute the weighted sum of the heads' losses, each the mean over the rows that have its target.

        Args:
            rows: (batch,) rows of the positive samples of the step.
            user_vectors: (own, dim).
            item_vectors: (own, dim).
            own: The positives whose loss this process computes, which is its part of the mean.
        """
        if not self.model.heads:
            return 0.0
        total: Tensor | float = 0.0
        pair = self.model.interaction.pair(user_vectors, item_vectors)
        for name, head in self.model.heads.items():
            values, present = self.data.samples.targets[name]
            assert isinstance(head, Head) and isinstance(values, Tensor)
            here = present[rows]
            losses = head.loss(head(at_least_float32(pair)), values[own.of(rows)])
            counted = own.of(here) if own.counts else torch.zeros_like(own.of(here))
            mean = torch.where(counted, losses, 0.0).sum() / here.sum().clamp(min=1)
            total = total + head.params.weight * mean
        return total


def check_rowwise(loss: Loss, positive: Tensor, negative: Tensor, valid: Tensor | None, weight: Tensor | None) -> None:
    """Check that a loss is the weighted mean of the losses of rows, which are divided between processes.

    Args:
        loss: The loss.
        positive: (own,) scores; the other arguments as of `Loss.forward`.

    Raises:
        ConfigError: If the loss of two halves of the rows is not that of all of them.
    """
    rows, half = len(positive), len(positive) // 2
    if half == 0:
        return

    def of(part: slice) -> Tensor:
        scores = positive[part].detach(), negative[part].detach()
        return loss(*scores, None if valid is None else valid[part], None if weight is None else weight[part]).double()

    def share(part: slice) -> Tensor:
        counted = positive.new_ones(rows) if weight is None else weight
        return counted[part].double().sum() / counted.double().sum().clamp(min=1e-12)

    parts = [slice(0, half), slice(half, rows)]
    with torch.no_grad():
        whole, halves = of(slice(0, rows)), sum(share(part) * of(part) for part in parts)
    if not torch.isclose(whole, torch.as_tensor(halves), rtol=1e-3, atol=1e-5, equal_nan=True):
        what = f"'{loss.type}' is not the weighted mean of the losses of rows: half of the rows give another value."
        hint = "Its rows cannot be divided between processes. Change the loss, or train with one process."
        raise ConfigError(Fault("/loss/type", what, hint, "not divisible"))


def _autocast(config: Config, device: torch.device) -> AbstractContextManager[object]:
    """bf16 if the config sets it, or, with `auto`, if the processor multiplies it natively."""
    wanted = config.training.precision == "bf16" or (config.training.precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()

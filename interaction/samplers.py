"""Samplers of negatives.

No negative is an item that the user has (`TrainingPositives`): a sampler draws again, or marks such a candidate as not
valid. Each returns the log of the expected number of draws of every candidate, for losses with the logQ correction.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from anyrec.core.contracts import Negatives, Params, Sampler, TrainingPositives
from anyrec.core.params import tunable


class Uniform(Sampler):
    """Negatives of each positive, drawn uniformly from the items that its user has not interacted with."""

    type = "uniform"

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn, possible = self.positives.draw_outside(users, ratio, generator)
        others = (self.positives.num_items - self.positives.counts[users]).clamp(min=1).unsqueeze(1)
        return Negatives(drawn, possible.expand_as(drawn), (ratio / others).log())


class PopularitySampler(Sampler):
    """Negatives of each positive, drawn by popularity from the items that its user has not interacted with.

    An item that the user has is drawn again by popularity, up to `tries` times, and then uniformly.
    """

    type = "popularity"

    class Params(Params):
        alpha: float = Field(
            0.75,
            ge=0,
            le=2,
            description="Exponent of an item's popularity: 0 is uniform, 1 proportional.",
            json_schema_extra=tunable(0.0, 1.0),
        )
        tries: int = Field(
            3, ge=0, le=100, description="Times that an item that the user has is drawn again by popularity."
        )

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        super().__init__(positives, params)
        self.weights = popular(positives, self.params.alpha)
        owners = torch.repeat_interleave(
            torch.arange(positives.num_users, device=self.weights.device), positives.counts
        )
        history = self.weights.new_zeros(positives.num_users).index_add(0, owners, self.weights[positives.items])
        self.outside = (1 - history).clamp(min=1e-6)
        """(users,) the probability that a draw by popularity is no item that the user has."""

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn = draw(self.weights, len(users) * ratio, generator).view(len(users), ratio)
        for _ in range(self.params.tries):
            again = self.positives.contains(users, drawn)
            fresh = draw(self.weights, int(again.sum()), generator)
            drawn = drawn.masked_scatter(again, fresh)
        left = self.positives.contains(users, drawn)
        others, possible = self.positives.draw_outside(users, ratio, generator)
        drawn = torch.where(left, others, drawn)
        return Negatives(drawn, possible.expand_as(drawn), (ratio * self._probability(users, drawn)).log())

    def _probability(self, users: Tensor, drawn: Tensor) -> Tensor:
        """Return (batch, ratio), the probability of each drawn item, by popularity in one of the tries or uniformly."""
        outside = self.outside[users].unsqueeze(1)
        never = (1 - outside) ** (self.params.tries + 1)
        count = (self.positives.num_items - self.positives.counts[users]).clamp(min=1).unsqueeze(1)
        return (1 - never) * self.weights[drawn] / outside + never / count


class Shared(Sampler):
    """Negatives shared by the whole batch, drawn uniformly or by popularity. Their number is `size`, not the ratio."""

    type = "shared"
    reads_ratio = False

    class Params(Params):
        size: int = Field(
            256, ge=1, le=1_000_000, description="Negatives of a batch.", json_schema_extra=tunable(64, 2048, log=True)
        )
        alpha: float = Field(
            0.0,
            ge=0,
            le=2,
            description="Exponent of an item's popularity: 0 is uniform, 1 proportional.",
            json_schema_extra=tunable(0.0, 1.0),
        )

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        super().__init__(positives, params)
        self.weights = popular(self.positives, self.params.alpha)

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn = draw(self.weights, self.params.size, generator)
        valid = ~self.positives.contains(users, drawn)
        return Negatives(drawn.unsqueeze(0), valid, (self.params.size * self.weights[drawn]).log().unsqueeze(0))


class InBatch(Sampler):
    """The other positives of the same block of the batch. Small blocks keep the scores in the processor's cache.

    A batch holds the training samples in random order. In a block of b, a row therefore meets an item that occurs n
    times in all N samples (b - 1) n / (N - 1) times on average. Repeated interactions count as often as they occur.
    """

    type = "in_batch"
    reads_ratio = False
    from_batch = True

    class Params(Params):
        block: int = Field(
            256,
            ge=2,
            le=65_536,
            description="Positives that are each other's negatives.",
            json_schema_extra=tunable(64, 1024, log=True),
        )

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        super().__init__(positives, params)
        repeats = self.positives.repeats.double()
        self.shares = (repeats / (repeats.sum() - 1).clamp(min=1)).float()
        self.group_size = self.params.block

    def expected(self, items: Tensor, block: int) -> Tensor:
        """Return the expected number of times that each of `items` is among the other positives of a block.

        It is above 0, so that it has a log.
        """
        return ((block - 1) * self.shares[items]).clamp(min=1e-9)

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        block = min(self.params.block, len(users))
        grouped = items.view(-1, block)
        valid = ~self.positives.contains(users, grouped)
        return Negatives(grouped, valid, self.expected(grouped, block).log())


class Mixed(Sampler):
    """In-batch negatives, and others drawn uniformly.

    References:
        Yang et al., Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations, 2020.
    """

    type = "mixed"
    reads_ratio = False

    class Params(InBatch.Params):
        uniform: int = Field(
            128,
            ge=1,
            le=100_000,
            description="Negatives of each block that are drawn uniformly.",
            json_schema_extra=tunable(16, 512, log=True),
        )

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        super().__init__(positives, params)
        self.in_batch = InBatch(self.positives, self.params)
        self.group_size = self.params.block

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        near = self.in_batch.sample(users, items, ratio, generator)
        groups, block = near.items.shape
        size = (groups, self.params.uniform)
        drawn = torch.randint(self.positives.num_items, size, generator=generator, device=users.device)
        candidates = torch.cat([near.items, drawn], 1)
        valid = ~self.positives.contains(users, drawn)
        # A candidate can come from either source, so its expected number of draws is the sum of both.
        expected = self.in_batch.expected(candidates, block) + self.params.uniform / self.positives.num_items
        assert near.valid is not None
        return Negatives(candidates, torch.cat([near.valid, valid], 1), expected.log())


class Hard(Sampler):
    """Negatives of each positive, drawn from the items that the model itself scores highest for the user.

    The lists are made at each step, with vectors of the items that are computed again after every `refresh` steps. They
    leave out the items that the user has interacted with. All draws of a positive differ. The logQ correction is not
    applied, since the expected number of draws depends on the scores.
    """

    type = "hard"

    class Params(Params):
        renamed = {"pool": "top"}
        top: int = Field(
            100,
            ge=1,
            le=100_000,
            description="Items with the highest scores, from which the negatives of a positive are drawn.",
        )
        refresh: int = Field(
            50, ge=1, le=1_000_000, description="Steps after which the vectors of all items are computed again."
        )

    def __init__(self, positives: TrainingPositives, params: BaseModel | None = None):
        super().__init__(positives, params)
        self.top, self.refresh = self.params.top, self.params.refresh

    def sample_top(self, best: Tensor, there: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        keys = torch.rand(best.shape, generator=generator, device=best.device).masked_fill(~there, -1)
        place = keys.topk(min(ratio, best.shape[1]), dim=1).indices  # (batch, ratio) places drawn without replacement
        return Negatives(best.gather(1, place), there.gather(1, place), None)


def popular(positives: TrainingPositives, alpha: float) -> Tensor:
    """Return (items,) float32 probabilities, proportional to (number of users + 0.001) ** alpha: none is zero."""
    weights = (positives.popularity.double() + 1e-3) ** alpha
    return (weights / weights.sum()).float()


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw item rows with replacement.

    Args:
        weights: (items,) probabilities.
        count: Number of draws.
        generator: Source of the random numbers.

    Returns:
        (count,) int64.
    """
    edges = weights.double().cumsum(0)
    draws = torch.rand(count, generator=generator, device=weights.device, dtype=torch.float64) * edges[-1]
    return torch.searchsorted(edges, draws, right=True).clamp(max=len(weights) - 1)

"""Where negatives come from. None is ever among the user's training positives: such a candidate is marked not valid."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Negatives, Params, Sampler


class Uniform(Sampler):
    """Each positive's own negatives, drawn evenly from all that its user lacks."""

    type = "uniform"

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn, possible = self.positives.draw_outside(users, ratio, generator)
        lacking = (self.positives.num_items - self.positives.counts[users]).clamp(min=1).unsqueeze(1)
        return Negatives(drawn, possible.expand_as(drawn), (ratio / lacking).log())


class Popularity(Sampler):
    """Each positive's own negatives, drawn by popularity; a collision is drawn again, at last evenly from what is lacking."""

    type = "popularity"

    class Params(Params):
        alpha: float = Field(0.75, ge=0, le=2, description="Power of the item's count: 0 is even, 1 as popular.")
        tries: int = Field(3, ge=0, le=100, description="Times a collision is drawn again by popularity.")

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        positives = self.positives
        self.weights = popular(positives, self.params.alpha)
        owners = torch.repeat_interleave(
            torch.arange(positives.num_users, device=self.weights.device), positives.counts
        )
        had = self.weights.new_zeros(positives.num_users).index_add(0, owners, self.weights[positives.items])
        self.lacking = (1 - had).clamp(min=1e-6)
        """(users,) the probability that a draw by popularity is no positive of the user."""

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
        """(batch, ratio) of being drawn: by popularity in one of the tries, else evenly."""
        lacking = self.lacking[users].unsqueeze(1)
        never = (1 - lacking) ** (self.params.tries + 1)
        count = (self.positives.num_items - self.positives.counts[users]).clamp(min=1).unsqueeze(1)
        return (1 - never) * self.weights[drawn] / lacking + never / count


class Shared(Sampler):
    """Negatives shared by the whole batch, drawn evenly or by popularity. `ratio` does not matter: `size` does."""

    type = "shared"

    class Params(Params):
        size: int = Field(256, ge=1, le=1_000_000, description="Negatives a batch.")
        alpha: float = Field(0.0, ge=0, le=2, description="Power of the item's count: 0 is even, 1 as popular.")

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.weights = popular(self.positives, self.params.alpha)

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn = draw(self.weights, self.params.size, generator)
        valid = ~self.positives.contains(users, drawn)
        return Negatives(drawn.unsqueeze(0), valid, (self.params.size * self.weights[drawn]).log().unsqueeze(0))


class InBatch(Sampler):
    """The other positives of a block of the batch. Blocks keep the scores in the cache whatever the batch.

    A batch holds the training samples in random order, so a row of a block of b meets an item with n of all N samples
    (b - 1) n / (N - 1) times on average: a pair that the data repeat counts as often as it is repeated.
    """

    type = "in_batch"

    class Params(Params):
        block: int = Field(256, ge=2, le=65_536, description="Positives that serve as each other's negatives.")

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        repeats = self.positives.repeats.double()
        self.shares = (repeats / (repeats.sum() - 1).clamp(min=1)).float()
        self.group_size = self.params.block

    def expected(self, items: Tensor, block: int) -> Tensor:
        """How often each of `items` is expected among the other positives of a block; above 0, so that it has a log."""
        return ((block - 1) * self.shares[items]).clamp(min=1e-9)

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        block = min(self.params.block, len(users))
        grouped = items.view(-1, block)
        valid = ~self.positives.contains(users, grouped)
        return Negatives(grouped, valid, self.expected(grouped, block).log())


class Mixed(Sampler):
    """In-batch negatives and as many drawn evenly (Yang et al., Mixed Negative Sampling, 2020)."""

    type = "mixed"

    class Params(InBatch.Params):
        uniform: int = Field(128, ge=1, le=100_000, description="Negatives drawn evenly for each block.")

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.in_batch = InBatch(self.positives, self.params)
        self.group_size = self.params.block

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        near = self.in_batch.sample(users, items, ratio, generator)
        groups, block = near.items.shape
        size = (groups, self.params.uniform)
        drawn = torch.randint(self.positives.num_items, size, generator=generator, device=users.device)
        candidates = torch.cat([near.items, drawn], 1)
        valid = ~self.positives.contains(users, drawn)
        # A candidate may come from either side: what counts is how often it is drawn in all.
        expected = self.in_batch.expected(candidates, block) + self.params.uniform / self.positives.num_items
        assert near.valid is not None
        return Negatives(candidates, torch.cat([near.valid, valid], 1), expected.log())


class Hard(Sampler):
    """Each positive's own negatives: of a pool drawn evenly from what its user lacks, those the model scores highest."""

    type = "hard"
    keep_hardest = True

    class Params(Params):
        pool: int = Field(32, ge=2, le=100_000, description="Candidates for each positive.")

    def sample(self, users: Tensor, items: Tensor, ratio: int, generator: torch.Generator) -> Negatives:
        drawn, possible = self.positives.draw_outside(users, max(self.params.pool, ratio), generator)
        return Negatives(drawn, possible.expand_as(drawn), None)


def popular(positives: Any, alpha: float) -> Tensor:
    """(items,) float32 probabilities by the power of the training count, one added so that none is zero."""
    weights = (positives.popularity.double() + 1e-3) ** alpha
    return (weights / weights.sum()).float()


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) items by probability, with replacement."""
    edges = weights.double().cumsum(0)
    draws = torch.rand(count, generator=generator, device=weights.device, dtype=torch.float64) * edges[-1]
    return torch.searchsorted(edges, draws, right=True).clamp(max=len(weights) - 1)

"""Ways to score a user against an item. `dot` and `cosine` keep the towers apart, so that items can be indexed."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Interaction, Params, Width
from anyrec.interaction.feature_fusion import check_heads, perceptron, transformer

FEW = 4
"""Own candidates up to which products are summed directly (benchmarks/throughput.py: BPR a quarter faster)."""


class Dot(Interaction):
    """The dot product of the two vectors. The default."""

    type = "dot"
    factorised = True

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return dot(users, items)


class Cosine(Interaction):
    """The cosine of the two vectors, divided by a temperature."""

    type = "cosine"
    factorised = True

    class Params(Params):
        temperature: float = Field(0.1, ge=1e-4, le=1e4)
        learn_temperature: bool = Field(False, description="Train the temperature with the rest.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        scale = torch.tensor(math.log(1 / self.params.temperature))
        if self.params.learn_temperature:
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale, persistent=False)

    def user_vectors(self, users: Tensor) -> Tensor:
        return functional.normalize(users, dim=-1) * self.log_scale.exp()

    def item_vectors(self, items: Tensor) -> Tensor:
        return functional.normalize(items, dim=-1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return dot(self.user_vectors(users), self.item_vectors(items))

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return super().pair(self.user_vectors(users), self.item_vectors(items))


class MLP(Interaction):
    """A perceptron over both vectors and their product, beside the dot product. A ranker: it needs both sides at once."""

    type = "mlp"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [64, 32], min_length=1, max_length=16, description="Widths of the hidden layers."
        )
        dropout: float = Field(0.0, ge=0, le=0.99)

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        first, *rest = self.params.hidden_dims
        # The first layer of [user, item, user * item] as three, so that a user's part is computed once for all items.
        self.from_user = nn.Linear(self.dim, first)
        self.from_item = nn.Linear(self.dim, first, bias=False)
        self.from_product = nn.Linear(self.dim, first, bias=False)
        self.dropout = nn.Dropout(self.params.dropout)
        self.rest = perceptron(first, rest, 1, self.params.dropout, layer_norm=False)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        wide = users.unsqueeze(1)
        hidden = self._hidden(wide, items if items.dim() == 3 else items.unsqueeze(0))
        return self.rest(hidden).squeeze(-1) + dot(users, items)

    def _hidden(self, users: Tensor, items: Tensor) -> Tensor:
        mixed = self.from_user(users) + self.from_item(items) + self.from_product(users * items)
        return self.dropout(mixed.relu())


class Attention(Interaction):
    """A transformer over the feature vectors of both sides together, read at a token of its own. A ranker."""

    type = "attention"
    reads = "tokens"

    class Params(Params):
        num_layers: int = Field(1, ge=1, le=64, description="Transformer layers.")
        num_heads: int = Field(4, ge=1, le=256, description="Attention heads; must divide the feature dimension.")
        dropout: float = Field(0.0, ge=0, le=0.99)

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        check_heads(self.dim, self.params.num_heads, "/interaction/num_heads")
        self.sides = nn.Parameter(torch.randn(2, self.dim) * 0.02)
        self.cls = nn.Parameter(torch.randn(self.dim) * 0.02)
        self.layers = transformer(self.dim, self.params.num_layers, self.params.num_heads, self.params.dropout)
        self.out = nn.Linear(self.dim, 1)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        own = items if items.dim() == 4 else items.unsqueeze(0).expand(len(users), *items.shape)
        wide = users.unsqueeze(1).expand(-1, own.shape[1], -1, -1)
        pooled = self._read(wide.flatten(0, 1), own.flatten(0, 1)).view(len(users), own.shape[1], self.dim)
        return self.out(pooled).squeeze(-1) + dot(users.sum(1), items.sum(-2))

    @property
    def pair_dim(self) -> int:
        return self.dim

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return self._read(users, items)

    def _read(self, users: Tensor, items: Tensor) -> Tensor:
        """users, items: (pairs, features, dim) -> (pairs, dim)."""
        cls = self.cls.expand(len(users), 1, -1)
        return self.layers(torch.cat([cls, users + self.sides[0], items + self.sides[1]], 1))[:, 0]


def dot(users: Tensor, items: Tensor) -> Tensor:
    """users: (batch, dim); items: (items, dim) or (batch, items, dim) -> (batch, items)."""
    if items.dim() == 2:
        return users @ items.T
    if items.shape[1] <= FEW:  # a batch of tiny matrix products costs more than the plain sums
        return (users.unsqueeze(1) * items).sum(-1)
    return torch.bmm(items, users.unsqueeze(-1)).squeeze(-1)

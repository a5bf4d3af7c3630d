"""Interactions: they score a user against an item.

`dot` and `cosine` are factorised: the score is a dot product of a user and an item vector, so items can be indexed.
`mlp` and `attention` need both sides at once.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Fields, Interaction, Params, Width
from anyrec.core.params import tunable
from anyrec.core.row_masks import RowDropout
from anyrec.interaction.feature_fusion import check_heads, perceptron, transformer

FEW = 4
"""Items for each user up to which dot products are summed directly (benchmarks/throughput.py: BPR a quarter faster)."""


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
        temperature: float = Field(
            0.1,
            ge=1e-4,
            le=1e4,
            description="Divides the cosine; scores are within 1 / temperature.",
            json_schema_extra=tunable(0.02, 1.0, log=True),
        )
        learn_temperature: bool = Field(False, description="Train the temperature, starting from this value.")

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        scale = torch.tensor(math.log(1 / self.params.temperature))
        self.log_scale: Tensor
        if self.params.learn_temperature:
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale, persistent=False)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        return dot(self.user_vectors(users), self.item_vectors(items))

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return super().pair(self.user_vectors(users), self.item_vectors(items))

    def user_vectors(self, users: Tensor) -> Tensor:
        return functional.normalize(users, dim=-1) * self.log_scale.exp()

    def item_vectors(self, items: Tensor) -> Tensor:
        return functional.normalize(items, dim=-1)


class MLP(Interaction):
    """The dot product plus a perceptron over both vectors and their product. A ranker: it needs both sides."""

    type = "mlp"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [64, 32], min_length=1, max_length=16, description="Units of the hidden layers."
        )
        dropout: float = Field(
            0.0,
            ge=0,
            le=0.99,
            description="Fraction of hidden values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        first, *rest = self.params.hidden_dims
        # The first layer over [user, item, user * item] as three: the user's part is computed once for all items.
        self.from_user = nn.Linear(self.dim, first)
        self.from_item = nn.Linear(self.dim, first, bias=False)
        self.from_product = nn.Linear(self.dim, first, bias=False)
        self.dropout = RowDropout(self.params.dropout)
        self.rest = perceptron(first, rest, 1, self.params.dropout, layer_norm=False)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        wide = users.unsqueeze(1)  # (batch, 1, dim)
        hidden = self._hidden(wide, items if items.dim() == 3 else items.unsqueeze(0))  # (batch, items, first)
        return self.rest(hidden).squeeze(-1) + dot(users, items)

    def _hidden(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the first hidden layer of `users` and `items`, (..., dim) each, which are broadcast."""
        mixed = self.from_user(users) + self.from_item(items) + self.from_product(users * items)
        return self.dropout(mixed.relu())


class AttentionInteraction(Interaction):
    """A transformer over the feature vectors of both sides, read at a CLS token, plus a dot product. A ranker."""

    type = "attention"
    reads = "tokens"

    class Params(Params):
        num_layers: int = Field(1, ge=1, le=64, description="Transformer layers.", json_schema_extra=tunable(1, 3))
        num_heads: int = Field(4, ge=1, le=256, description="Attention heads; must divide the feature dimension.")
        dropout: float = Field(
            0.0,
            ge=0,
            le=0.99,
            description="Fraction of values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )

    def __init__(self, dim: int, params: BaseModel | None = None, fields: Fields = ((), ())):
        super().__init__(dim, params, fields)
        check_heads(self.dim, self.params.num_heads, "/interaction/num_heads")
        self.sides = nn.Parameter(torch.randn(2, self.dim) * 0.02)
        self.cls = nn.Parameter(torch.randn(self.dim) * 0.02)
        self.layers = transformer(self.dim, self.params.num_layers, self.params.num_heads, self.params.dropout)
        self.out = nn.Linear(self.dim, 1)

    @property
    def pair_dim(self) -> int:
        return self.dim

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        # Each user is paired with each of its items: (batch * items, features, dim) on both sides.
        own = items if items.dim() == 4 else items.unsqueeze(0).expand(users.shape[0], *items.shape)
        wide = users.unsqueeze(1).expand(-1, own.shape[1], -1, -1)
        pooled = self._read(wide.flatten(0, 1), own.flatten(0, 1)).view(users.shape[0], own.shape[1], self.dim)
        return self.out(pooled).squeeze(-1) + dot(users.sum(1), items.sum(-2))

    def pair(self, users: Tensor, items: Tensor) -> Tensor:
        return self._read(users, items)

    def _read(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the state of the CLS token, (pairs, dim), of `users` and `items`, (pairs, features, dim) each."""
        cls = self.cls.expand(users.shape[0], 1, -1)
        return self.layers(torch.cat([cls, users + self.sides[0], items + self.sides[1]], 1))[:, 0]


def dot(users: Tensor, items: Tensor) -> Tensor:
    """Return dot products.

    Args:
        users: (batch, dim).
        items: (items, dim) shared by all users, or (batch, items, dim), each user's own.

    Returns:
        (batch, items).
    """
    if items.dim() == 2:
        return users @ items.T
    if items.shape[1] <= FEW:  # a batch of tiny matrix products takes longer than plain sums
        return (users.unsqueeze(1) * items).sum(-1)
    return torch.bmm(items, users.unsqueeze(-1)).squeeze(-1)

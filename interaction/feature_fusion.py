"""Ways to join an entity's feature vectors into one. Absent features have been replaced by learned vectors before."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Fusion, Params, Width
from anyrec.core.errors import ConfigError, Fault

OWN = {"identity", "history"}
"""Groups that are learned of the record itself."""


class Simple(Fusion):
    """Features side by side through a linear layer and, added to it, a multilayer perceptron. The default.

    The linear way lets an id's own vector pass as it was learned, which a perceptron alone would blur.
    """

    type = "simple"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [128], max_length=16, description="Widths of the perceptron's hidden layers."
        )
        dropout: float = Field(0.1, ge=0, le=0.99, description="Share of hidden values silenced in training.")
        layer_norm: bool = Field(True, description="Normalise each hidden layer.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        width = len(self.names) * self.dim
        self.linear = nn.Linear(width, self.output_dim)
        start_as_sum(self.linear, self.dim)
        if len(self.names) > 1:
            self.perceptron = perceptron(
                width, self.params.hidden_dims, self.output_dim, self.params.dropout, self.params.layer_norm
            )
            nn.init.zeros_(self.perceptron[-1].weight)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        flat = features.flatten(1)
        return self.linear(flat) + self.perceptron(flat) if len(self.names) > 1 else self.linear(flat)


class Concat(Fusion):
    """Features side by side through one linear layer."""

    type = "concat"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.linear = nn.Linear(len(self.names) * self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return self.linear(features.flatten(1))


class Sum(Fusion):
    """The sum of the features, each as it is."""

    type = "sum"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return self.resize(features.sum(1))


class Residual(Fusion):
    """The record's own vector (its id or its history) plus the other features, multiplied by scales that begin small.

    start * scale, one number per feature and dimension, the scale learned from 1 (after LayerScale, Touvron et al. 2021). `start`
    also slows what is learned through it, so that the other features cannot outrun the id: a vector that is the sum of ten learned
    ones moves ten times as far in a step as an id alone, and overfits before the ids have learned.

    A record without its history (a new user) gets its other features at full size, by a scale of its own (`alone`). Items whose id is
    hidden do not: with full-size content, ML-1M's validation ndcg@10 fell from 0.193 to 0.173 (benchmarks/RESULTS.md).
    """

    type = "residual"

    class Params(Params):
        start: float = Field(0.03, ge=1e-6, le=1, description="What the other features are multiplied by at first.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        groups = [name.split(".")[0] for name in self.names]
        own = torch.tensor([group in OWN for group in groups])
        self.start: Tensor
        self.register_buffer("start", torch.where(own | ~own.any(), 1.0, self.params.start).unsqueeze(1))
        self.scale = nn.Parameter(torch.ones(len(self.names), self.dim))
        self.own: Tensor
        self.register_buffer("own", own, persistent=False)
        splits = bool(own.any()) and not bool(own.all()) and "identity" not in groups
        self.alone = nn.Parameter(torch.ones(len(self.names), self.dim)) if splits else None
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        scale = self.start * self.scale  # (features, dim)
        if self.alone is not None:
            known = present[:, self.own].any(1)[:, None, None]  # (batch, 1, 1)
            scale = torch.where(known, scale, self.alone)
        return self.resize((features * scale).sum(1))


class Weighted(Fusion):
    """The features' mean under learned weights, one a feature, by softmax."""

    type = "weighted"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.weights = nn.Parameter(torch.zeros(len(self.names)))
        self.scale = nn.Parameter(torch.tensor(float(len(self.names))))
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        weights = self.weights.softmax(0) * self.scale
        return self.resize((features * weights.unsqueeze(-1)).sum(1))


class Gated(Fusion):
    """The sum of the features, each value let through by a gate that sees all of them."""

    type = "gated"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        width = len(self.names) * self.dim
        self.gate = nn.Linear(width, width)
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        gates = self.gate(features.flatten(1)).sigmoid().view_as(features)
        return self.resize((2 * gates * features).sum(1))


class Bilinear(Fusion):
    """The sum of the features and of the products of each two, in a space of `rank` (as in factorisation machines)."""

    type = "bilinear"

    class Params(Params):
        rank: int = Field(32, ge=1, le=4096, description="Dimension in which features are multiplied.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.lower = nn.Parameter(torch.randn(len(self.names), self.dim, self.params.rank) * self.dim**-0.5)
        self.linear = nn.Linear(self.dim, self.output_dim)
        self.crosses = nn.Linear(self.params.rank, self.output_dim, bias=False)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        lowered = torch.einsum("bfd,fdr->bfr", features, self.lower)
        square_of_sum, sum_of_squares = lowered.sum(1).square(), lowered.square().sum(1)
        # Of one feature there are no pairs; its own square stands for them, so that the weights still serve.
        pairs = (square_of_sum - sum_of_squares) / 2 if len(self.names) > 1 else sum_of_squares
        return self.linear(features.sum(1)) + self.crosses(pairs)


class Attention(Fusion):
    """A transformer over the features, read at a CLS token or averaged."""

    type = "attention"

    class Params(Params):
        num_layers: int = Field(1, ge=1, le=64, description="Transformer layers.")
        num_heads: int = Field(4, ge=1, le=256, description="Attention heads; must divide the feature dimension.")
        dropout: float = Field(0.1, ge=0, le=0.99)
        use_cls_token: bool = Field(
            True, description="Read the result at a token of its own; else average the features."
        )
        use_layer_norm: bool = Field(True, description="Normalise the result.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        check_heads(self.dim, self.params.num_heads, "/fusion/num_heads")
        self.feature_names = nn.Parameter(torch.randn(len(self.names), self.dim) * 0.02)
        if self.params.use_cls_token:
            self.cls = nn.Parameter(torch.randn(1, 1, self.dim) * 0.02)
        self.layers = transformer(self.dim, self.params.num_layers, self.params.num_heads, self.params.dropout)
        self.norm = nn.LayerNorm(self.dim) if self.params.use_layer_norm else nn.Identity()
        self.out = nn.Linear(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        tokens = features + self.feature_names
        if self.params.use_cls_token:
            tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        tokens = self.layers(tokens)
        pooled = tokens[:, 0] if self.params.use_cls_token else tokens.mean(1)
        return self.out(self.norm(pooled) + features.sum(1))


class Identity(Fusion):
    """The one feature as it is. ConfigError where there are several, or the dimensions differ."""

    type = "identity"

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        if len(self.names) != 1 or self.dim != self.output_dim:
            found = (
                f"there are {len(self.names)}: {', '.join(self.names)}"
                if len(self.names) != 1
                else "the dimensions differ"
            )
            raise ConfigError(
                Fault(
                    "/fusion/type",
                    f"'identity' needs one feature of the result's dimension; {found}.",
                    "Use 'sum' or 'simple'.",
                )
            )

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return features[:, 0]


def perceptron(width: int, hidden: list[int], out: int, dropout: float, layer_norm: bool = True) -> nn.Sequential:
    """Linear, norm, ReLU, dropout for each hidden width, then a linear layer."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size)]
        layers += [nn.LayerNorm(size)] if layer_norm else []
        layers += [nn.ReLU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out))


def transformer(dim: int, layers: int, heads: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def check_heads(dim: int, heads: int, where: str) -> None:
    if dim % heads:
        fitting = [number for number in range(1, dim + 1) if dim % number == 0 and number <= 16]
        raise ConfigError(Fault(where, f"{heads} heads do not divide {dim} dimensions.", f"Use one of {fitting}."))


def start_as_sum(linear: nn.Linear, dim: int) -> None:
    """Begin as the plain sum of the features where the dimensions allow it: then ids train as in a factorisation."""
    if linear.out_features == dim:
        with torch.no_grad():
            linear.weight.copy_(torch.eye(dim).repeat(1, linear.in_features // dim))
            linear.bias.zero_()


def resize(dim: int, out: int) -> nn.Module:
    return nn.Identity() if dim == out else nn.Linear(dim, out)

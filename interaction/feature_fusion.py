"""Fusions: they join the feature vectors of a user or item into one vector.

`Fusion.forward` has replaced absent features by learned vectors before `fuse` is called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from anyrec.core.contracts import Fusion, Params, Width
from anyrec.core.errors import ConfigError, Fault
from anyrec.core.params import tunable
from anyrec.core.row_masks import RowDropout

OWN = {"identity", "history"}
"""Feature groups whose vectors are learned for the single record."""


class Simple(Fusion):
    """A linear layer over the concatenated features, plus a multilayer perceptron. The default.

    The linear layer starts as the sum of the features and the perceptron as zero, so that ids train as in a matrix
    factorisation. A perceptron alone would have to learn to pass an id's vector on.
    """

    type = "simple"

    class Params(Params):
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [128], max_length=16, description="Units of the perceptron's hidden layers."
        )
        dropout: float = Field(
            0.1,
            ge=0,
            le=0.99,
            description="Fraction of hidden values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )
        layer_norm: bool = Field(True, description="Apply layer normalisation after each hidden layer.")

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        width = len(self.names) * self.dim
        self.linear = nn.Linear(width, self.output_dim)
        start_as_sum(self.linear, self.dim)
        if len(self.names) > 1:
            self.perceptron = perceptron(
                width, self.params.hidden_dims, self.output_dim, self.params.dropout, self.params.layer_norm
            )
            nn.init.zeros_(self.perceptron[-1].get_parameter("weight"))

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        flat = features.flatten(1)
        return self.linear(flat) + self.perceptron(flat) if len(self.names) > 1 else self.linear(flat)


class Concat(Fusion):
    """One linear layer over the concatenated features."""

    type = "concat"

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        self.linear = nn.Linear(len(self.names) * self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return self.linear(features.flatten(1))


class Sum(Fusion):
    """The sum of the features."""

    type = "sum"

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return self.resize(features.sum(1))


class Residual(Fusion):
    """The record's own vector (id or history) plus the other features, multiplied by scales that start small.

    The factor of a feature is start * scale, one number for each dimension, with a learned scale that begins at 1.
    `start` also reduces the gradient of the feature by the same factor, so that the other features cannot outrun the
    id: the sum of ten learned vectors moves ten times as far in a step as an id alone, and overfits before the ids
    have learned.

    If a record has no history (a new user), its other features are multiplied by a scale of its own (`alone`) that
    begins at 1. Items whose id is hidden keep the small scale: at full size, the validation ndcg@10 of ML-1M fell from
    0.193 to 0.173 (benchmarks/RESULTS.md).

    References:
        Touvron et al., Going Deeper with Image Transformers (LayerScale), 2021. Unlike LayerScale, the learned number
        begins at 1 and is multiplied by the constant `start`, which also slows its features' gradients.
    """

    type = "residual"
    start: Tensor
    """(features, 1) the constant factor: 1 for the own features, otherwise `Params.start`."""
    own: Tensor
    """(features,) bool, which features are the record's own."""

    class Params(Params):
        start: float = Field(
            0.03,
            ge=1e-6,
            le=1,
            description="Initial factor of the other features.",
            json_schema_extra=tunable(0.003, 0.3, log=True),
        )

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        groups = [name.split(".")[0] for name in self.names]
        own = torch.tensor([group in OWN for group in groups])
        self.register_buffer("start", torch.where(own | ~own.any(), 1.0, self.params.start).unsqueeze(1))
        self.scale = nn.Parameter(torch.ones(len(self.names), self.dim))
        self.register_buffer("own", own, persistent=False)
        splits = bool(own.any()) and not bool(own.all()) and "identity" not in groups
        self.alone = nn.Parameter(torch.ones(len(self.names), self.dim)) if splits else None
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        scale = self.start * self.scale  # (features, dim)
        if self.alone is not None:
            known = present[:, self.own].any(1)[:, None, None]  # (batch, 1, 1)
            scale = torch.where(known, scale, self.alone)  # (batch, features, dim)
        return self.resize((features * scale).sum(1))


class Weighted(Fusion):
    """The weighted sum of the features: one learned weight for each feature by softmax, times a learned scale."""

    type = "weighted"

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        self.weights = nn.Parameter(torch.zeros(len(self.names)))
        self.scale = nn.Parameter(torch.tensor(float(len(self.names))))  # starts as the plain sum
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        weights = self.weights.softmax(0) * self.scale
        return self.resize((features * weights.unsqueeze(-1)).sum(1))


class Gated(Fusion):
    """The sum of the features, each value multiplied by a gate that reads all features."""

    type = "gated"

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        width = len(self.names) * self.dim
        self.gate = nn.Linear(width, width)
        self.resize = resize(self.dim, self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        gates = self.gate(features.flatten(1)).sigmoid().view_as(features)
        return self.resize((2 * gates * features).sum(1))  # gates begin near 1/2, so this begins near the plain sum


class Bilinear(Fusion):
    """The sum of the features, and of their pairwise products in a space of dimension `rank`.

    References:
        Rendle, Factorization Machines, 2010: the sum over all pairs is (square of the sum - sum of the squares) / 2.
        Unlike a factorisation machine, each dimension of the products is kept and mapped to the output.
    """

    type = "bilinear"

    class Params(Params):
        rank: int = Field(
            32,
            ge=1,
            le=4096,
            description="Dimension in which features are multiplied.",
            json_schema_extra=tunable(8, 128, log=True),
        )

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        self.lower = nn.Parameter(torch.randn(len(self.names), self.dim, self.params.rank) * self.dim**-0.5)
        self.linear = nn.Linear(self.dim, self.output_dim)
        self.crosses = nn.Linear(self.params.rank, self.output_dim, bias=False)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        lowered = torch.einsum("bfd,fdr->bfr", features, self.lower)
        square_of_sum, sum_of_squares = lowered.sum(1).square(), lowered.square().sum(1)
        # One feature has no pairs. Its own square takes their place, so that the weights are not without effect.
        pairs = (square_of_sum - sum_of_squares) / 2 if len(self.names) > 1 else sum_of_squares
        return self.linear(features.sum(1)) + self.crosses(pairs)


class AttentionFusion(Fusion):
    """A transformer over the features, pooled at a CLS token or by the mean, plus the sum of the features."""

    type = "attention"

    class Params(Params):
        num_layers: int = Field(1, ge=1, le=64, description="Transformer layers.", json_schema_extra=tunable(1, 3))
        num_heads: int = Field(4, ge=1, le=256, description="Attention heads; must divide the feature dimension.")
        dropout: float = Field(
            0.1,
            ge=0,
            le=0.99,
            description="Fraction of values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )
        use_cls_token: bool = Field(True, description="Pool at a learned CLS token; otherwise average the features.")
        use_layer_norm: bool = Field(True, description="Apply layer normalisation to the pooled vector.")

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
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
            tokens = torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], 1)
        tokens = self.layers(tokens)
        pooled = tokens[:, 0] if self.params.use_cls_token else tokens.mean(1)
        return self.out(self.norm(pooled) + features.sum(1))


class SingleFeature(Fusion):
    """The only feature, unchanged. A ConfigError if there are several features or the dimensions differ."""

    type = "identity"

    def __init__(self, names: Sequence[str], dim: int, output_dim: int, params: BaseModel | None = None):
        super().__init__(names, dim, output_dim, params)
        if len(self.names) == 1 and self.dim == self.output_dim:
            return
        several = f"there are {len(self.names)}: {', '.join(self.names)}"
        found = several if len(self.names) != 1 else "the dimensions differ"
        what = f"'identity' needs one feature of the result's dimension; {found}."
        raise ConfigError(Fault("/fusion/type", what, "Use 'sum' or 'simple'."))

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        return features[:, 0]


def perceptron(width: int, hidden: list[int], out: int, dropout: float, layer_norm: bool = True) -> nn.Sequential:
    """Return a multilayer perceptron: linear, normalisation, ReLU and dropout for each hidden layer, then linear.

    Args:
        width: Dimension of the input.
        hidden: Units of the hidden layers.
        out: Dimension of the output.
        dropout: Dropout rate of hidden values.
        layer_norm: Whether hidden layers have layer normalisation.
    """
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size)]
        layers += [nn.LayerNorm(size)] if layer_norm else []
        layers += [nn.ReLU(), RowDropout(dropout)]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, out))


def transformer(dim: int, layers: int, heads: int, dropout: float) -> nn.TransformerEncoder:
    """Return a pre-norm transformer encoder over `(batch, tokens, dim)`."""
    layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def check_heads(dim: int, heads: int, where: str) -> None:
    """Raise ConfigError at `where`, a pointer into the config, if `heads` does not divide `dim`."""
    if dim % heads:
        fitting = [number for number in range(1, dim + 1) if dim % number == 0 and number <= 16]
        raise ConfigError(Fault(where, f"{heads} heads do not divide {dim} dimensions.", f"Use one of {fitting}."))


def start_as_sum(linear: nn.Linear, dim: int) -> None:
    """Initialise a layer over concatenated features to return their sum, if its output has their dimension.

    Ids then train as in a matrix factorisation.

    Args:
        linear: From (features * dim) to the output.
        dim: Dimension of each feature.
    """
    if linear.out_features == dim:
        with torch.no_grad():
            linear.weight.copy_(torch.eye(dim).repeat(1, linear.in_features // dim))
            linear.bias.zero_()


def resize(dim: int, out: int) -> nn.Module:
    """Return a linear layer from `dim` to `out`, or the identity if they are equal."""
    return nn.Identity() if dim == out else nn.Linear(dim, out)

"""Heads: predictions besides the match score, of the type of interaction and of the rating."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Head, Width
from anyrec.core.ragged import Prepared
from anyrec.core.row_masks import RowDropout


class HeadParams(Head.Params):
    """Options of both heads."""

    weight: float = Field(
        1.0, ge=0, le=1e6, description="Weight of this head's loss, relative to that of the match score."
    )
    hidden_dims: list[Width] = Field(
        default_factory=list, max_length=16, description="Units of hidden layers; none for a linear head."
    )
    dropout: float = Field(0.0, ge=0, le=0.99, description="Fraction of hidden values set to zero in training.")


class InteractionType(Head):
    """The type of interaction, as probabilities of the types seen in training, by cross entropy."""

    type = "interaction_type"
    target = "interaction_type"
    task = "classes"

    class Params(HeadParams):
        pass

    def fit(self, column: pa.Array) -> None:
        self.classes = column.drop_null().unique().sort()

    def build(self) -> None:
        self.layers = _layers(self.dim, self.params, max(1, len(self.classes)))

    def targets(self, column: pa.Array) -> Prepared:
        """Return (rows,) int64 classes; types that are unknown or null are absent."""
        places = (
            pc.fill_null(pc.index_in(column, value_set=self.classes), -1)
            .to_numpy(zero_copy_only=False)
            .astype(np.int64)
        )
        return Prepared(torch.from_numpy(np.maximum(places, 0)), torch.from_numpy(places >= 0))

    def forward(self, pair: Tensor) -> Tensor:
        """Return (batch, classes) log probabilities of `pair: (batch, dim)`."""
        return self.layers(pair).log_softmax(-1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return functional.nll_loss(prediction, target, reduction="none")

    def answer(self, prediction: Tensor) -> Tensor:
        """Return (batch, classes) probabilities."""
        return prediction.exp()

    def class_names(self) -> list[str]:
        return [str(name) for name in self.classes.to_pylist()]

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def restore(self, state: dict[str, Any]) -> None:
        self.classes = state["classes"]


class Rating(Head):
    """The rating, in its own units, by the squared error divided by the variance of the training ratings."""

    type = "rating"
    target = "rating"
    task = "number"

    class Params(HeadParams):
        pass

    def fit(self, column: pa.Array) -> None:
        values = column.drop_null().to_numpy(zero_copy_only=False)
        self.mean = float(values.mean()) if len(values) else 0.0
        self.deviation = float(values.std()) or 1.0 if len(values) else 1.0

    def build(self) -> None:
        self.layers = _layers(self.dim, self.params, 1)

    def targets(self, column: pa.Array) -> Prepared:
        """Return (rows,) float32 ratings; nulls are absent."""
        return _numbers(column)

    def forward(self, pair: Tensor) -> Tensor:
        """Return (batch,) ratings of `pair: (batch, dim)`."""
        return self.layers(pair).squeeze(-1) * self.deviation + self.mean

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target) / self.deviation).square()

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]


def _layers(dim: int, params: HeadParams, out: int) -> nn.Sequential:
    """Return a perceptron from `dim` to `out` with the hidden layers of the options."""
    layers: list[nn.Module] = []
    for width in params.hidden_dims:
        layers += [nn.Linear(dim, width), nn.ReLU(), RowDropout(params.dropout)]
        dim = width
    return nn.Sequential(*layers, nn.Linear(dim, out))


def _numbers(column: pa.Array) -> Prepared:
    """Return (rows,) float32 numbers, and which of them are not null."""
    present = column.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(column.cast(pa.float32()), 0.0).to_numpy(zero_copy_only=False)
    return Prepared(torch.from_numpy(values.copy()), torch.from_numpy(present.copy()))

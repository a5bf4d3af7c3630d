"""A fusion that gates between a record's id and its content, and trains the content to imitate the id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Fusion, Params, Width
from anyrec.core.params import tunable
from anyrec.core.precision import at_least_float32
from anyrec.interaction.feature_fusion import perceptron, resize, start_as_sum

GROUP = "identity"
"""Feature group of the id."""


class AdaptiveMimic(Fusion):
    """gate * id + (1 - gate) * content; the content alone for an id that is unknown or hidden.

    The content features pass a linear layer and a perceptron, whose sum is one vector c in the space of the id's
    vector e. The gate reads both, and which features are present. It has a value for each dimension, because the
    content predicts some of them (a film's genre) much earlier in training than others (its popularity). Without an
    id the result is exactly c, without any content exactly e, and without both the gated mean of the learned
    stand-ins. A tower without an id feature returns c, and a tower with nothing else e.

    For records that have both, `penalty` adds the weighted distance 1 - cosine(c, e) to the loss, with e detached.
    `id_dropout` then trains c alone, as at inference for a new record.

    References:
        Yu et al., A Dual Augmented Two-tower Model for Online Large-scale Recommendation, 2021 (the adaptive-mimic
        mechanism). The paper imitates the vector of the other tower by squared distance. Here content imitates the id
        of its own record, and by cosine: untrained ids are noise, and the squared distance to noise shrank the
        content to zero before the ids had learned anything.

        Volkovs et al., DropoutNet, 2017 (hiding ids in training).
    """

    type = "adaptive_mimic"

    class Params(Params):
        mimic: float = Field(
            0.1,
            ge=0,
            le=1e6,
            description="Weight of the loss that pulls content towards the id's vector.",
            json_schema_extra=tunable(0.01, 1.0, log=True),
        )
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [128],
            max_length=16,
            description="Units of the hidden layers of the content's perceptron.",
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
        ids = [place for place, name in enumerate(self.names) if name.split(".")[0] == GROUP]
        self.id = ids[0] if ids else None
        self.content = [place for place in range(len(self.names)) if place != self.id]
        if self.id is not None:
            self.resize = resize(self.dim, self.output_dim)
        if self.content:
            width = len(self.content) * self.dim
            self.linear = nn.Linear(width, self.output_dim)
            start_as_sum(self.linear, self.dim)
            options = self.params
            self.perceptron = perceptron(
                width, options.hidden_dims, self.output_dim, options.dropout, options.layer_norm
            )
            for value in self.perceptron[-1].parameters():
                nn.init.zeros_(value)
        if self.id is not None and self.content:
            self.gate = nn.Linear(2 * self.output_dim + len(self.names), self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        if self.id is None:
            return self.content_vector(features)
        e = self.resize(features[:, self.id])
        if not self.content:
            return e
        c = self.content_vector(features[:, self.content])
        has_id = present[:, self.id].unsqueeze(1)  # (batch, 1)
        has_content = present[:, self.content].any(1, keepdim=True)  # (batch, 1)
        if self.training and self.params.mimic:
            both = has_id & has_content
            self.penalty, self.penalty_rows = self.params.mimic * cosine_distance(c, e.detach(), both), both.sum()
        gate = self.gate(torch.cat([e, c, present.to(e.dtype)], 1)).sigmoid()
        mixed = gate * e + (1 - gate) * c
        return torch.where(has_id == has_content, mixed, torch.where(has_id, e, c))

    def content_vector(self, content: Tensor) -> Tensor:
        """Return c, (batch, output_dim), of `content: (batch, features, dim)`."""
        flat = content.flatten(1)
        return self.linear(flat) + self.perceptron(flat)


def cosine_distance(c: Tensor, e: Tensor, both: Tensor) -> Tensor:
    """Return the mean of 1 - cosine over the rows of `both`, or 0 if there are none.

    Args:
        c: (batch, dim).
        e: (batch, dim).
        both: (batch, 1) bool, the rows that count.
    """
    distances = 1 - functional.cosine_similarity(at_least_float32(c), at_least_float32(e), dim=1)
    here = both.squeeze(1)
    return (distances * here).sum() / here.sum().clamp(min=1)

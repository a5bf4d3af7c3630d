"""A gate between a record's id and its content, which is taught to say what the id would: for ids not seen yet."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Fusion, Params, Width
from anyrec.interaction.feature_fusion import perceptron, resize, start_as_sum

GROUP = "identity"


class AdaptiveMimic(Fusion):
    """g * id + (1 - g) * content, where content speaks alone for an id that is unknown or hidden.

    The content features, through a linear layer and a perceptron, make one vector c in the space of the id's vector e.
    The gate g sees both and which features are there. It has a value for each dimension: content tells some of them
    (a film's genre) long before others (its fame). Without an id the result is exactly c, without any content exactly
    e, with neither the gated stand-ins. A tower that has no id, or nothing else, is c, or e.

    `penalty` turns c towards the detached e where a row has both, as the adaptive-mimic mechanism does (Yu et al., A Dual
    Augmented Two-tower Model, 2021). The paper takes the squared distance and mimics the other tower's vectors; here
    content mimics its own record's id, as in DropoutNet (Volkovs et al., 2017), and by the cosine: ids are noise at
    first, and the distance to noise shrank content to nothing before they meant anything. `id_dropout` trains c alone.
    """

    type = "adaptive_mimic"

    class Params(Params):
        mimic: float = Field(0.1, ge=0, le=1e6, description="Weight of the pull of content towards the id's vector.")
        hidden_dims: list[Width] = Field(
            default_factory=lambda: [128],
            max_length=16,
            description="Widths of the hidden layers of the content's perceptron.",
        )
        dropout: float = Field(0.1, ge=0, le=0.99, description="Share of hidden values silenced in training.")
        layer_norm: bool = Field(True, description="Normalise each hidden layer.")

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        ids = [place for place, name in enumerate(self.names) if name.split(".")[0] == GROUP]
        self.id = ids[0] if ids else None
        self.content = [place for place in range(len(self.names)) if place != self.id]
        if self.id is not None:
            self.resize = resize(self.dim, self.output_dim)
        if self.content:
            width = len(self.content) * self.dim
            self.linear = nn.Linear(width, self.output_dim)
            start_as_sum(self.linear, self.dim)
            params = self.params
            self.perceptron = perceptron(width, params.hidden_dims, self.output_dim, params.dropout, params.layer_norm)
            for value in self.perceptron[-1].parameters():
                nn.init.zeros_(value)
        if self.id is not None and self.content:
            self.gate = nn.Linear(2 * self.output_dim + len(self.names), self.output_dim)

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        if self.id is None:
            return self._speak(features)
        e = self.resize(features[:, self.id])
        if not self.content:
            return e
        c = self._speak(features[:, self.content])
        known, told = present[:, self.id].unsqueeze(1), present[:, self.content].any(1, keepdim=True)
        if self.training and self.params.mimic:
            self.penalty = self.params.mimic * distance(c, e.detach(), known & told)
        gate = self.gate(torch.cat([e, c, present.to(e.dtype)], 1)).sigmoid()
        mixed = gate * e + (1 - gate) * c
        return torch.where(known == told, mixed, torch.where(known, e, c))

    def _speak(self, content: Tensor) -> Tensor:
        """content: (batch, features, dim) -> (batch, output_dim)."""
        flat = content.flatten(1)
        return self.linear(flat) + self.perceptron(flat)


def distance(c: Tensor, e: Tensor, both: Tensor) -> Tensor:
    """The mean of 1 - cosine of c and e, both (batch, dim), over the rows of `both: (batch, 1)`; 0 where there are none."""
    apart = 1 - functional.cosine_similarity(c.float(), e.float(), dim=1)
    here = both.squeeze(1)
    return (apart * here).sum() / here.sum().clamp(min=1)

"""A running average of the weights, which wavers less from step to step than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EARLY = 10
"""The average follows quickly at first: over about a tenth of the steps taken so far."""


class Average:
    """The exponential moving average of a model's parameters (Polyak and Juditsky, 1992, with a fading memory)."""

    def __init__(self, model: nn.Module, steps: float):
        """steps: over about so many the average is taken."""
        self.decay = 1 - 1 / max(1.0, steps)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """step: how many were taken."""
        decay = min(self.decay, (step + 1) / (step + 1 + EARLY))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While it lasts, the model has the average for its weights."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put(self.values)
        yield
        self.put(kept)

    @torch.no_grad()
    def put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from what `values` held."""
        for name, value in self.values.items():
            value.copy_(values[name])

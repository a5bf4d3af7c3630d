"""An exponential moving average of the weights, which varies less from step to step than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EARLY = 10
"""After n steps, the average covers at most about n / EARLY steps, so that early weights are forgotten."""


class Average:
    """The exponential moving average of a model's trained parameters.

    After step n the average moves towards the weights by the fraction max(1 / steps, EARLY / (n + 1 + EARLY)).

    Args:
        model: The model, whose present weights are the first average.
        steps: Steps that the average covers, about.

    Attributes:
        values: The averaged parameters by name.

    References:
        Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992. The paper averages all steps
        with equal weights.
    """

    def __init__(self, model: nn.Module, steps: float):
        self.decay = 1 - 1 / max(1.0, steps)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the present weights in the average.

        Args:
            step: Steps taken so far, from 1.
        """
        decay = min(self.decay, (step + 1) / (step + 1 + EARLY))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights within the block."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put(self.values)
        try:
            yield
        finally:
            self.put(kept)

    @torch.no_grad()
    def put(self, values: dict[str, Tensor]) -> None:
        """Copy `values`, by parameter name, into the model."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def load(self, values: dict[str, Tensor]) -> None:
        """Restore the average of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])

"""Numbers, standardised by the training rows, then encoded linearly, by sines or by quantile bins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Encoder, Params, only_with
from anyrec.core.ragged import Prepared, tensors
from anyrec.data.preparation.numbers import list_width, numbers, scale, scaling_of, standardised


class Continuous(Encoder):
    """A number, or a list with as many numbers in each record, standardised by the mean and deviation in training.

    `linear` projects the standardised numbers. `periodic` adds sines and cosines of learned frequencies. `piecewise`
    adds, for each quantile bin of the training data, the fraction of it that lies below the number.

    References:
        Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022. Unlike the paper, the
        standardised number itself is always among the inputs, and one linear layer projects all numbers of a list.
    """

    type = "continuous"
    preparation = "continuous"
    starts: Tensor
    """(width, bins) the lower edges of the bins of `piecewise`."""
    widths: Tensor
    """(width, bins) their widths."""

    class Params(Params):
        encoding: Literal["linear", "periodic", "piecewise"] = Field(
            "piecewise", description="How a standardised number becomes a vector."
        )
        bins: int = Field(
            16,
            ge=2,
            le=1024,
            description="Quantile bins of `piecewise`, frequencies of `periodic`.",
            json_schema_extra=only_with(encoding=["piecewise", "periodic"]),
        )
        clip: float = Field(
            5.0, ge=1e-3, le=1e6, description="Numbers are limited to this many standard deviations from the mean."
        )

    def fit(self, column: pa.Array) -> None:
        """Learn the mean, the standard deviation and the quantiles of each number.

        A deviation that is only rounding error (a constant feature) counts as 1.
        """
        self.width = list_width(column)
        values, present = numbers(column, self.width)
        known = values[present]
        if not len(known):
            known = np.zeros((1, self.width))
        self.mean = known.mean(0).tolist()
        deviation = known.std(0)
        self.deviation = np.where(deviation > 1e-12 * (1 + np.abs(known).max(0)), deviation, 1.0).tolist()
        scaled = scale(known, self.mean, self.deviation, self.params.clip)
        self.edges = np.quantile(scaled, np.linspace(0, 1, self.params.bins + 1), axis=0).T.tolist()

    def prepare(self, column: pa.Array) -> Prepared:
        """Standardise and limit the numbers.

        Args:
            column: (records,) numbers, or lists of them.

        Returns:
            (records, width) float32. A record is absent if a number is missing or not finite, or if its list has
            another length than `width`.
        """
        return tensors(standardised(column, self.mean, self.deviation, self.params.clip))

    def build(self) -> None:
        """Create the projection, and the frequencies or bins."""
        width, bins = self.width, self.params.bins
        if self.params.encoding == "periodic":
            self.frequencies = nn.Parameter(torch.randn(width, bins))
            self.project = nn.Linear(width * (2 * bins + 1), self.output_dim)
        elif self.params.encoding == "piecewise":
            edges = torch.tensor(self.edges, dtype=torch.float32)
            self.register_buffer("starts", edges[:, :-1].contiguous(), persistent=False)
            # Equal quantiles make a bin of width 0; the minimum turns it into a step.
            self.register_buffer("widths", (edges[:, 1:] - edges[:, :-1]).clamp(min=1e-6), persistent=False)
            self.project = nn.Linear(width * (bins + 1), self.output_dim)
        else:
            self.project = nn.Linear(width, self.output_dim)

    def forward(self, values: Tensor) -> Tensor:
        """Encode standardised numbers.

        Args:
            values: (batch, width) standardised numbers.

        Returns:
            (batch, output_dim).
        """
        if self.params.encoding == "periodic":
            angle = 2 * torch.pi * values.unsqueeze(-1) * self.frequencies  # (batch, width, bins)
            parts = torch.cat([values.unsqueeze(-1), angle.sin(), angle.cos()], -1)
        elif self.params.encoding == "piecewise":
            filled = ((values.unsqueeze(-1) - self.starts) / self.widths).clamp(0, 1)  # (batch, width, bins)
            parts = torch.cat([values.unsqueeze(-1), filled], -1)
        else:
            return self.project(values)
        return self.project(parts.flatten(1))

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "mean": self.mean, "deviation": self.deviation, "edges": self.edges}

    def restore(self, state: dict[str, Any]) -> None:
        self.width, self.edges = int(state["width"]), state["edges"]
        self.mean, self.deviation = scaling_of(state, self.width)
        if len(self.edges) != self.width:
            raise ValueError(f"edges of {len(self.edges)} numbers, not {self.width}")

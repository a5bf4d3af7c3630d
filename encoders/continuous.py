"""Numbers, standardised by the training rows, then encoded linearly, by sines or by quantile bins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Encoder, Params, only_with
from anyrec.core.ragged import Prepared


class Continuous(Encoder):
    """A number, or a list with as many numbers in each record, standardised by the mean and deviation in training.

    `linear` projects the standardised numbers. `periodic` adds sines and cosines of learned frequencies. `piecewise`
    adds, for each quantile bin of the training data, the fraction of it that lies below the number.

    References:
        Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, 2022. Unlike the paper, the
        standardised number itself is always among the inputs, and one linear layer projects all numbers of a list.
    """

    type = "continuous"
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
        scaled = self._scale(known)
        self.edges = np.quantile(scaled, np.linspace(0, 1, self.params.bins + 1), axis=0).T.tolist()

    def prepare(self, column: pa.Array) -> Prepared:
        """Standardise and limit the numbers.

        Args:
            column: (records,) numbers, or lists of them.

        Returns:
            (records, width) float32. A record is absent if a number is missing or not finite, or if its list has
            another length than `width`.
        """
        values, present = numbers(column, self.width)
        scaled = np.where(present[:, None], self._scale(np.where(present[:, None], values, 0.0)), 0.0)
        return Prepared(torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(present))

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

    def _scale(self, values: np.ndarray) -> np.ndarray:
        scaled = (values - np.array(self.mean)) / np.array(self.deviation)
        return np.clip(scaled, -self.params.clip, self.params.clip)

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "mean": self.mean, "deviation": self.deviation, "edges": self.edges}

    def restore(self, state: dict[str, Any]) -> None:
        self.width, self.edges = int(state["width"]), state["edges"]
        self.mean, self.deviation = scaling_of(state, self.width)
        if len(self.edges) != self.width:
            raise ValueError(f"edges of {len(self.edges)} numbers, not {self.width}")


def scaling_of(state: dict[str, Any], width: int) -> tuple[list[float], list[float]]:
    """Return `mean` and `deviation` of a saved state.

    Raises:
        ValueError: If either is not `width` finite numbers, or a deviation is not above 0.
    """
    mean, deviation = (np.asarray(state[name], np.float64) for name in ("mean", "deviation"))
    finite = np.isfinite(mean).all() and np.isfinite(deviation).all()
    if mean.shape != (width,) or deviation.shape != (width,) or not finite or (deviation <= 0).any():
        raise ValueError(f"mean and deviation of {width} finite numbers were expected")
    return mean.tolist(), deviation.tolist()


def list_width(column: pa.Array) -> int:
    """Return how many numbers a record has: 1, or the most frequent length of the column's lists."""
    if not pa.types.is_list(column.type):
        return 1
    lengths = pc.list_value_length(column).drop_null()
    return max(1, int(pc.mode(lengths)[0]["mode"].as_py())) if len(lengths) else 1


def numbers(column: pa.Array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a column of numbers or of lists of numbers.

    Args:
        column: (records,).
        width: Numbers that a record must have.

    Returns:
        (records, width) float64, zeros for the other records; and (records,) bool, which records have `width` finite
        numbers.
    """
    rows = len(column)
    values = np.zeros((rows, width))
    if pa.types.is_list(column.type):
        whole = pc.fill_null(pc.equal(pc.list_value_length(column), width), False).to_numpy(zero_copy_only=False)
        flat = column.filter(pa.array(whole)).flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        values[whole] = flat.reshape(-1, width)
    elif width == 1:
        values[:, 0] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        whole = np.ones(rows, bool)
    else:
        whole = np.zeros(rows, bool)
    present = whole & np.isfinite(values).all(1)
    values[~present] = 0.0
    return values, present

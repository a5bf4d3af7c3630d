"""Sequences of numbers, and timestamps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Encoder, Params, only_with
from anyrec.core.ragged import Prepared, Ragged, tensors, tensors_of
from anyrec.data.preparation.numbers import scaling_of
from anyrec.data.preparation.sequences import last_numbers, sequence_statistics, summarised_times


class Sequence(Encoder):
    """A sequence of numbers of any length, oldest first, standardised by the training values.

    `statistics` summarises it by mean, standard deviation, minimum, maximum, first, last, slope and log length. `gru`
    and `transformer` read the last `max_length` numbers in order.
    """

    type = "sequence"
    group = "temporal"
    role = "numbers"
    preparation = "sequence"

    class Params(Params):
        pooling: Literal["statistics", "gru", "transformer"] = Field(
            "statistics", description="How the sequence becomes one vector."
        )
        max_length: int = Field(
            64,
            ge=1,
            le=10_000,
            description="Numbers that `gru` and `transformer` read, the last ones of the sequence.",
            json_schema_extra=only_with(pooling=["gru", "transformer"]),
        )
        hidden_dim: int = Field(
            32,
            ge=2,
            le=4096,
            description="Hidden dimension of `gru` and `transformer`.",
            json_schema_extra=only_with(pooling=["gru", "transformer"]),
        )
        clip: float = Field(
            5.0, ge=1e-3, le=1e6, description="Numbers are limited to this many standard deviations from the mean."
        )

    def fit(self, column: pa.Array) -> None:
        """Learn the mean and the standard deviation of all finite numbers; a constant has the deviation 1."""
        values = column.flatten().drop_null().cast(pa.float64()).to_numpy(zero_copy_only=False)
        values = values[np.isfinite(values)]
        self.mean = float(values.mean()) if len(values) else 0.0
        deviation = float(values.std()) if len(values) else 1.0
        self.deviation = deviation if deviation > 1e-12 * (1 + abs(self.mean)) else 1.0

    def prepare(self, column: pa.Array) -> Ragged | Prepared:
        """Standardise the numbers.

        Args:
            column: (records,) lists of numbers. Numbers that are not finite are left out.

        Returns:
            The statistics, (records, 8) float32; or, for `gru` and `transformer`, the last numbers of each record,
            float32. A record without a number is absent.
        """
        scaling = self.mean, self.deviation, self.params.clip
        if self.params.pooling == "statistics":
            return tensors(sequence_statistics(column, *scaling))
        return tensors_of(last_numbers(column, *scaling, self.params.max_length))

    def build(self) -> None:
        """Create the sequence model, if there is one, and the projection."""
        width = self.params.hidden_dim
        if self.params.pooling == "gru":
            self.reader = nn.GRU(1, width, batch_first=True)
        elif self.params.pooling == "transformer":
            self.lift = nn.Linear(1, width)
            self.positions = nn.Parameter(torch.randn(self.params.max_length, width) * 0.02)
            self.reader = nn.TransformerEncoderLayer(
                width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True
            )
        self.project = nn.Linear(8 if self.params.pooling == "statistics" else width, self.output_dim)

    def forward(self, values: Tensor | Ragged) -> Tensor:
        """Project the statistics, or run the sequence model over the numbers.

        Args:
            values: Statistics (batch, 8), or the numbers of each of `batch` records.

        Returns:
            (batch, output_dim).
        """
        if isinstance(values, Tensor):
            return self.project(values)
        if not values.rows or not values.values.shape[0]:
            return self.project(self.project.weight.new_zeros(values.rows, self.params.hidden_dim))
        lengths = values.lengths
        padded, mask = values.pad()  # (batch, longest)
        last = (lengths - 1).clamp(min=0)
        if self.params.pooling == "gru":
            states, _ = self.reader(padded.unsqueeze(-1))
            pooled = states[torch.arange(values.rows, device=last.device), last] * (lengths > 0).unsqueeze(1)
        else:
            # Positions count from the end, so that the newest number always has the same one.
            from_end = (last.unsqueeze(1) - torch.arange(padded.shape[1], device=last.device)).clamp(min=0)
            lifted = self.lift(padded.unsqueeze(-1)) + self.positions[from_end]
            hidden = ~mask
            hidden[:, 0] &= lengths > 0  # an empty row keeps one token: a softmax over none is NaN
            states = self.reader(lifted, src_key_padding_mask=hidden)
            pooled = (states * mask.unsqueeze(-1)).sum(1) / lengths.clamp(min=1).unsqueeze(1)
        return self.project(pooled)

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation}

    def restore(self, state: dict[str, Any]) -> None:
        (self.mean,), (self.deviation,) = scaling_of({name: [state[name]] for name in ("mean", "deviation")}, 1)


class Timestamps(Encoder):
    """Timestamps, oldest first: time of day, weekday and season, last and on average; recency, span, gap, count."""

    type = "timestamps"
    group = "temporal"
    role = "timestamps"
    preparation = "timestamps"

    def fit(self, column: pa.Array) -> None:
        """Learn the newest time of the training rows."""
        values = column.flatten().drop_null().cast(pa.int64())
        self.newest = pc.max(values).as_py() or 0

    def prepare(self, column: pa.Array) -> Prepared:
        """Summarise the timestamps of each record.

        Args:
            column: (records,) lists of timestamps.

        Returns:
            (records, 16) float32, as `anyrec.data.preparation.sequences.summarised_times` describes them. A record
            without a timestamp is absent.
        """
        return tensors(summarised_times(column, self.newest))

    def state(self) -> dict[str, Any]:
        return {"newest": self.newest}

    def restore(self, state: dict[str, Any]) -> None:
        self.newest = int(state["newest"])

"""A record's own id as a learned vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.contracts import Encoder, Params
from anyrec.data.dataset import rows_of
from anyrec.ragged import Prepared


class Identity(Encoder):
    """One learned vector for each id seen in training; an unknown id is missing."""

    type = "identity"

    class Params(Params):
        sparse: bool = Field(False, description="Give this table sparse gradients whatever its size.")
        dropout: float = Field(0.0, ge=0, lt=1, description="Share of each vector's values silenced in training.")
        init_std: float | None = Field(
            None, gt=0, description="Spread of the first vectors; by default 1 / sqrt(dimension)."
        )

    def fit(self, column: pa.Array) -> None:
        self.vocabulary = column.drop_null().unique().sort()

    def prepare(self, column: pa.Array) -> Prepared:
        rows = rows_of(column, self.vocabulary)
        return Prepared(torch.from_numpy(np.maximum(rows, 0)), torch.from_numpy(rows >= 0))

    def build(self) -> None:
        self.table = nn.Embedding(max(1, len(self.vocabulary)), self.output_dim, sparse=self.params.sparse)
        nn.init.normal_(self.table.weight, std=self.params.init_std or self.output_dim**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        """values: (batch,) rows of the vocabulary -> (batch, output_dim)."""
        return functional.dropout(self.table(values), self.params.dropout, self.training)

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

"""A record's own id as a learned vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Prepared
from anyrec.data.ids import rows_of


class Identity(Encoder):
    """One learned vector for each id seen in training; an unknown id is missing.

    With `graph_layers` the vectors are passed along the graph of training positives (`anyrec.model.graph`, LightGCN), which the
    frame joins to `propagate`. The weights that are saved hold the outcome: a loaded model needs no graph.
    """

    type = "identity"
    propagate: Callable[[], Tensor] | None = None
    """() -> (ids, output_dim)"""
    start: nn.Parameter
    propagated: Tensor

    class Params(Params):
        sparse: bool = Field(False, description="Give this table sparse gradients whatever its size.")
        dropout: float = Field(0.0, ge=0, le=0.99, description="Share of each vector's values silenced in training.")
        init_std: float | None = Field(
            None, ge=1e-6, le=1000, description="Spread of the first vectors; by default 1 / sqrt(dimension)."
        )
        graph_layers: int = Field(
            0,
            ge=0,
            le=8,
            description="Times that vectors are passed along the graph of training positives; the same for both sides.",
        )

        @model_validator(mode="after")
        def _a_graph_is_dense(self) -> Identity.Params:
            if self.sparse and self.graph_layers:
                raise ValueError("sparse cannot go with graph_layers (each step moves every vector); leave one out")
            return self

    @property
    def graph_layers(self) -> int:
        return self.params.graph_layers

    @classmethod
    def wants_sparse_gradients(cls, params: BaseModel) -> bool:
        return isinstance(params, Identity.Params) and params.sparse

    def fit(self, column: pa.Array) -> None:
        self.vocabulary = column.drop_null().unique().sort()

    def prepare(self, column: pa.Array) -> Prepared:
        rows = rows_of(column, self.vocabulary)
        return Prepared(torch.from_numpy(np.maximum(rows, 0)), torch.from_numpy(rows >= 0))

    def build(self) -> None:
        rows, std = max(1, len(self.vocabulary)), self.params.init_std or self.output_dim**-0.5
        if self.params.graph_layers:
            self.start = nn.Parameter(torch.empty(rows, self.output_dim).normal_(std=std))
            self.register_buffer("propagated", self.start.detach().clone())
            return
        self.table = nn.Embedding(rows, self.output_dim, sparse=self.params.sparse)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, values: Tensor) -> Tensor:
        """values: (batch,) rows of the vocabulary -> (batch, output_dim)."""
        vectors = functional.embedding(values, self._passed()) if self.params.graph_layers else self.table(values)
        return functional.dropout(vectors, self.params.dropout, self.training)

    def _passed(self) -> Tensor:
        """(ids, output_dim) what the graph makes of the vectors; without one, what was saved of it."""
        if self.propagate is not None:
            return self.propagate()
        return self.start if self.training else self.propagated

    def _save_to_state_dict(self, *arguments: Any) -> None:
        if self.propagate is not None:
            with torch.no_grad():
                self.propagated.copy_(self.propagate())
        super()._save_to_state_dict(*arguments)

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

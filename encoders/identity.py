"""A record's own id as a learned vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Encoder, Params
from anyrec.core.params import tunable
from anyrec.core.ragged import Prepared, tensors
from anyrec.core.row_masks import dropout
from anyrec.core.sharded_tables import make_table
from anyrec.data.preparation.ids import places_of_ids


class Identity(Encoder):
    """One learned vector for each id seen in training; an unknown id is missing.

    With `graph_layers` the vectors are propagated over the graph of training positives (`anyrec.model.graph`), which
    the frame connects by setting `propagate`. The saved weights include the propagated vectors, so a loaded model
    needs no graph.

    References:
        He et al., LightGCN, 2020 (`graph_layers`).
    """

    type = "identity"
    preparation = "identity"
    propagate: Callable[[], Tensor] | None = None
    """Returns the propagated vectors, (ids, output_dim); None if no graph is connected."""
    start: nn.Parameter
    """(ids, output_dim) the vectors before propagation, if `graph_layers` is set."""
    propagated: Tensor
    """(ids, output_dim) the propagated vectors when the weights were last saved, if `graph_layers` is set."""

    class Params(Params):
        sparse: bool = Field(False, description="Use sparse gradients for this table, whatever its size.")
        dropout: float = Field(
            0.0,
            ge=0,
            le=0.99,
            description="Fraction of each vector's values set to zero in training.",
            json_schema_extra=tunable(0.0, 0.5),
        )
        init_std: float | None = Field(
            None,
            ge=1e-6,
            le=1000,
            description="Standard deviation of the initial vectors; null for 1 / sqrt(dimension): unit length.",
        )
        graph_layers: int = Field(
            0,
            ge=0,
            le=8,
            description="Propagation steps over the graph of training positives (LightGCN); one value for both sides.",
        )

        @model_validator(mode="after")
        def _propagation_is_dense(self) -> Identity.Params:
            if self.sparse and self.graph_layers:
                raise ValueError("sparse cannot go with graph_layers (each step changes every vector); leave one out")
            return self

    @property
    def graph_layers(self) -> int:
        return self.params.graph_layers

    def fit(self, column: pa.Array) -> None:
        """Learn the ids, in ascending order."""
        self.vocabulary = column.drop_null().unique().sort()

    def prepare(self, column: pa.Array) -> Prepared:
        """Return (records,) int64 rows of the vocabulary; a record with an unknown id is absent."""
        return tensors(places_of_ids(column, self.vocabulary))

    def build(self) -> None:
        """Create the vectors."""
        rows, std = max(1, len(self.vocabulary)), self.params.init_std or self.output_dim**-0.5
        if self.params.graph_layers:
            self.start = nn.Parameter(torch.empty(rows, self.output_dim).normal_(std=std))
            self.register_buffer("propagated", self.start.detach().clone())
            return
        shard_rows = self.context.shard_rows
        self.table = make_table(rows, self.output_dim, std=std, sparse=self.params.sparse, shard_rows=shard_rows)

    def extend(self, ids: pa.Array, start: Tensor) -> None:
        """Append ids, whose vectors start as `start`. With `graph_layers` nothing is appended: they have no edges."""
        if self.params.graph_layers:
            return
        known = self.table.weight.detach()[: len(self.vocabulary)]
        self.vocabulary = pa.concat_arrays([self.vocabulary, ids.cast(self.vocabulary.type)])
        weight = torch.cat([known, start.detach().expand(len(ids), -1)])
        options = {"sparse": self.table.sparse, "max_norm": self.table.max_norm}
        self.table = nn.Embedding.from_pretrained(weight, freeze=False, **options)

    def forward(self, values: Tensor) -> Tensor:
        """Look up the vectors of ids.

        Args:
            values: (batch,) int64 rows of the vocabulary.

        Returns:
            (batch, output_dim).
        """
        vectors = functional.embedding(values, self._vectors()) if self.params.graph_layers else self.table(values)
        return dropout(vectors, self.params.dropout, self.training)

    def exported_layers(self) -> nn.Module:
        """Return the vectors as a table: an export has no graph."""
        return nn.Embedding.from_pretrained(self._vectors().detach()) if self.params.graph_layers else self

    def _vectors(self) -> Tensor:
        """Return (ids, output_dim), the propagated vectors: from the graph if one is connected, else the saved ones."""
        if self.propagate is not None:
            return self.propagate()
        return self.start if self.training else self.propagated

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Update `propagated` before torch saves it."""
        if self.propagate is not None:
            with torch.no_grad():
                self.propagated.copy_(self.propagate())
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

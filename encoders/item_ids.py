"""Lists of item ids in a record, such as favourites: the mean of a learned vector for each, without their order."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pydantic import Field
from torch import Tensor

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Ragged, tensors_of
from anyrec.core.sharded_tables import make_table, mean_of_rows
from anyrec.data.preparation.ids import places_of_listed_ids


class ItemIds(Encoder):
    """The mean of a learned vector for each item id in the list; ids not seen in training are ignored."""

    type = "item_ids"
    group = "temporal"
    role = "items"
    preparation = "item_ids"

    class Params(Params):
        sparse: bool = Field(False, description="Use sparse gradients for this table, whatever its size.")

    def fit(self, column: pa.Array) -> None:
        """Learn the ids, in ascending order."""
        self.vocabulary = column.flatten().drop_null().unique().sort()

    def prepare(self, column: pa.Array) -> Ragged:
        """Return the rows of the vocabulary for each record, int64.

        Args:
            column: (records,) lists of ids.
        """
        return tensors_of(places_of_listed_ids(column, self.vocabulary))

    def build(self) -> None:
        """Create the embedding table, with vectors of about unit length."""
        rows, shard_rows = max(1, len(self.vocabulary)), self.context.shard_rows
        std, sparse = self.output_dim**-0.5, self.params.sparse
        self.table = make_table(rows, self.output_dim, std=std, sparse=sparse, shard_rows=shard_rows)

    def forward(self, values: Ragged) -> Tensor:
        """Average the vectors of each record's ids.

        Args:
            values: Rows of the vocabulary for each of `batch` records.

        Returns:
            (batch, output_dim).
        """
        return mean_of_rows(self.table, values)

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

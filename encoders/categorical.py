"""Categories, one or several for each record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Encoder, Params, only_with
from anyrec.core.ragged import Ragged, tensors_of
from anyrec.data.preparation.categories import categories_of, flat_texts


class Categorical(Encoder):
    """The mean of a learned vector for each category; rare and unseen categories share one vector.

    References:
        Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009 (`hash_buckets`).
    """

    type = "categorical"
    preparation = "categorical"

    class Params(Params):
        min_count: int = Field(
            1,
            ge=1,
            le=10**9,
            description="Categories of fewer training rows than this share the vector of unseen categories.",
            json_schema_extra=only_with(hash_buckets=[None]),
        )
        max_categories: int | None = Field(
            None,
            ge=1,
            le=10**7,
            description="Most categories with a vector of their own, the most frequent first; null for no limit.",
            json_schema_extra=only_with(hash_buckets=[None]),
        )
        hash_buckets: int | None = Field(
            None,
            ge=1,
            le=10**7,
            description="Hash categories into this many vectors; null to learn a vocabulary instead.",
        )
        sparse: bool = Field(False, description="Use sparse gradients for this table, whatever its size.")

    def fit(self, column: pa.Array) -> None:
        """Learn the vocabulary: categories by descending count, ties by name, then sorted by name."""
        values, _ = flat_texts(column)
        counts = pc.value_counts(values.drop_null())
        names, count = counts.field("values"), counts.field("counts").to_numpy()
        by_name = np.argsort(np.argsort(names.to_numpy(zero_copy_only=False)))
        order = np.lexsort((by_name, -count))
        order = order[count[order] >= self.params.min_count][: self.params.max_categories]
        self.vocabulary = pa.array([], pa.string()) if self.params.hash_buckets else names.take(pa.array(order)).sort()

    def prepare(self, column: pa.Array) -> Ragged:
        """Look up the categories of each record.

        Args:
            column: (records,) strings, or lists of them.

        Returns:
            The rows of the embedding table for each record, int64: the hash bucket, or the place in the vocabulary from
            1, with 0 for a category that is not in it.
        """
        return tensors_of(categories_of(column, self.vocabulary, self.params.hash_buckets))

    def build(self) -> None:
        """Create the embedding table, with vectors of about unit length."""
        rows = self.params.hash_buckets or len(self.vocabulary) + 1
        self.table = nn.Embedding(rows, self.output_dim, sparse=self.params.sparse)
        nn.init.normal_(self.table.weight, std=self.output_dim**-0.5)

    def forward(self, values: Ragged) -> Tensor:
        """Average the vectors of each record's categories.

        Args:
            values: Rows of the embedding table for each of `batch` records.

        Returns:
            (batch, output_dim).
        """
        return values.bag(self.table.weight, sparse=self.table.sparse)

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]

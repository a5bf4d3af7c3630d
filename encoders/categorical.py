"""Categories, one or several for each record."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from anyrec.core.contracts import Encoder, Params, only_with
from anyrec.core.ragged import Ragged
from anyrec.data.list_columns import flat, offsets_of


class Categorical(Encoder):
    """The mean of a learned vector for each category; rare and unseen categories share one vector.

    References:
        Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009 (`hash_buckets`).
    """

    type = "categorical"

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
        values, _ = flatten(column)
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
        values, offsets = flatten(column)
        if self.params.hash_buckets:
            distinct = values.dictionary_encode()
            hashed = [zlib.crc32(name.encode()) % self.params.hash_buckets for name in distinct.dictionary.to_pylist()]
            places = np.array(hashed, np.int64)[distinct.indices.to_numpy()] if len(values) else np.empty(0, np.int64)
        else:
            found = pc.fill_null(pc.index_in(values, value_set=self.vocabulary), -1)
            places = found.to_numpy(zero_copy_only=False).astype(np.int64) + 1
        return Ragged(torch.from_numpy(places), torch.from_numpy(offsets))

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
        return functional.embedding_bag(
            values.values, self.table.weight, values.offsets[:-1], mode="mean", sparse=self.table.sparse
        )

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]


def flatten(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Lay the categories of all records end to end.

    Args:
        column: (records,) strings, or lists of them. Nulls are left out.

    Returns:
        (values,) strings, and (records + 1,) int64 offsets: the categories of record i are
        `values[offsets[i]:offsets[i + 1]]`.
    """
    values, owners = flat(column)
    return values.cast(pa.string()), offsets_of(owners, len(column))

"""Categories, one or several a record."""

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

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Ragged
from anyrec.data.list_columns import flat, offsets_of


class Categorical(Encoder):
    """The mean of a learned vector for each category; rare and unseen ones share one."""

    type = "categorical"

    class Params(Params):
        min_count: int = Field(
            1, ge=1, le=10**9, description="Categories in fewer training rows share the vector of the unseen."
        )
        max_categories: int | None = Field(
            None, ge=1, le=10**7, description="Keep only the commonest; the rest are pooled."
        )
        hash_buckets: int | None = Field(
            None, ge=1, le=10**7, description="Hash into so many vectors instead of learning a vocabulary."
        )

    def fit(self, column: pa.Array) -> None:
        values, _ = flatten(column)
        counts = pc.value_counts(values.drop_null())
        names, count = counts.field("values"), counts.field("counts").to_numpy()
        order = np.lexsort((np.argsort(np.argsort(names.to_numpy(zero_copy_only=False))), -count))
        order = order[count[order] >= self.params.min_count][: self.params.max_categories]
        self.vocabulary = pa.array([], pa.string()) if self.params.hash_buckets else names.take(pa.array(order)).sort()

    def prepare(self, column: pa.Array) -> Ragged:
        """Ragged places in the table: 0 for the unseen, or the hash bucket."""
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
        self.table = nn.Embedding(self.params.hash_buckets or len(self.vocabulary) + 1, self.output_dim)
        nn.init.normal_(self.table.weight, std=self.output_dim**-0.5)

    def forward(self, values: Ragged) -> Tensor:
        """values: rows of table places -> (batch, output_dim), the mean of each row's vectors."""
        return functional.embedding_bag(
            values.values, self.table.weight, values.offsets[:-1], mode="mean", sparse=self.table.sparse
        )

    def state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = state["vocabulary"]


def flatten(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Strings or lists of strings as (values,) without nulls and (rows + 1,) int64 offsets; a null row is empty."""
    values, owners = flat(column)
    return values.cast(pa.string()), offsets_of(owners, len(column))

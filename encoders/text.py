"""Texts as bags of hashed words and word pairs. Trained with the model; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn

from anyrec.core.contracts import Encoder, Params
from anyrec.core.ragged import Ragged, tensors_of
from anyrec.data.preparation.words import hashed_terms, known_terms


class Hashed(Encoder):
    """The sum of learned vectors of a text's words and word pairs, weighted by inverse document frequency.

    The sum is divided by the Euclidean length of the weights, so that long and short texts have the same scale. Terms
    are hashed into `buckets`. Only buckets that at least `min_count` training rows use have a vector, because a vector
    that was never trained is noise.

    References:
        Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009. Unlike the paper, terms have no
        random sign.
    """

    type = "hashed"
    preferred = True
    group = "text"
    preparation = "hashed"

    class Params(Params):
        buckets: int = Field(
            1 << 18,
            ge=2,
            le=1 << 24,
            description="Buckets that terms are hashed into; few collisions up to about this many distinct terms.",
        )
        ngrams: int = Field(2, ge=1, le=4, description="Most words in a term: 2 for words and word pairs.")
        min_count: int = Field(
            2, ge=1, le=10**9, description="Training rows that must contain a term for it to have a vector."
        )
        max_words: int = Field(256, ge=1, le=100_000, description="Words read from each text; the rest is ignored.")
        sparse: bool = Field(False, description="Use sparse gradients for this table, whatever its size.")

    def fit(self, column: pa.Array) -> None:
        """Learn which buckets are in use, and their inverse document frequencies."""
        terms, offsets = hashed_terms(column, *self._options)
        rows = np.repeat(np.arange(len(column)), np.diff(offsets))
        pairs = np.unique(rows * np.int64(self.params.buckets) + terms)
        used, count = np.unique(pairs % self.params.buckets, return_counts=True)
        kept = count >= min(self.params.min_count, max(1, len(column)))
        self.terms = pa.array(used[kept])
        self.idf = pa.array(np.log((1 + len(column)) / (1 + count[kept])) + 0.1)

    def prepare(self, column: pa.Array) -> Ragged:
        """Return the rows of the embedding table for each record, int64; a text without a known term is absent.

        Args:
            column: (records,) texts, or lists of texts.
        """
        return tensors_of(known_terms(column, self.terms.to_numpy(), *self._options))

    @property
    def _options(self) -> tuple[int, int, int]:
        """The options that terms depend on."""
        return self.params.buckets, self.params.ngrams, self.params.max_words

    def build(self) -> None:
        """Create the embedding table, with vectors of about unit length."""
        self.table = nn.Embedding(max(1, len(self.terms)), self.output_dim, sparse=self.params.sparse)
        nn.init.normal_(self.table.weight, std=self.output_dim**-0.5)
        idf = torch.from_numpy(self.idf.to_numpy().astype(np.float32)) if len(self.idf) else torch.ones(1)
        self.register_buffer("weights", idf, persistent=False)
        self.weights: Tensor

    def forward(self, values: Ragged) -> Tensor:
        """Sum the weighted vectors of each text's terms.

        Args:
            values: Rows of the embedding table for each of `batch` texts.

        Returns:
            (batch, output_dim).
        """
        weights = self.weights[values.values]
        bag = values.sum_bag(self.table.weight, weights, sparse=self.table.sparse)
        with torch.no_grad():  # (batch, 1) sum of the squared weights of each text
            square = values.sum_bag(self.weights.square().unsqueeze(1))
        return bag / square.clamp(min=1e-6).sqrt()

    def state(self) -> dict[str, Any]:
        return {"terms": self.terms, "idf": self.idf}

    def restore(self, state: dict[str, Any]) -> None:
        self.terms, self.idf = state["terms"], state["idf"]
        terms, idf = (values.to_numpy(zero_copy_only=False) for values in (self.terms, self.idf))
        if terms.shape != idf.shape or terms.dtype.kind not in "iu" or (np.diff(terms) <= 0).any():
            raise ValueError("terms in ascending order, with a weight each, were expected")
        if not np.isfinite(idf).all():
            raise ValueError("a weight of a term is not finite")

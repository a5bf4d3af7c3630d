"""Text as a bag of hashed words and word pairs, trained with the model: needs no download."""

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

WORD_BREAK = r"[^\p{L}\p{N}]+"
WITHOUT_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
"""Scripts written without spaces: each character counts as a word."""


class Hashed(Encoder):
    """Learned vectors of a text's words and word pairs, summed by inverse document frequency, at unit length of weights.

    Terms are hashed (Weinberger et al., Feature Hashing, 2009) to `buckets`; only buckets that at least `min_count`
    training rows use get a vector, since a vector that was never trained says nothing.
    """

    type = "hashed"
    preferred = True
    group = "text"

    class Params(Params):
        buckets: int = Field(1 << 18, ge=2, le=1 << 24, description="Values of the hash.")
        ngrams: int = Field(2, ge=1, le=4, description="Longest run of words that counts as a term.")
        min_count: int = Field(2, ge=1, le=10**9, description="Training rows that must use a term.")
        max_words: int = Field(256, ge=1, le=100_000, description="Words read of each text.")

    def fit(self, column: pa.Array) -> None:
        terms, offsets = self._terms(column)
        rows = np.repeat(np.arange(len(column)), np.diff(offsets))
        pairs = np.unique(rows * np.int64(self.params.buckets) + terms)
        used, count = np.unique(pairs % self.params.buckets, return_counts=True)
        kept = count >= min(self.params.min_count, max(1, len(column)))
        self.terms = pa.array(used[kept])
        self.idf = pa.array(np.log((1 + len(column)) / (1 + count[kept])) + 0.1)

    def prepare(self, column: pa.Array) -> Ragged:
        """Ragged places in the table of terms; a text without a known term is absent."""
        terms, offsets = self._terms(column)
        known = self.terms.to_numpy()
        place = np.searchsorted(known, terms)
        found = known[np.minimum(place, len(known) - 1)] == terms if len(known) else np.zeros(len(terms), bool)
        counted = np.concatenate([[0], np.cumsum(found)])
        return Ragged(torch.from_numpy(place[found]), torch.from_numpy(counted[offsets]))

    def build(self) -> None:
        self.table = nn.Embedding(max(1, len(self.terms)), self.output_dim)
        nn.init.normal_(self.table.weight, std=self.output_dim**-0.5)
        idf = torch.from_numpy(self.idf.to_numpy().astype(np.float32)) if len(self.idf) else torch.ones(1)
        self.register_buffer("weights", idf, persistent=False)
        self.weights: Tensor

    def forward(self, values: Ragged) -> Tensor:
        """values: rows of term places -> (batch, output_dim)."""
        weights = self.weights[values.values]
        bag = functional.embedding_bag(
            values.values,
            self.table.weight,
            values.offsets[:-1],
            mode="sum",
            per_sample_weights=weights,
            sparse=self.table.sparse,
        )
        with torch.no_grad():
            square = functional.embedding_bag(
                values.values, self.weights.square().unsqueeze(1), values.offsets[:-1], mode="sum"
            )
        return bag / square.clamp(min=1e-6).sqrt()

    def _terms(self, column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all terms, row by row: (terms,) int64 and (rows + 1,) offsets."""
        words, offsets = split_words(column, self.params.max_words)
        distinct = words.dictionary_encode()
        names = distinct.dictionary.cast(pa.binary()).to_pylist()
        crc = np.fromiter(map(zlib.crc32, names), np.uint64, len(names))
        hashes = crc[distinct.indices.to_numpy()] if len(words) else np.empty(0, np.uint64)
        lengths = np.diff(offsets)
        to_end = np.repeat(offsets[1:], lengths) - np.arange(len(hashes))
        owner = np.repeat(np.arange(len(lengths)), lengths)
        runs, owners, chain = [hashes], [owner], hashes
        for extra in range(1, self.params.ngrams):
            chain = (chain[:-1] * np.uint64(0x9E3779B97F4A7C15)) ^ hashes[extra:] if len(chain) else chain
            inside = to_end[: len(chain)] > extra
            runs.append(chain[inside])
            owners.append(owner[: len(chain)][inside])
        mixed = np.concatenate(runs) * np.uint64(0xC2B2AE3D27D4EB4F)
        terms = ((mixed >> np.uint64(29)) % np.uint64(self.params.buckets)).astype(np.int64)
        rows = np.concatenate(owners)
        order = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=len(lengths)) if len(lengths) else lengths
        return terms[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def state(self) -> dict[str, Any]:
        return {"terms": self.terms, "idf": self.idf}

    def restore(self, state: dict[str, Any]) -> None:
        self.terms, self.idf = state["terms"], state["idf"]
        terms, idf = (values.to_numpy(zero_copy_only=False) for values in (self.terms, self.idf))
        if terms.shape != idf.shape or terms.dtype.kind not in "iu" or (np.diff(terms) <= 0).any():
            raise ValueError("terms in ascending order, with a weight each, were expected")
        if not np.isfinite(idf).all():
            raise ValueError("a weight of a term is not finite")


def split_words(column: pa.Array, most: int) -> tuple[pa.Array, np.ndarray]:
    """Lower-case words of each row's text or texts, at most `most`: (words,) strings and (rows + 1,) offsets."""
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, " ")
    text = pc.utf8_lower(pc.fill_null(column, "")).cast(pa.string())
    text = pc.replace_substring_regex(text, WORD_BREAK, " ")
    text = pc.utf8_trim(pc.replace_substring_regex(text, WITHOUT_SPACES, r" \1 "), " ")
    split = pc.utf8_split_whitespace(text)
    words = split.flatten()
    parents = pc.list_parent_indices(split).to_numpy(zero_copy_only=False)
    lengths = np.bincount(parents, minlength=len(column)) if len(column) else np.empty(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    kept = (np.arange(len(words)) - np.repeat(starts, lengths) < most) & (pc.utf8_length(words).to_numpy() > 0)
    counts = np.bincount(parents[kept], minlength=len(column)) if len(column) else lengths
    return words.filter(pa.array(kept)), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

"""Texts as bags of hashed words and word pairs. Trained with the model; nothing is downloaded."""

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
"""What separates words: everything but letters and digits."""
WITHOUT_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
"""Characters of scripts that are written without spaces; each counts as a word."""
CHAIN, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd multipliers that spread the bits of a hash over 64 bits: of the golden ratio, and of xxHash64."""


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
        terms, offsets = self._terms(column)
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
        terms, offsets = self._terms(column)
        known = self.terms.to_numpy()
        place = np.searchsorted(known, terms)
        found = known[np.minimum(place, len(known) - 1)] == terms if len(known) else np.zeros(len(terms), bool)
        counted = np.concatenate([[0], np.cumsum(found)])
        return Ragged(torch.from_numpy(place[found]), torch.from_numpy(counted[offsets]))

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
        bag = functional.embedding_bag(
            values.values,
            self.table.weight,
            values.offsets[:-1],
            mode="sum",
            per_sample_weights=weights,
            sparse=self.table.sparse,
        )
        with torch.no_grad():  # (batch, 1) sum of the squared weights of each text
            square = functional.embedding_bag(
                values.values, self.weights.square().unsqueeze(1), values.offsets[:-1], mode="sum"
            )
        return bag / square.clamp(min=1e-6).sqrt()

    def _terms(self, column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Hash all terms of each record.

        A term of n words has the hash h_n = (h_(n-1) * CHAIN) xor crc32(word n), computed for all positions at once.

        Returns:
            (terms,) int64 buckets, record by record, and (records + 1,) int64 offsets.
        """
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
            chain = (chain[:-1] * CHAIN) ^ hashes[extra:] if len(chain) else chain
            inside = to_end[: len(chain)] > extra  # a term ends within its own record
            runs.append(chain[inside])
            owners.append(owner[: len(chain)][inside])
        # The high bits of the product depend on all bits of the hash; the low ones do not.
        mixed = np.concatenate(runs) * MIX
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
    """Split texts into lower-case words.

    Args:
        column: (records,) texts, or lists of texts, which are joined.
        most: Words kept of each record, the first ones.

    Returns:
        (words,) strings, record by record, and (records + 1,) int64 offsets.
    """
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

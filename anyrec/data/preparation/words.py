"""Texts as hashed words and runs of words."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import FlatLists

WORD_BREAK = r"[^\p{L}\p{N}]+"
"""What separates words: everything but letters and digits."""
WITHOUT_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"
"""Characters of scripts that are written without spaces; each counts as a word."""
CHAIN, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
"""Odd multipliers that spread the bits of a hash over 64 bits: of the golden ratio, and of xxHash64."""


def known_terms(column: pa.Array, known: np.ndarray, buckets: int, ngrams: int, max_words: int) -> FlatLists:
    """Return the places of the known terms of each record, int64.

    Args:
        column: (records,) texts, or lists of texts.
        known: The buckets that have a vector, in ascending order.
        buckets: As for `hashed_terms`.
        ngrams: As for `hashed_terms`.
        max_words: As for `hashed_terms`.
    """
    terms, offsets = hashed_terms(column, buckets, ngrams, max_words)
    place = np.searchsorted(known, terms)
    found = known[np.minimum(place, len(known) - 1)] == terms if len(known) else np.zeros(len(terms), bool)
    counted = np.concatenate([[0], np.cumsum(found)])
    return FlatLists(place[found], counted[offsets])


def hashed_terms(column: pa.Array, buckets: int, ngrams: int, max_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash all terms of each record.

    A term of n words has the hash h_n = (h_(n-1) * CHAIN) xor crc32(word n), computed for all positions at once.

    Args:
        column: (records,) texts, or lists of texts.
        buckets: Number of buckets.
        ngrams: Most words in a term.
        max_words: Words read from each text.

    Returns:
        (terms,) int64 buckets, record by record, and (records + 1,) int64 offsets.
    """
    words, offsets = split_words(column, max_words)
    distinct = words.dictionary_encode()
    names = distinct.dictionary.cast(pa.binary()).to_pylist()
    crc = np.fromiter(map(zlib.crc32, names), np.uint64, len(names))
    hashes = crc[distinct.indices.to_numpy()] if len(words) else np.empty(0, np.uint64)
    lengths = np.diff(offsets)
    to_end = np.repeat(offsets[1:], lengths) - np.arange(len(hashes))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    runs, owners, chain = [hashes], [owner], hashes
    for extra in range(1, ngrams):
        chain = (chain[:-1] * CHAIN) ^ hashes[extra:] if len(chain) else chain
        inside = to_end[: len(chain)] > extra  # a term ends within its own record
        runs.append(chain[inside])
        owners.append(owner[: len(chain)][inside])
    # The high bits of the product depend on all bits of the hash; the low ones do not.
    mixed = np.concatenate(runs) * MIX
    terms = ((mixed >> np.uint64(29)) % np.uint64(buckets)).astype(np.int64)
    rows = np.concatenate(owners)
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=len(lengths)) if len(lengths) else lengths
    return terms[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


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

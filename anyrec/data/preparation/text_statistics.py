"""How long texts are, and how they are written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.data.preparation.words import split_words

SENTENCE_END = r"""[.!?\x{2026}]+["')\]\x{201D}\x{2019}]*(?:\s|$)|[\x{3002}\x{FF01}\x{FF1F}]+"""
"""The end of a sentence: a stop before a space or the end of the text, or a stop of a script without spaces."""
STATISTICS = (
    "characters",
    "words",
    "sentences",
    "lines",
    "words of a sentence",
    "characters of a word",
    "fraction of distinct words",
    "fraction of capitals",
    "fraction of digits",
    "fraction of punctuation",
    "questions and exclamations",
)
"""The statistics in their order. Numbers that can be large are log(1 + x)."""
MAX_WORDS = 1 << 20


def statistics_of(column: pa.Array) -> pa.Array:
    """Return (records,) lists of `STATISTICS`, float64; null for a record without a text.

    Args:
        column: (records,) texts, or lists of texts, which are joined by line breaks.
    """
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, "\n")
    text = pc.utf8_trim_whitespace(pc.fill_null(column, "").cast(pa.string()))
    words, offsets = split_words(text, MAX_WORDS)
    number = np.diff(offsets).astype(np.float64)
    owners = np.repeat(np.arange(len(text)), np.diff(offsets))
    letters = np.bincount(owners, pc.utf8_length(words).to_numpy(), len(text)) if len(text) else number
    distinct = np.unique(np.stack([owners, words.dictionary_encode().indices.to_numpy()]), axis=1)[0]
    characters = pc.utf8_length(text).to_numpy().astype(np.float64)
    sentences = np.maximum(_count(text, SENTENCE_END), 1.0)
    some_words, some_characters = np.maximum(number, 1.0), np.maximum(characters, 1.0)
    table = np.stack(
        [
            np.log1p(characters),
            np.log1p(number),
            np.log1p(sentences),
            np.log1p(_count(text, r"\n") + 1),
            np.log1p(number / sentences),
            letters / some_words,
            np.bincount(distinct, minlength=len(text)) / some_words,
            _count(text, r"\p{Lu}") / some_characters,
            _count(text, r"\p{Nd}") / some_characters,
            _count(text, r"\p{P}") / some_characters,
            np.log1p(_count(text, r"[!?\x{FF01}\x{FF1F}]")),
        ],
        axis=1,
    )
    lists = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
    return pc.if_else(pa.array(characters > 0), lists.cast(pa.list_(pa.float64())), None)


def _count(text: pa.Array, pattern: str) -> np.ndarray:
    """Return (records,) float64, how often a regular expression matches in each text."""
    return pc.count_substring_regex(text, pattern).to_numpy().astype(np.float64)

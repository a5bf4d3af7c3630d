"""Texts as the tokens of a pretrained language model."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import FlatLists, PreparedColumn
from anyrec.core.errors import MissingDependency
from anyrec.data.list_columns import flat, offsets_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NO_TOKEN = -1
"""Pads the tokens of a text."""


def tokenizer_of(text: str, most: int) -> Tokenizer:
    """Return a tokenizer.

    Args:
        text: The content of its tokenizer.json.
        most: Tokens read from each text.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependency("tokenizers", "export", "An exported model with a language model") from None
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer


def tokens_of_each(column: pa.Array, tokenizer: Tokenizer) -> FlatLists:
    """Return the tokens of each text of each record, (texts, longest) int64, padded with `NO_TOKEN`.

    Args:
        column: (records,) texts, or lists of texts. Empty texts are left out.
        tokenizer: As `tokenizer_of` returns it.
    """
    texts, offsets = flat_full_texts(column)
    tokens = _tokens(texts.to_pylist(), tokenizer)
    mask = np.arange(tokens.lengths.max(initial=0)) < tokens.lengths[:, None]
    padded = np.full(mask.shape, NO_TOKEN, np.int64)
    padded[mask] = tokens.values
    return FlatLists(padded, offsets)


def joined_tokens(column: pa.Array, tokenizer: Tokenizer) -> PreparedColumn:
    """Return the tokens of each record, whose texts are joined, int64; arguments as of `tokens_of_each`."""
    texts, offsets = flat_full_texts(column)
    return PreparedColumn(_tokens(joined_texts(texts.to_pylist(), offsets), tokenizer), np.diff(offsets) > 0)


def _tokens(texts: list[str], tokenizer: Tokenizer) -> FlatLists:
    """Return the token ids of each text, int64."""
    return flat_tokens([one.ids for one in tokenizer.encode_batch(texts)])


def flat_tokens(ids: list[list[int]]) -> FlatLists:
    """Return the token ids of each text, int64, of lists of them."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    values = np.concatenate([np.array(row, np.int64) for row in ids]) if ids else np.empty(0, np.int64)
    return FlatLists(values, np.concatenate([[0], np.cumsum(lengths)]))


def flat_full_texts(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Lay the texts of all records end to end, without empty texts.

    Returns:
        (texts,) strings, and (records + 1,) int64 offsets.
    """
    texts, owners = flat(column)
    full = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0)
    return texts.filter(full), offsets_of(owners[full.to_numpy(zero_copy_only=False)], len(column))


def joined_texts(texts: list[str], offsets: np.ndarray) -> list[str]:
    """Return one text for each record: its texts with a space between them."""
    return [" ".join(texts[start:end]) for start, end in pairwise(offsets)]

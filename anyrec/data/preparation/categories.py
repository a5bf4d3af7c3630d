"""Categories as places in a vocabulary, or as hash buckets."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anyrec.core.columns import FlatLists
from anyrec.data.list_columns import flat, offsets_of


def categories_of(column: pa.Array, vocabulary: pa.Array, hash_buckets: int | None) -> FlatLists:
    """Look up the categories of each record.

    Args:
        column: (records,) strings, or lists of them.
        vocabulary: The known categories; not read if there are buckets.
        hash_buckets: Number of buckets: the bucket of a category is its CRC-32 modulo this number. None for none.

    Returns:
        The rows of the embedding table for each record, int64: the hash bucket, or the place in the vocabulary from 1,
        with 0 for a category that is not in it.
    """
    values, offsets = flat_texts(column)
    if hash_buckets:
        distinct = values.dictionary_encode()
        hashed = [zlib.crc32(name.encode()) % hash_buckets for name in distinct.dictionary.to_pylist()]
        places = np.array(hashed, np.int64)[distinct.indices.to_numpy()] if len(values) else np.empty(0, np.int64)
    else:
        found = pc.fill_null(pc.index_in(values, value_set=vocabulary), -1)
        places = found.to_numpy(zero_copy_only=False).astype(np.int64) + 1
    return FlatLists(places, offsets)


def flat_texts(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Lay the categories of all records end to end.

    Args:
        column: (records,) strings, or lists of them. Nulls are left out.

    Returns:
        (values,) strings, and (records + 1,) int64 offsets: the categories of record i are
        `values[offsets[i]:offsets[i + 1]]`.
    """
    values, owners = flat(column)
    return values.cast(pa.string()), offsets_of(owners, len(column))
